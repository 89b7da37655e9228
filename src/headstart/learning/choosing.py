"""Image size and views, chosen on a part of the training images before the rest is computed.

What helps is asked of the data: small defects need large images, and mirrored views help only where a mirrored
picture keeps its label. One step up is taken, never both: larger images cost three times the computing, mirrored views
four times, both twelve times. The test images play no part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from headstart.learning.logistic import LinearHead
from headstart.networks.backbone import AS_IS, FLIPS

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


def choose_candidate(sizes: Sequence[int], views: str, fit: Callable[[Candidate], LinearHead]) -> Choice:
    """Try larger images, and mirrored views if those do not help; take what helps.

    Args:
        sizes: sides in pixels, the plainest first.
        views: "one", "flips" or "auto".
        fit: a head on the screening images as a candidate sees them, cross-validated on always the same folds.
    """
    plain = FLIPS if views == "flips" else AS_IS
    tried: dict[Candidate, LinearHead] = {}

    def best_of(candidates: Sequence[Candidate]) -> Candidate:
        for candidate in candidates:
            if candidate not in tried:
                tried[candidate] = fit(candidate)
        return min(candidates, key=lambda each: _standing(tried[candidates[0]], tried[each]))

    best = best_of([Candidate(size, plain) for size in sizes])
    if views == "auto" and best.image_size == sizes[0]:
        mirrored = Candidate(sizes[0], FLIPS)
        best_of([best, mirrored])
        # Asked only to be better on average: of 320 images, a gain of a point or two is inside the noise, and asking
        # for proof lost it on two of three splits of the solar cells. The price: noise alone can choose the slower way.
        if len(tried[best].log_losses) and tried[mirrored].log_losses.mean() < tried[best].log_losses.mean():
            best = mirrored
    if not len(tried[best].log_losses):
        return Choice(best, "There are too few images to try other sizes or views.")
    accuracies = "; ".join(f"{candidate}: {head.accuracy:.1%}" for candidate, head in tried.items())
    number = len(tried[best].log_losses)
    sentence = f"{best} chosen on {number} training images (cross-validated accuracy of each way: {accuracies})."
    return Choice(best, sentence)


def _standing(first: LinearHead, other: LinearHead) -> float:
    """The mean log loss of a candidate, or that of the first where the gain over it could be noise."""
    if not len(first.log_losses):
        return 0.0
    gains = first.log_losses - other.log_losses
    standard_error = gains.std() / np.sqrt(len(gains))
    sure = gains.mean() > _LEAST_STANDARD_ERRORS * standard_error
    return float(other.log_losses.mean()) if sure else float(first.log_losses.mean())
