"""Image size and views, chosen on a part of the training images before the rest is computed.

What helps is asked of the data: small defects need large images, and mirrored views help only where a mirrored
picture keeps its label. Mirrored views come at two scales where the network has them. One step up is taken, never both:
larger images cost three times the computing, mirrored views at two scales six times, both eighteen times. The test
images play no part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from headstart.features.pooling import POOLED, POOLED_TWICE
from headstart.learning.logistic import LinearHead
from headstart.networks.backbone import AS_IS, FLIPS
from headstart.recipe import NUM_SCREENED, NUM_SCREENED_FOR_VIEWS

_LEAST_STANDARD_ERRORS = 1.0


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to see the images: the side in pixels, the views, and what is taken from the network (`feature_model`)."""

    image_size: int
    views: tuple[str, ...]
    output: str = POOLED

    def __str__(self) -> str:
        """As a person would say it."""
        scales = " at two scales" if self.output == POOLED_TWICE else ""
        return f"{self.image_size} px" + (f" with mirrored views{scales}" if self.views == FLIPS else scales)

    def at(self, image_size: int) -> Candidate:
        """The same at another size."""
        return dataclasses.replace(self, image_size=image_size)


@dataclasses.dataclass(frozen=True)
class Choice:
    """The chosen way, and one sentence that says why."""

    candidate: Candidate
    sentence: str


def choose_candidate(
    sizes: Sequence[int],
    views: str,
    fit: Callable[[Candidate, int], LinearHead],
    *,
    two_scales: bool = True,
) -> Choice:
    """Try larger images, and mirrored views if those do not help; take what helps.

    Args:
        sizes: sides in pixels, the plainest first.
        views: "one", "flips", "many" or "auto".
        fit: a head on so many training images, or all of them, as a candidate sees them; cross-validated, on the same
            folds for every candidate.
        two_scales: whether the network has them.
    """
    many = Candidate(sizes[0], FLIPS, POOLED_TWICE if two_scales else POOLED)
    plain = {"flips": Candidate(sizes[0], FLIPS), "many": many}.get(views, Candidate(sizes[0], AS_IS))
    by_size = {plain.at(size): fit(plain.at(size), NUM_SCREENED) for size in sizes} if len(sizes) > 1 else {}
    best = min(by_size, key=lambda each: _standing(by_size[plain], by_size[each]), default=plain)
    by_views = {}
    if views == "auto" and best == plain:
        by_views = {each: fit(each, NUM_SCREENED_FOR_VIEWS) for each in (plain, many)}
        # Asked only to be better on average, which is inside the noise for 320 images: of twelve splits of the solar
        # cells, 320 images found the gain of mirrored views on eight, 640 on all. Noise alone can choose them.
        if by_views[many].held_out.loss < by_views[plain].held_out.loss:
            best = many
    trials = [trial for trial in (by_size, by_views) if trial and len(trial[plain].held_out)]
    if not trials:
        return Choice(best, "There are too few images to try other sizes or views." if by_size or by_views else "")
    figures = "; ".join(
        f"on {len(trial[plain].held_out)}: "
        + ", ".join(f"{each} {head.held_out.accuracy:.1%}" for each, head in trial.items())
        for trial in trials
    )
    return Choice(best, f"{best} chosen by cross-validated log loss on training images (accuracy {figures}).")


def _standing(first: LinearHead, other: LinearHead) -> float:
    """The mean log loss of a candidate, or that of the first where the gain over it could be noise."""
    if not len(first.held_out):
        return 0.0
    sure = first.held_out.standard_errors_behind(other.held_out) > _LEAST_STANDARD_ERRORS
    return other.held_out.loss if sure else first.held_out.loss
