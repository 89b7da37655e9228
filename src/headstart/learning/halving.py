"""Successive halving: many candidates on few images, the better ones on more, the best few on all.

After every rung the worse half goes, and with it whoever is clearly behind, even if that leaves one. Who cannot be told
from the best stays, even in the worse half: on few images the order of near equals is chance. (Jamieson and Talwalkar
2016, "Non-stochastic best arm identification and hyperparameter optimization", https://arxiv.org/abs/1502.07943; the
comparison image by image is that of racing: Maron and Moore 1994.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from headstart.learning.held_out import HeldOut

Candidate = TypeVar("Candidate")

_FIRST_RUNG = 128
_FIRST_OF_EACH_CLASS = 8
_GROWTH = 4
_LIKE_THE_BEST = 2.0  # Standard errors behind the best: stays, whatever its place.
_CLEARLY_BEHIND = 3.0  # Goes, whatever its place.


def rungs(num_images: int, num_classes: int = 2) -> tuple[int, ...]:
    """How many images each round has: 128, 512, ..., and at last all; a rung that is nearly all is left out.

    Where there are many classes the first has eight of each. There are two at least, since the first is a quick look.
    """
    counts = []
    count = max(_FIRST_RUNG, _FIRST_OF_EACH_CLASS * num_classes)
    while count * 2 <= num_images:
        counts.append(count)
        count *= _GROWTH
    return (*counts, num_images) if counts else (num_images, num_images)


def halve(
    candidates: Sequence[Candidate],
    counts: Sequence[int],
    judge: Callable[[Candidate, int, int], HeldOut | None],
) -> list[Mapping[Candidate, HeldOut]]:
    """Judge candidates on ever more images.

    Args:
        candidates: in any order; the judging goes in it.
        counts: how many images each round has; see `rungs`.
        judge: a candidate, how many images, and which rung this is (0 is the first); the same images for every
            candidate. None: it could not be judged, and is out.

    Returns:
        For each rung who was judged there, and how; the last is the final one. Rungs end early where nobody is left.
    """
    history: list[Mapping[Candidate, HeldOut]] = []
    left = list(candidates)
    for number, count in enumerate(counts):
        judged = {each: found for each in left if (found := judge(each, count, number)) is not None}
        if not judged:
            break
        history.append(judged)
        left = survivors(judged)
    return history


def survivors(judged: Mapping[Candidate, HeldOut]) -> list[Candidate]:
    """Who goes on to the next rung, the best first."""
    order = sorted(judged, key=lambda each: judged[each].loss)
    best = judged[order[0]]
    half = math.ceil(len(order) / 2)
    behind = [judged[each].standard_errors_behind(best) for each in order]
    return [
        each
        for place, (each, gap) in enumerate(zip(order, behind, strict=True))
        if gap <= (_CLEARLY_BEHIND if place < half else _LIKE_THE_BEST)
    ]
