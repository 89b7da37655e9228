"""Pictures varied a little: never the same twice, always the same for the same random numbers."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.pictures.views import varied


def picture(height=40, width=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_the_same_random_numbers_give_the_same_picture():
    one, two, other = (varied(picture(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("seed", range(20))
def test_it_stays_a_picture_of_the_same_size(seed):
    given = picture(seed=seed)
    before = given.copy()
    found = varied(given, np.random.default_rng(seed))
    assert found.shape == given.shape
    assert found.dtype == np.float32
    assert 0 <= found.min() < found.max() <= 255
    np.testing.assert_array_equal(given, before)


def test_it_is_moved_by_a_twentieth_at_most():
    marked = np.full((100, 100, 3), 100, np.uint8)
    marked[50, 50] = 255
    places = []
    for seed in range(200):
        bright = varied(marked, np.random.default_rng(seed)).sum(axis=2)
        places.append(np.unravel_index(bright.argmax(), bright.shape))
    distances = np.array(places) - 50
    assert np.abs(distances).max() == 5
    assert len(np.unique(distances, axis=0)) > 50


def test_an_even_picture_is_only_brighter_or_darker():
    even = np.full((32, 32, 3), 100, np.uint8)
    levels = [np.unique(varied(even, np.random.default_rng(seed))) for seed in range(50)]
    assert all(len(each) == 1 for each in levels)
    assert 85 <= min(each[0] for each in levels) < 90
    assert 110 < max(each[0] for each in levels) <= 115
