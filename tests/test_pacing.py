"""How a budget is spent, with networks and a clock that are made up: nobody computes and nobody sleeps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from headstart.learning.halving import halve
from headstart.learning.held_out import HeldOut
from headstart.learning.pacing import Cost, Pace, guess
from headstart.progress import TimeIsUpError

COUNTS = (128, 512, 2000)


@dataclasses.dataclass(eq=False)
class Network:
    """So many milliseconds an image, and one second of preparation; its work is in milliseconds, too."""

    name: str
    milliseconds: float
    loss: float
    preparation: float = 1.0
    num_seen: int = 0
    cost: Cost | None = None

    @property
    def work(self):
        return self.milliseconds


class Track:
    """Lets networks run on a clock of its own, as the race does."""

    def __init__(self, budget):
        self.budget, self.now = budget, 0.0
        self.pace = Pace(COUNTS, self.left)
        self.judged = [{} for _ in COUNTS]
        self.turns = []

    def left(self):
        return self.budget - self.now

    def judge(self, one, count, rung):
        if not self.pace.has_time_for(one, rung, self.judged[rung]):
            return None
        missing = count - one.num_seen
        if one.cost and missing * one.milliseconds / 1000 > self.left():
            return None
        preparation = one.preparation / 2 if one.cost else one.preparation
        self.now += min(preparation + missing * one.milliseconds / 1000, self.left())
        if not self.left():  # It is stopped then.
            return None
        one.num_seen, one.cost = count, Cost(one.preparation, one.milliseconds)
        self.turns.append((one.name, count))
        losses = one.loss + np.random.default_rng(0).normal(0, 0.01, count)
        self.judged[rung][one] = HeldOut(losses, losses < 0.7)
        return self.judged[rung][one]


def eight():
    """The quickest first; the third is the best, and the last two take most of the time."""
    speeds = (5, 8, 12, 20, 40, 60, 150, 250)
    losses = (0.5, 0.55, 0.3, 0.6, 0.5, 0.45, 0.6, 0.6)
    return [Network(f"n{place}", *each) for place, each in enumerate(zip(speeds, losses, strict=True))]


def race(budget):
    track = Track(budget)
    return track, halve(eight(), COUNTS, track.judge)


def test_without_a_budget_everyone_is_tried():
    track, history = race(float("inf"))
    assert track.turns[:8] == [(f"n{place}", 128) for place in range(8)]
    assert [each.name for each in history[-1]] == ["n2"]
    assert next(iter(history[-1].values())).losses.shape == (2000,)


def test_a_budget_that_suffices_leaves_nobody_out():
    track, _ = race(200.0)
    assert [name for name, count in track.turns if count == 128] == [f"n{place}" for place in range(8)]
    assert track.turns[-1] == ("n2", 2000)


@pytest.mark.parametrize("budget", [40.0, 60.0, 80.0])
def test_a_small_budget_goes_deep_with_the_leader_instead_of_trying_the_slow_ones(budget):
    track, history = race(budget)
    tried = [name for name, count in track.turns if count == 128]
    assert tried[:3] == ["n0", "n1", "n2"]
    assert "n7" not in tried
    assert track.turns[-1] == ("n2", 2000), "the best has seen all images"
    assert len(history) == 3
    assert track.left() >= 0


def test_where_the_leader_cannot_go_deeper_the_others_are_looked_at():
    track, history = race(11.0)
    assert [count for _, count in track.turns] == [128] * len(track.turns)
    assert len(track.turns) >= 4
    assert len(history) == 1


def test_whatever_the_budget_the_best_that_was_tried_is_found_and_more_time_goes_no_less_deep():
    depths = []
    for budget in range(15, 300, 5):
        track, history = race(float(budget))
        assert next(each.name for each in history[-1]) == "n2"
        depths.append(track.turns[-1][1])
    assert depths == sorted(depths)
    assert depths[0] == 512
    assert depths[5] == 2000, "from 40 seconds on: to try all eight on 128 images alone takes 78"


def test_a_guess_is_the_median_of_what_the_others_say_and_the_longest_preparation():
    known = [(10.0, Cost(1.0, 5.0)), (20.0, Cost(3.0, 30.0)), (10.0, Cost(2.0, 10.0))]
    assert guess(40.0, known) == Cost(3.0, 40.0)
    assert Cost(2.0, 40.0).seconds(100) == 6.0
    assert Cost(2.0, 40.0).again().seconds(100) == 5.0


def test_a_network_that_takes_more_than_was_thought_is_stopped():
    track = Track(60.0)
    first, second = Network("first", 10, 0.5), Network("second", 12, 0.5)
    track.judge(first, 128, 0)
    assert track.pace.has_time_for(second, 0, track.judged[0])
    reports = []
    tell = track.pace.over(lambda *step: reports.append(step))
    tell("a step", 1, 2)
    track.now = 50.0
    with pytest.raises(TimeIsUpError):
        tell("a step", 2, 2)
    assert reports == [("a step", 1, 2), ("a step", 2, 2)]
    assert track.pace.has_time_for(second, len(COUNTS) - 1, track.judged[0]), "nobody waits behind the last rung"
    tell("a step", 2, 2)


def test_where_the_last_rung_is_out_of_reach_the_next_one_is_kept():
    track = Track(90.0)
    leader, other = Network("leader", 20, 0.3), Network("other", 60, 0.5, preparation=5.0)
    track.judge(leader, 128, 0)
    for now, has_time in ((10.0, True), (45.0, False), (58.0, True), (74.0, False), (85.0, True)):
        track.now = now  # The next rung costs 8 seconds, the last 30 more; the other one 9.
        assert track.pace.has_time_for(other, 0, track.judged[0]) is has_time, now


def test_how_many_images_are_within_reach():
    one = Network("one", 10, 0.5, num_seen=512, cost=Cost(1.0, 10.0))
    assert Track(10.0).pace.within_reach(one, 2000) == 512 + 850, "half a second to prepare, and a tenth to spare"
    assert Track(20.0).pace.within_reach(one, 2000) == 2000
    assert Track(0.1).pace.within_reach(one, 2000) == 512
    one.cost = Cost(0.0, 10.0, 2.0)
    assert Track(10.0).pace.within_reach(one, 2000) == 512 + int((9 - 1.024) / 0.012), "its head learns from all again"
    assert one.cost.seconds(2000, 512) == pytest.approx(14.88 + 4)


def test_larger_images_are_tried_only_where_all_could_be_seen_at_that_size():
    one = Network("one", 10, 0.5, num_seen=512, cost=Cost(1.0, 10.0))
    needed = (0.5 + 320 * 0.04) + (0.5 + 2000 * 0.04)
    assert Track(needed + 0.1).pace.has_time_for_sizes(one, 224, (224, 448), 320)
    assert not Track(needed - 0.1).pace.has_time_for_sizes(one, 224, (224, 448), 320)
    assert Track(float("inf")).pace.has_time_for_sizes(one, 224, (224, 448), 320)
