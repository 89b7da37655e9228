"""Successive halving: who stays, who goes, and that the best is hardly ever lost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from headstart.learning.halving import halve, rungs, survivors
from headstart.learning.held_out import HeldOut


def held_out(losses):
    return HeldOut(np.asarray(losses, float), np.asarray(losses) < 0.7)


@pytest.mark.parametrize(
    ("num_images", "expected"),
    [(40, (40, 40)), (255, (255, 255)), (256, (128, 256)), (1600, (128, 512, 1600)), (900, (128, 900))],
)
def test_rungs(num_images, expected):
    assert rungs(num_images) == expected


def test_many_classes_begin_with_some_of_each():
    assert rungs(10_000, 100) == (800, 3200, 10_000)
    assert rungs(1000, 100) == (1000, 1000)


def test_rungs_of_a_million_are_few():
    counts = rungs(1_000_000)
    assert len(counts) == 7
    assert all(later >= 2 * earlier for earlier, later in itertools.pairwise(counts))


def test_the_worse_half_goes_and_near_equals_stay():
    random = np.random.default_rng(0)
    base = random.uniform(0.3, 0.9, size=200)
    judged = {
        "best": held_out(base),
        "good": held_out(base + 0.01 + random.normal(0, 0.1, 200)),
        "middling": held_out(base + 0.07 + random.normal(0, 0.1, 200)),
        "bad": held_out(base + 0.3 + random.normal(0, 0.1, 200)),
    }
    assert survivors(judged) == ["best", "good"]
    near = np.linspace(-0.005, 0.005, 4)
    noise = random.normal(0, 0.1, (4, 200))
    equals = {gap: held_out(base + gap + each - each.mean()) for gap, each in zip(near, noise, strict=True)}
    assert survivors(equals) == list(near), "they cannot be told apart"


def test_who_is_clearly_behind_goes_even_from_the_better_half():
    base = np.random.default_rng(0).uniform(0.3, 0.9, size=200)
    judged = {name: held_out(base + gap) for name, gap in (("best", 0.0), ("second", 0.2), ("third", 0.3))}
    assert survivors(judged) == ["best"]


def test_everyone_is_judged_first_and_the_best_at_last():
    asked = []

    def judge(name, count, rung):
        asked.append((name, count, rung))
        return held_out(np.full(count, {"a": 0.9, "b": 0.5, "c": 0.8, "d": 0.6}[name]))

    history = halve("abcd", rungs(600), judge)
    assert asked[:4] == [(name, 128, 0) for name in "abcd"]
    assert asked[4:] == [("b", 600, 1)], "the others are behind beyond doubt"
    assert list(history[-1]) == ["b"]


def test_who_cannot_be_judged_is_out_and_the_rest_go_on():
    history = halve("ab", (40, 40), lambda name, count, rung: None if name == "a" else held_out(np.full(count, 0.5)))
    assert [list(judged) for judged in history] == [["b"], ["b"]]
    assert halve("ab", (40, 40), lambda *_: None) == []


def simulated(random, num_candidates):
    """A judge over learning curves: losses fall with the images, and share what is hard about each image.

    The figures are of the size measured on the solar cells: log losses of 0.30 to 0.55 that fall by a quarter from 128
    to all images, whose differences image by image have a deviation of 0.35.
    """
    floors = 0.30 + np.sort(random.exponential(0.08, num_candidates))
    order = random.permutation(num_candidates)
    floors = floors[order]
    drops = random.uniform(0.05, 0.2, num_candidates)
    hardness = random.exponential(1.0, 2000)
    noise = random.normal(0, 0.25, (num_candidates, 2000))

    def judge(each, count, rung):
        mean = floors[each] + drops[each] * (128 / count) ** 0.5
        return held_out(mean * hardness[:count] + noise[each, :count])

    return judge, int(np.argmin(floors + drops * (128 / 2000) ** 0.5))


def test_the_best_of_simulated_networks_is_hardly_ever_lost():
    kept = 0
    for seed in range(300):
        judge, best = simulated(np.random.default_rng(seed), 8)
        kept += best in halve(range(8), rungs(2000), judge)[-1]
    assert kept / 300 >= 0.95
