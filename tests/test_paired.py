"""McNemar's test, against the sum it stands for and against simulated ties."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from headstart.scoring.paired import TIED_ABOVE, mcnemar


@pytest.mark.parametrize(("wins", "losses"), [(0, 5), (3, 3), (2, 9), (20, 9), (1, 0)])
def test_it_is_the_exact_binomial(wins, losses):
    first = np.array([True] * wins + [False] * losses + [True] * 7)
    other = np.array([False] * wins + [True] * losses + [True] * 7)
    total, few = wins + losses, min(wins, losses)
    tail = sum(comb(total, each) for each in range(few + 1)) / 2**total
    assert mcnemar(first, other) == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar(other, first) == mcnemar(first, other)


def test_the_same_answers_are_tied():
    assert mcnemar([True, False], [True, False]) == 1.0
    assert mcnemar([], []) == 1.0


def test_equals_are_called_different_no_more_often_than_promised():
    random = np.random.default_rng(0)
    different = sum(
        mcnemar(random.uniform(size=300) < 0.8, random.uniform(size=300) < 0.8) < TIED_ABOVE for _ in range(2000)
    )
    assert different / 2000 < 0.055


def test_a_clear_gap_is_seen():
    random = np.random.default_rng(0)
    assert mcnemar(random.uniform(size=1000) < 0.9, random.uniform(size=1000) < 0.8) < 1e-4


def test_other_images_are_refused():
    with pytest.raises(ValueError, match="not the same images"):
        mcnemar([True], [True, False])
