"""The minimiser against SciPy's on problems whose answer is known or hard."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize as scipys

from headstart.learning.lbfgs import minimize


def quadratic(spread, centre):
    return lambda point: (0.5 * float(spread @ (point - centre) ** 2), spread * (point - centre))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(0, 1000), st.floats(0, 2))
def test_finds_the_minimum_of_a_quadratic(size, seed, unevenness):
    random = np.random.default_rng(seed)
    spread, centre = 10 ** (random.uniform(-unevenness, unevenness, size)), random.normal(size=size)
    found = minimize(quadratic(spread, centre), np.zeros(size), tolerance=1e-9, least_gain=0.0, max_steps=2000)
    np.testing.assert_allclose(found, centre, atol=1e-6)


def log_sum(rows):
    """A convex function that is no quadratic, far from its minimum at first."""

    def loss_and_slope(point):
        scores = rows @ point
        top = scores.max()
        weights = np.exp(scores - top)
        loss = top + np.log(weights.sum()) + 0.05 * float(point @ point)
        return float(loss), rows.T @ (weights / weights.sum()) + 0.1 * point

    return loss_and_slope


def test_equals_scipy_where_nothing_is_quadratic():
    random = np.random.default_rng(0)
    problem = log_sum(random.normal(size=(60, 30)))
    start = 10 * random.normal(size=30)
    found = minimize(problem, start, tolerance=1e-8, least_gain=0.0, max_steps=1000)
    theirs = scipys(problem, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-9, "ftol": 1e-16}).x
    np.testing.assert_allclose(found, theirs, atol=1e-5)


def test_never_goes_up():
    problem = log_sum(np.random.default_rng(1).normal(size=(60, 30)) * 20)
    seen = []
    for steps in range(1, 40):
        point = minimize(problem, np.full(30, 3.0), tolerance=0.0, least_gain=0.0, max_steps=steps)
        seen.append(problem(point)[0])
    assert all(after <= before for before, after in itertools.pairwise(seen))
    assert seen[-1] < seen[0]


def test_starts_from_the_minimum_or_from_nothing():
    centre = np.array([1.0, 2.0])
    assert minimize(quadratic(np.ones(2), centre), centre, tolerance=1e-9, least_gain=0.0).tolist() == [1.0, 2.0]
    assert minimize(lambda point: (0.0, point), np.zeros(0), tolerance=1e-9, least_gain=0.0).shape == (0,)


def test_what_is_no_number_ends_it_where_it_stood():
    start = np.ones(3)
    found = minimize(lambda point: (float("nan"), point), start, tolerance=1e-9, least_gain=0.0)
    assert found.tolist() == start.tolist()
