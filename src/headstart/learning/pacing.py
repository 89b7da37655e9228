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
    """What a network costs.

    Attributes:
        preparation: seconds before it sees an image.
        milliseconds: for each image.
        fitting: milliseconds for each image that its head learns from; 0 while that is not known, since the quick look
            of the first rung fits another.
    """

    preparation: float
    milliseconds: float
    fitting: float = 0.0

    def seconds(self, num_images: int, num_seen: int = 0) -> float:
        """For so many images, of which it has seen some."""
        network, head = (num_images - num_seen) * self.milliseconds, num_images * self.fitting
        return self.preparation + (network + head) / 1000

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
    """What a network of so much work will cost, by the work and the cost of others.

    The milliseconds are the median of what they say. The preparation is the longest: the networks come with the
    smallest first, and one that is being compiled cannot be stopped.
    """
    preparation = max(cost.preparation for _, cost in known)
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
        reserve = self._reserve(left, rung, judged)
        if not reserve:
            return True
        known = [(each.work, each.cost) for each in judged if each.cost]
        cost = one.cost.again() if one.cost else guess(one.work, known)
        self._reserved = reserve
        return left - cost.seconds(self._counts[rung], one.num_seen) >= reserve

    def _reserve(self, left: float, rung: int, judged: Mapping[One, HeldOut]) -> float:
        """Seconds that are kept for those who are ahead; none where the leader cannot reach the next rung anyhow."""
        leader, *others = survivors(judged)
        steps = [(following, here) for here, following in itertools.pairwise(self._counts[rung:])]
        courses = list(itertools.accumulate(_cost(leader).seconds(*step) for step in steps))
        if courses[0] > left:
            return 0.0
        affordable = [course for course in courses if course <= min(left, _SHARE_OF_THE_LEADER * self._total)]
        ahead = max(affordable, default=courses[0])
        beside = sum(_cost(each).seconds(*steps[0]) for each in others)
        return max(ahead, min(_SHARE_KEPT * self._total, ahead + beside))

    def within_reach(self, one: Runner, count: int) -> int:
        """On how many images, up to a number, a network can be judged before the time is up, with a little to spare."""
        cost = _cost(one)
        if not one.cost or cost.seconds(count, one.num_seen) <= self._left():
            return count
        seconds = _NOT_TO_SPARE * self._left() - cost.seconds(one.num_seen, one.num_seen)
        return one.num_seen + max(0, int(1000 * seconds / max(cost.milliseconds + cost.fitting, 1e-6)))

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
