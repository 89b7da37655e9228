"""Ridge regression with its leave-one-out answers in closed form: the quickest honest look at what features are worth.

One decomposition gives the answer for every image from all the others, at every strength, without fitting anything
again (Allen 1974, "The relationship between variable selection and data augmentation and a method for prediction",
https://doi.org/10.1080/00401706.1974.10489157). It ranks candidates; the head that is shipped is another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from headstart.learning.basis import Basis
from headstart.learning.held_out import HeldOut
from headstart.learning.logistic import Labels, Matrix, assign_folds

_STRENGTHS = tuple(float(10.0**power) for power in np.arange(-3, 3.1, 0.5))  # Penalties, in mean squared spreads.
_LEAST_REST = 1e-9  # Of an image that nothing but itself speaks for.


def leave_one_out(
    features: Matrix, labels: Labels, num_classes: int, units: Labels, *, blocks: Sequence[int] = ()
) -> HeldOut:
    """Ridge regression on one-hot targets, at the strength of least leave-one-out error: squared, over all classes.

    Args:
        features: (n, num_views, d) float32.
        labels: (n,) class numbers; or (n, num_classes) of 0 and 1.
        num_classes: how many there are.
        units: (n,) numbers; images of one unit (duplicates, a group) are left out together.
        blocks: how many features each part of them has; see `Basis.of`.
    """
    return _Ridge.of(features, labels, num_classes, blocks).best(units)[1]


def gain_from_all(
    features: Matrix, labels: Labels, num_classes: int, units: Labels, *, seed: int, blocks: Sequence[int] = ()
) -> float:
    """By how much a ridge regression is right more often that learns from all images but one, than from four fifths.

    Args:
        features: as for `leave_one_out`, and so are the others.
        labels: likewise.
        num_classes: likewise.
        units: likewise.
        seed: of the folds, which are those of `fit_linear_head`.
        blocks: likewise.

    Returns:
        A difference of accuracies, never below 0.
    """
    ridge = _Ridge.of(features, labels, num_classes, blocks)
    penalty, from_all = ridge.best(units)
    from_four_fifths = ridge.left_out(penalty, assign_folds(labels, units, seed=seed))
    return max(0.0, from_all.accuracy - from_four_fifths.accuracy)


@dataclasses.dataclass(frozen=True)
class _Ridge:
    """Ridge regression on the principal axes of some features.

    Attributes:
        axes: (n, r) the images on them, each axis of length 1.
        spread: (r,) how long they were.
        targets: (n, k) one-hot; or any 0 and 1.
        is_multi_label: whether an image is right where every class is.
    """

    axes: Matrix
    spread: Matrix
    targets: Matrix
    is_multi_label: bool

    @staticmethod
    def of(features: Matrix, labels: Labels, num_classes: int, blocks: Sequence[int]) -> _Ridge:
        basis = Basis.of(features, blocks)
        spread = basis.axes.spread.astype(np.float64)
        axes = basis.rows.astype(np.float64) / np.maximum(spread, 1e-12)
        several = labels.ndim == 2
        return _Ridge(axes, spread, labels.astype(np.float64) if several else np.eye(num_classes)[labels], several)

    def best(self, units: Labels) -> tuple[float, HeldOut]:
        """The penalty of least error, and what is said of each image there from those of other units."""
        scale = float((self.spread**2).mean()) if len(self.spread) else 1.0
        found = ((strength * scale, self.left_out(strength * scale, units)) for strength in _STRENGTHS)
        return min(found, key=lambda each: each[1].loss)

    def left_out(self, penalty: float, units: Labels) -> HeldOut:
        """What is said of each image from those of other units. The mean of the targets counts as fitted."""
        centred = self.targets - self.targets.mean(axis=0)
        shrunk = self.axes * (self.spread**2 / (self.spread**2 + penalty))
        residuals = centred - shrunk @ (self.axes.T @ centred)
        leverage = (shrunk * self.axes).sum(axis=1) + 1 / len(self.axes)
        errors = residuals / np.maximum(1 - leverage, _LEAST_REST)[:, None]
        for members in _members(units):
            if len(members) > 1:
                rest = np.eye(len(members)) * (1 + _LEAST_REST) - 1 / len(self.axes)
                errors[members] = np.linalg.solve(rest - shrunk[members] @ self.axes[members].T, residuals[members])
        if self.is_multi_label:
            right = (np.abs(errors) < 0.5).all(axis=1)
        else:
            right = (self.targets - errors).argmax(axis=1) == self.targets.argmax(axis=1)
        return HeldOut((errors**2).sum(axis=1), right)


def _members(units: Labels) -> list[npt.NDArray[np.intp]]:
    """The images of each unit."""
    order = np.argsort(units, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(units[order])) + 1)
