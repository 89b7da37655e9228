"""L-BFGS for smooth convex functions of many variables, in NumPy.

SciPy's spends longer on its bounds, which we do not have, than on our function, and its own pool of BLAS threads gets
in the way of NumPy's: the same problem took four times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[Any]

_NUM_PAIRS = 10
_SUFFICIENT_DECREASE = 1e-4
_MAX_HALVINGS = 20


def minimize(
    loss_and_slope: Callable[[Vector], tuple[float, Vector]],
    start: Vector,
    *,
    tolerance: float,
    least_gain: float,
    max_steps: int = 300,
) -> Vector:
    """The point where a convex function is least.

    Args:
        loss_and_slope: the function and its gradient; scaled so that its curvature is near 1 everywhere.
        start: (n,) where to begin.
        tolerance: ends when no component of the gradient is larger.
        least_gain: ends when a step lowers the function by less.
        max_steps: ends then at the latest.
    """
    point = start
    loss, slope = loss_and_slope(point)
    memory = _Curvature(len(start))
    for _ in range(max_steps):
        if np.abs(slope).max(initial=0.0) <= tolerance:
            break
        direction = memory.towards_minimum(slope)
        descent = float(direction @ slope)
        step, halvings = 1.0, 0
        new_loss, new_slope = loss_and_slope(point + direction)
        while not new_loss <= loss + _SUFFICIENT_DECREASE * step * descent:
            halvings += 1
            if halvings > _MAX_HALVINGS:  # Below what the function's precision can tell.
                return point
            step *= 0.5
            new_loss, new_slope = loss_and_slope(point + step * direction)
        memory.learn(step * direction, new_slope - slope)
        gain = loss - new_loss
        point, loss, slope = point + step * direction, new_loss, new_slope
        if gain <= least_gain:
            break
    return point


class _Curvature:
    """The inverse Hessian, from the last few steps and how the gradient changed along them.

    In compact form (Byrd, Nocedal, Schnabel 1994, "Representations of quasi-Newton matrices", equation 2.6): a few
    products of tall matrices in place of many of vectors.
    """

    def __init__(self, num_variables: int) -> None:
        self._steps = np.zeros((_NUM_PAIRS, num_variables))
        self._changes = np.zeros((_NUM_PAIRS, num_variables))
        self._across = np.zeros((_NUM_PAIRS, _NUM_PAIRS))  # steps @ changes.T
        self._square = np.zeros((_NUM_PAIRS, _NUM_PAIRS))  # changes @ changes.T
        self._order: list[int] = []  # The rows in use, the oldest first.

    def learn(self, step: Vector, change: Vector) -> None:
        """Remember a step and the change of the gradient; a pair without curvature says nothing."""
        if step @ change <= np.finfo(np.float64).eps * (change @ change):
            return
        row = self._order.pop(0) if len(self._order) == _NUM_PAIRS else len(self._order)
        self._steps[row], self._changes[row] = step, change
        self._across[row], self._across[:, row] = self._changes @ step, self._steps @ change
        self._square[row] = self._square[:, row] = self._changes @ change
        self._order.append(row)

    def towards_minimum(self, slope: Vector) -> Vector:
        """Minus the inverse Hessian times the gradient."""
        if not self._order:
            return -slope
        order, grid = self._order, np.ix_(self._order, self._order)
        last = order[-1]
        scale = self._across[last, last] / self._square[last, last]
        along_steps, along_changes = (self._steps @ slope)[order], (self._changes @ slope)[order]
        upper = np.triu(self._across[grid])
        inner = np.linalg.solve(upper, along_steps)
        middle = np.diag(np.diag(upper)) + scale * self._square[grid]
        of_steps, of_changes = np.zeros(_NUM_PAIRS), np.zeros(_NUM_PAIRS)
        of_steps[order] = np.linalg.solve(upper.T, middle @ inner - scale * along_changes)
        of_changes[order] = -inner
        found: Vector = scale * slope + of_steps @ self._steps + scale * (of_changes @ self._changes)
        return -found
