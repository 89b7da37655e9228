"""What a comparison of networks says: who is best, who is as good, and what each costs. Plain values, nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Ranked:
    """One network and how it did.

    Attributes:
        backbone: Keras's name.
        image_size: the side of its images in pixels.
        num_images: on how many training images it was judged at last.
        is_finalist: whether it was still in the race on the last rung; else it was overtaken on fewer images, or on a
            quick look.
        accuracy: the cross-validated share of those that is right, 0 to 1.
        accuracy_low: the lower end of the 95 % interval of the head that learns from all; see
            `intervals.cross_validated`.
        accuracy_high: the upper end.
        p_value: of being as often right as the best; None where the two were not judged on the same images.
        tied_with_best: whether it is the best, or cannot be told from it on all images.
        latency_ms: milliseconds per image on this machine.
        size_mb: of its weights in float32, without the top.
        num_params: likewise.
        seconds: spent on it.
        weights: where they come from.
    """

    backbone: str
    image_size: int
    num_images: int
    is_finalist: bool
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    p_value: float | None
    tied_with_best: bool
    latency_ms: float
    size_mb: float
    num_params: int
    seconds: float
    weights: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Networks compared on training images.

    Attributes:
        ranking: the best first.
        left_out: the reason of each network that could not be tried.
        num_images: training images that there are.
        num_classes: how many classes.
        notes: what a reader must not miss.
        seconds: that it took.
    """

    ranking: tuple[Ranked, ...]
    left_out: Mapping[str, str]
    num_images: int
    num_classes: int
    notes: tuple[str, ...]
    seconds: float

    @property
    def best(self) -> Ranked:
        """The one that is right most often."""
        return self.ranking[0]

    @property
    def chosen(self) -> Ranked:
        """The fastest of those that cannot be told from the best."""
        return min((each for each in self.ranking if each.tied_with_best), key=lambda each: each.latency_ms)

    @property
    def frontier(self) -> tuple[Ranked, ...]:
        """Those that none beats in both accuracy and speed, the fastest first."""
        return tuple(_frontier(self.ranking))

    def standing(self, each: Ranked) -> str:
        """How a network stands against the best, in a word or two."""
        if each == self.best:
            return "best"
        if each.tied_with_best:
            return f"tied (p = {each.p_value:.2f})"
        if not each.is_finalist:
            return "overtaken"
        return f"behind (p = {each.p_value:.2g})"

    def to_json(self) -> dict[str, Any]:
        """What ``headstart compare --json`` prints."""
        return {
            "ranking": [dataclasses.asdict(each) for each in self.ranking],
            "chosen": self.chosen.backbone,
            "left_out": [{"backbone": name, "reason": reason} for name, reason in self.left_out.items()],
            "num_images": self.num_images,
            "seconds": round(self.seconds, 3),
        }


def _frontier(ranking: Sequence[Ranked]) -> list[Ranked]:
    found: list[Ranked] = []
    for each in sorted(ranking, key=lambda one: (one.latency_ms, -one.accuracy)):
        if not found or each.accuracy > found[-1].accuracy:
            found.append(each)
    return found
