"""How a budget is spent in a race: who leads goes deeper before whoever is slow is tried at all.

Networks are tried with the quickest first. Before each of them what it will cost is guessed from what the others have
cost, and where the time would then not suffice to judge the leader on more images, it is left out: a network that is
known from a quick look alone is worth less than a surer answer about the best so far. What is kept is what the leader
needs to the deepest rung that two thirds of all the time suffice for, or for the next one at least; and up to a half
for those who go on beside it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from headstart.learning.halving import survivors
from headstart.learning.held_out import HeldOut
from headstart.progress import Progress, TimeIsUpError

_SHARE_OF_THE_LEADER = 2 / 3
_SHARE_KEPT = 1 / 2
_NOT_TO_SPARE = 0.9
_AGAIN = 1 / 2  # Of the preparation, for a network that was tried before: what was compiled for it is kept.


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a network costs: seconds before it sees an image, and milliseconds for each."""

    preparation: float
    milliseconds: float

    def seconds(self, num_images: int) -> float:
        """For so many images."""
        return self.preparation + num_images * self.milliseconds / 1000

    def again(self) -> Cost:
        """What it costs the next time."""
        return dataclasses.replace(self, preparation=_AGAIN * self.preparation)


class Runner(Protocol):
    """A network in a race.

    Attributes:
        work: about how much it computes for an image, in no unit.
        num_seen: how many images it has seen.
        cost: what that has cost; None while it has not been tried.
    """

    work: float
    num_seen: int
    cost: Cost | None


One = TypeVar("One", bound=Runner)


def guess(work: float, known: Sequence[tuple[float, Cost]]) -> Cost:
    """What a network of so much work will cost, by the work and the cost of others: the median of what they say."""
    preparation = float(np.median([cost.preparation for _, cost in known]))
    milliseconds = float(np.median([cost.milliseconds / other for other, cost in known])) * work
    return Cost(preparation, milliseconds)


class Pace:
    """Says whether there is time for one more network on a rung, and stops those that take more than was thought."""

    def __init__(self, counts: Sequence[int], left: Callable[[], float]) -> None:
        """Take how many images each rung has, and what says how many seconds are left."""
        self._counts, self._left = counts, left
        self._total = left()
        self._reserved = 0.0

    def has_time_for(self, one: One, rung: int, judged: Mapping[One, HeldOut]) -> bool:
        """Whether a network can be judged on a rung without taking the time that the leader needs on the next.

        Args:
            one: the network.
            rung: which one, from 0.
            judged: those that were judged on it before, and how.
        """
        self._reserved = 0.0
        left = self._left()
        if math.isinf(left) or not judged or rung == len(self._counts) - 1:
            return True
        reserve = self._reserve(rung, judged)
        if reserve > left:  # The leader cannot go deeper anyhow: then rather look at the others.
            return True
        cost = (
            one.cost.again() if one.cost else guess(one.work, [(each.work, each.cost) for each in judged if each.cost])
        )
        self._reserved = reserve
        return left - cost.seconds(self._counts[rung] - one.num_seen) >= reserve

    def _reserve(self, rung: int, judged: Mapping[One, HeldOut]) -> float:
        """Seconds that are kept for those who are ahead. Only whole rungs count: half of one would tell nothing."""
        leader, *others = survivors(judged)
        steps = [following - here for here, following in itertools.pairwise(self._counts[rung:])]
        courses = list(itertools.accumulate(_cost(leader).seconds(step) for step in steps))
        affordable = [course for course in courses if course <= _SHARE_OF_THE_LEADER * self._total]
        ahead = max(affordable, default=courses[0])
        beside = sum(_cost(each).seconds(steps[0]) for each in others)
        return max(ahead, min(_SHARE_KEPT * self._total, ahead + beside))

    def within_reach(self, one: Runner) -> int:
        """How many images a network that was tried can have seen before the time is up, with a little to spare."""
        cost = _cost(one)
        seconds = _NOT_TO_SPARE * max(0.0, self._left() - cost.preparation)
        return one.num_seen + int(1000 * seconds / max(cost.milliseconds, 1e-6))

    def has_time_for_sizes(self, one: Runner, size: int, sizes: Sequence[int], num_tried: int) -> bool:
        """Whether a network can be tried at several sizes, and then see all images at the largest of them."""
        cost = _cost(one)
        on_trial = sum(self._scaled(cost, each / size).seconds(num_tried) for each in sizes if each != size)
        return on_trial + self._scaled(cost, max(sizes) / size).seconds(self._counts[-1]) <= self._left()

    @staticmethod
    def _scaled(cost: Cost, enlarged: float) -> Cost:
        return dataclasses.replace(cost, milliseconds=cost.milliseconds * enlarged**2)

    def over(self, progress: Progress) -> Progress:
        """The same progress, which raises `TimeIsUpError` when only the time is left that is kept for others."""

        def tell(step: str, done: int, total: int) -> None:
            progress(step, done, total)
            if self._left() < self._reserved:
                raise TimeIsUpError

        return tell


def _cost(one: Runner) -> Cost:
    return one.cost.again() if one.cost else Cost(0.0, 0.0)
