"""Networks compared on the user's own training images: halving over features that are computed once and kept.

On the first rung ridge regression takes a quick look; from the second on the head that is shipped is cross-validated;
for the last each network that is left also tries a larger image size. The test images play no part. What was computed
is in the store, so the same comparison goes on after a kill, and the training after it begins with features ready.
"""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from headstart.errors import DataError, HeadstartError
from headstart.learning.choosing import Candidate, choose_candidate
from headstart.learning.halving import halve, rungs
from headstart.learning.held_out import HeldOut
from headstart.learning.logistic import LinearHead
from headstart.learning.pacing import Cost, Pace
from headstart.learning.seeing import Eyes, learn, part_of
from headstart.networks.backbone import AS_IS
from headstart.networks.rows import BackboneSpec
from headstart.networks.weights import Weights
from headstart.pictures.folder import ImageFile
from headstart.progress import Budget, Progress, TimeIsUpError
from headstart.recipe import NUM_SCREENED, Recipe
from headstart.scoring.comparison import Ranked
from headstart.scoring.intervals import cross_validated
from headstart.scoring.paired import TIED_ABOVE, mcnemar

Tell = Callable[[Ranked], None]

_WORTHWHILE = 1.5  # Times as many images as before, for a rung that the time does not suffice for.


@dataclasses.dataclass(frozen=True)
class Field:
    """Who was compared, and who could not be."""

    ranking: tuple[Ranked, ...]
    left_out: Mapping[str, str]
    notes: tuple[str, ...]


def compare_backbones(
    images: Sequence[ImageFile],
    class_names: Sequence[str],
    networks: Mapping[BackboneSpec, Weights],
    recipe: Recipe,
    budget: Budget,
    *,
    tell: Tell,
    progress: Progress,
) -> Field:
    """Rank networks by how well a linear head on their frozen features does.

    Args:
        images: to learn from, and nothing else.
        class_names: in order.
        networks: with their weights.
        recipe: of which the image size and the seed matter.
        budget: when it is used up, what is known by then is ranked; see `Pace` for how it is spent.
        tell: called with a network each time it was judged.
        progress: told how far it is.

    Raises:
        DataError: no network could be judged, for want of time or of images.
    """
    race = _Race(images, class_names, recipe, budget, tell)
    watched = race.pace.over(budget.over(progress))
    contestants = [_Contestant(spec, weights, recipe, watched) for spec, weights in networks.items()]
    contestants.sort(key=lambda each: each.work)  # The quickest first.
    history = halve(contestants, race.rungs, race.judge)
    if not history:
        problems = "; ".join(f"{name}: {reason}" for name, reason in race.left_out.items())
        raise DataError(f"No network could be judged. {problems or 'There are none.'}")
    return Field(tuple(race.ranking(history)), race.left_out, tuple(race.notes()))


class _Contestant:
    """One network in the race."""

    def __init__(self, spec: BackboneSpec, weights: Weights, recipe: Recipe, progress: Progress) -> None:
        self.spec, self.weights = spec, weights
        self.eyes = Eyes(spec, weights, recipe.seed, self, progress)
        self.sizes = self.eyes.sizes(recipe)
        self.size = self.sizes[0]
        self.work = float(spec.num_params * spec.image_size**2)
        self.num_seen = 0
        self.cost: Cost | None = None
        self.seconds = 0.0
        self.latencies: dict[int, float] = {}

    @contextmanager
    def measures(self, step: str) -> Iterator[None]:
        """All its time is counted by the race."""
        yield

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Count the seconds, and rest afterwards."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.eyes.rest()
            gc.collect()  # A Keras model is a ring of references.
            self.seconds += time.perf_counter() - start

    def latency(self, size: int) -> float:
        """Milliseconds per image, measured while its network is at hand."""
        if size not in self.latencies:
            self.latencies[size] = self.eyes.milliseconds(size)
        return self.latencies[size]

    def has_seen(self, count: int, size: int, seconds: float) -> None:
        """It was judged on so many images at a size, which took so long."""
        milliseconds = self.latency(size)
        beside = max(0.0, seconds - (count - self.num_seen) * milliseconds / 1000)
        # From the second time on what is beside the network is, above all, to fit the head, over and over.
        self.cost = Cost(0.0, milliseconds, 1000 * beside / count) if self.cost else Cost(beside, milliseconds)
        self.num_seen, self.size = count, size


class _Race:
    """Judges contestants on a part of the images, and ranks them."""

    def __init__(
        self, images: Sequence[ImageFile], class_names: Sequence[str], recipe: Recipe, budget: Budget, tell: Tell
    ) -> None:
        self._images, self._class_names, self._seed = images, class_names, recipe.seed
        self._budget, self._tell = budget, tell
        self.rungs = rungs(len(images), len(class_names))
        self.pace = Pace(self.rungs, budget.left)
        self._judged: list[dict[_Contestant, HeldOut]] = [{} for _ in self.rungs]
        self._most: dict[int, int] = {}
        self._stopped = self._spared = self._kept_size = False
        self.left_out: dict[str, str] = {}

    def judge(self, one: _Contestant, count: int, rung: int) -> HeldOut | None:
        """See `halve`."""
        if not self.pace.has_time_for(one, rung, self._judged[rung]):
            self._spare(one)
            return None
        count = min(count, self._most.get(rung, count))
        reach = self.pace.within_reach(one, count)
        if reach < count:
            self._stopped = True
            if self._judged[rung] or reach < _WORTHWHILE * one.num_seen:
                return None
            self._most[rung] = count = reach  # The leader comes first; the others are to see the same images.
        before = one.seconds
        try:
            with one.at_work():
                size = self._choose_size(one) if rung == len(self.rungs) - 1 else one.size
                held_out = self._judge(one, size, count, rung)
                one.latency(size)
        except TimeIsUpError:
            if self._budget.left() >= 0:
                self._spare(one)
                return None
            self._stopped = True
            if not one.latencies:
                self.left_out[one.spec.name] = "the time was used up before it could be tried"
            return None
        except HeadstartError as error:
            self.left_out[one.spec.name] = str(error)
            return None
        one.has_seen(count, size, one.seconds - before)
        self._judged[rung][one] = held_out
        self._tell(self._ranked(one, held_out))
        return held_out

    def _spare(self, one: _Contestant) -> None:
        """Leave out a network for the sake of those that lead; if it was judged before, it counts as overtaken."""
        self._spared = True
        if not one.latencies:
            self.left_out[one.spec.name] = "the time was kept for judging the best of the others on more images"

    def _judge(self, one: _Contestant, size: int, count: int, rung: int) -> HeldOut:
        part = part_of(self._images, count, self._seed)
        lesson = learn(part, self._class_names, one.eyes, Candidate(size, AS_IS), one.spec.name)
        quick = lesson.leave_one_out() if rung == 0 else lesson.cross_validated(self._seed)
        # Fewer than two images of a class cannot be cross-validated, but each of them can be left out.
        return quick if len(quick) else lesson.leave_one_out()

    def _choose_size(self, one: _Contestant) -> int:
        if len(one.sizes) > 1 and not self.pace.has_time_for_sizes(one, one.size, one.sizes, NUM_SCREENED):
            self._kept_size = True
            return one.size

        def fit(candidate: Candidate, count: int) -> LinearHead:
            part = part_of(self._images, count, self._seed)
            step = f"{one.spec.name}, trying sizes"
            return learn(part, self._class_names, one.eyes, candidate, step).linear_head(self._seed)

        return choose_candidate(one.sizes, "one", fit).candidate.image_size

    def ranking(self, history: Sequence[Mapping[_Contestant, HeldOut]]) -> list[Ranked]:
        """Who came furthest first, then by accuracy; equals by the loss."""
        finalists = history[-1]
        best = max(finalists, key=lambda each: (finalists[each].accuracy, -finalists[each].loss))
        ranked: dict[_Contestant, Ranked] = {}
        for judged in reversed(history):
            by_merit = sorted(judged, key=lambda each: (-judged[each].accuracy, judged[each].loss))
            for each in by_merit:
                if each not in ranked:
                    ranked[each] = self._ranked(each, judged[each], judged.get(best), is_final=judged is finalists)
        return list(ranked.values())

    def _ranked(
        self, one: _Contestant, held_out: HeldOut, best: HeldOut | None = None, *, is_final: bool = False
    ) -> Ranked:
        low, high = cross_validated(int(held_out.right.sum()), len(held_out), held_out.gain)
        p_value = mcnemar(best.right, held_out.right) if best else None
        plan = one.eyes.plan(one.size)
        return Ranked(
            backbone=one.spec.name,
            image_size=one.size,
            num_images=len(held_out),
            is_finalist=is_final,
            accuracy=held_out.accuracy,
            accuracy_low=low,
            accuracy_high=high,
            p_value=p_value,
            tied_with_best=is_final and (p_value or 0.0) > TIED_ABOVE,
            latency_ms=one.latency(one.size),
            size_mb=plan.num_params * 4 / 1e6,
            num_params=plan.num_params,
            seconds=one.seconds,
            weights=one.weights.source,
        )

    def notes(self) -> Iterator[str]:
        """What a reader must not miss."""
        if self._stopped:
            yield "The time was used up before every network had seen all the images that it should have."
        if self._spared:
            yield "The time did not suffice for every network: some of it was kept for judging the best on more images."
        if self._kept_size:
            yield "There was no time to try larger images."
