"""Image size and views, chosen on a part of the training images before the rest is computed.

What helps is asked of the data: small defects need large images, and mirrored views help only where a mirrored
picture keeps its label. One step up is taken, the better of the two, and only if it beats noise: larger images cost
three times the computing and mirrored views four times. The test images play no part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from headstart.learning.logistic import LinearHead, fit_linear_head
from headstart.networks.backbone import AS_IS, FLIPS

Features = npt.NDArray[np.float32]

_LEAST_STANDARD_ERRORS = 1.0


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to see the images: the side in pixels and the views."""

    image_size: int
    views: tuple[str, ...]

    def __str__(self) -> str:
        """As a person would say it."""
        return f"{self.image_size} px" + (", with mirrored views" if self.views == FLIPS else "")


@dataclasses.dataclass(frozen=True)
class Choice:
    """The chosen way, and one sentence that says why."""

    candidate: Candidate
    sentence: str


def choose_candidate(
    candidates: list[Candidate],
    compute: Callable[[Candidate], Features],
    labels: npt.NDArray[np.int64],
    num_classes: int,
    units: npt.NDArray[np.int64],
    *,
    seed: int,
) -> Choice:
    """Try each candidate on the same images and take the best that beats the first beyond noise.

    Args:
        candidates: the plainest first.
        compute: the features (n, num_views, d) of the screening images for a candidate.
        labels: (n,) of those images.
        num_classes: how many classes there are.
        units: (n,) images of one number stay in one fold.
        seed: of the folds.
    """
    if len(candidates) == 1:
        return Choice(candidates[0], "")
    heads = [fit_linear_head(compute(each), labels, num_classes, units, seed=seed) for each in candidates]
    if not len(heads[0].log_losses):
        return Choice(candidates[0], "Too few images to try other sizes or views.")
    best = min(range(len(candidates)), key=lambda number: _standing(heads[0], heads[number]))
    tried = "; ".join(f"{each}: {head.accuracy:.1%}" for each, head in zip(candidates, heads, strict=True))
    return Choice(
        candidates[best],
        f"{candidates[best]} chosen on {len(labels)} training images (cross-validated accuracy of each way: {tried}).",
    )


def _standing(first: LinearHead, other: LinearHead) -> float:
    """The mean log loss of a candidate, or that of the first where the gain over it could be noise."""
    gains = first.log_losses - other.log_losses
    standard_error = gains.std() / np.sqrt(len(gains))
    sure = gains.mean() > _LEAST_STANDARD_ERRORS * standard_error
    return float(other.log_losses.mean()) if sure else float(first.log_losses.mean())


def list_candidates(sizes: tuple[int, ...], views: str) -> list[Candidate]:
    """The ways to try, the plainest first: larger images or mirrored views, not both, which would cost twelvefold."""
    plain = FLIPS if views == "flips" else AS_IS
    found = [Candidate(size, plain) for size in sizes]
    return [*found, Candidate(sizes[0], FLIPS)] if views == "auto" else found
