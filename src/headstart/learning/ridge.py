"""Ridge regression with its leave-one-out answers in closed form: the quickest honest look at what features are worth.

One decomposition gives the answer for every image from all the others, at every strength, without fitting anything
again (Allen 1974, "The relationship between variable selection and data augmentation and a method for prediction",
https://doi.org/10.1080/00401706.1974.10489157). It ranks candidates; the head that is shipped is another.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from headstart.learning.basis import Basis
from headstart.learning.held_out import HeldOut
from headstart.learning.logistic import Labels, Matrix

_STRENGTHS = tuple(float(10.0**power) for power in np.arange(-3, 3.1, 0.5))  # Penalties, in mean squared spreads.


def leave_one_out(
    features: Matrix, labels: Labels, num_classes: int, units: Labels, *, blocks: Sequence[int] = ()
) -> HeldOut:
    """Ridge regression on one-hot targets, at the strength of least leave-one-out error: squared, over all classes.

    Args:
        features: (n, num_views, d) float32.
        labels: (n,) class numbers.
        num_classes: how many there are.
        units: (n,) numbers; images of one unit (duplicates, a group) are left out together.
        blocks: how many features each part of them has; see `Basis.of`.
    """
    basis = Basis.of(features, blocks)
    targets = np.eye(num_classes)[labels]
    centred = targets - targets.mean(axis=0)
    spread = basis.axes.spread.astype(np.float64)
    unit_axes = basis.rows.astype(np.float64) / np.maximum(spread, 1e-12)
    together = [members for members in _members(units) if len(members) > 1]
    scale = float((spread**2).mean()) if len(spread) else 1.0
    errors = (_errors(unit_axes, spread, centred, penalty * scale, together) for penalty in _STRENGTHS)
    best = min(errors, key=lambda error: float((error**2).sum()))
    return HeldOut((best**2).sum(axis=1), (targets - best).argmax(axis=1) == labels)


def _errors(
    axes: Matrix, spread: Matrix, centred: Matrix, penalty: float, together: Sequence[npt.NDArray[np.intp]]
) -> npt.NDArray[np.float64]:
    """(n, k): target less answer, each from the images of other units. The mean of the targets counts as fitted."""
    shrunk = axes * (spread**2 / (spread**2 + penalty))
    residuals = centred - shrunk @ (axes.T @ centred)
    leverage = (shrunk * axes).sum(axis=1) + 1 / len(axes)
    errors: npt.NDArray[np.float64] = residuals / np.maximum(1 - leverage, 1e-9)[:, None]
    for members in together:
        hat = shrunk[members] @ axes[members].T + 1 / len(axes)
        errors[members] = np.linalg.lstsq(np.eye(len(members)) - hat, residuals[members], rcond=1e-9)[0]
    return errors


def _members(units: Labels) -> list[npt.NDArray[np.intp]]:
    """The images of each unit."""
    order = np.argsort(units, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(units[order])) + 1)
