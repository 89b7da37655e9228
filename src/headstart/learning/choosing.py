"""Image size, views and stages, chosen on a part of the training images before the rest is computed.

What helps is asked of the data: small defects need large images, and mirrored views help only where a mirrored
picture keeps its label. Mirrored views come at two scales where the network has them. One step up is taken, never both:
larger images cost two and a half times the computing, mirrored views at two scales six times, both fifteen times. Last,
the head is tried without the first stage and without the last, which costs no computing. The test images play no part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from headstart.features.pooling import POOLED, POOLED_TWICE
from headstart.learning.logistic import LinearHead
from headstart.networks.backbone import AS_IS, FLIPS
from headstart.recipe import NUM_SCREENED, NUM_SCREENED_FOR_VIEWS

_LEAST_STANDARD_ERRORS = 1.0
_FEWEST_STAGES = 3
_LEAST_WITHOUT_A_STAGE = 2.0  # All stages together are rarely worse (docs/decisions.md), and two more are tried.


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to see the images.

    Attributes:
        image_size: the side in pixels.
        views: their names.
        output: what is taken from the network; see `feature_model`.
        without: the name of a stage that the head does not hear, or "".
    """

    image_size: int
    views: tuple[str, ...]
    output: str = POOLED
    without: str = ""

    def __str__(self) -> str:
        """As a person would say it."""
        scales = " at two scales" if self.output == POOLED_TWICE else ""
        views = f" with mirrored views{scales}" if self.views == FLIPS else scales
        return f"{self.image_size} px{views}" + (f" without {self.without}" if self.without else "")

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
    stages: Sequence[str] = (),
) -> Choice:
    """Try larger images, and mirrored views if those do not help; then one stage less. Take what helps.

    Args:
        sizes: sides in pixels, the plainest first.
        views: "one", "flips", "many" or "auto".
        fit: a head on so many training images, or all of them, as a candidate sees them; cross-validated, on the same
            folds for every candidate.
        two_scales: whether the network has them.
        stages: the names of those that may be left out, from shallow to deep; none, where the head has to hear all.
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
    asked = by_views or by_size
    count = NUM_SCREENED_FOR_VIEWS if by_views else NUM_SCREENED
    by_stages = {each: fit(each, count) for each in _with_fewer(best, stages)}
    if by_stages:
        by_stages = {best: asked.get(best) or fit(best, count), **by_stages}
        best = _least_that_is_sure(by_stages)
    return Choice(best, _sentence(best, [trial for trial in (by_size, by_views, by_stages) if trial]))


def _with_fewer(candidate: Candidate, stages: Sequence[str]) -> list[Candidate]:
    """The candidate without its first stage, and without its last, where more than two are left."""
    ends = (stages[0], stages[-1]) if len(stages) >= _FEWEST_STAGES else ()
    return [dataclasses.replace(candidate, without=name) for name in ends]


def _least_that_is_sure(heads: Mapping[Candidate, LinearHead]) -> Candidate:
    """The candidate of least log loss among those that are surely better than the first; or that."""
    first = next(iter(heads))
    held_out = heads[first].held_out
    sure = [
        each
        for each, head in heads.items()
        if len(held_out) and held_out.standard_errors_behind(head.held_out) > _LEAST_WITHOUT_A_STAGE
    ]
    return min(sure, key=lambda each: heads[each].held_out.loss, default=first)


def _sentence(best: Candidate, trials: Sequence[Mapping[Candidate, LinearHead]]) -> str:
    """What was chosen, and how often each that was tried was right; nothing where nothing was tried."""
    judged = [trial for trial in trials if len(next(iter(trial.values())).held_out)]
    if not judged:
        return "There are too few images to try other sizes, views or stages." if trials else ""
    figures = "; ".join(
        f"on {len(next(iter(trial.values())).held_out)}: "
        + ", ".join(f"{each} {head.held_out.accuracy:.1%}" for each, head in trial.items())
        for trial in judged
    )
    return f"{best} chosen by cross-validated log loss on training images (accuracy {figures})."


def _standing(first: LinearHead, other: LinearHead) -> float:
    """The mean log loss of a candidate, or that of the first where the gain over it could be noise."""
    if not len(first.held_out):
        return 0.0
    sure = first.held_out.standard_errors_behind(other.held_out) > _LEAST_STANDARD_ERRORS
    return other.held_out.loss if sure else first.held_out.loss
