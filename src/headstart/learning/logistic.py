"""L2 logistic regression with its strength chosen by cross-validated log loss, fast enough to be chosen on every run.

The features are standardised and turned onto their principal axes once; an L2 penalty does not care about the turn.
There the curvature of the loss is nearly diagonal and known beforehand, so scaling each axis by it lets L-BFGS
converge in a handful of steps. Each strength starts where a straight line through the solutions of the two before it
leads: along the logarithm of the strength the path of solutions is nearly straight (a predictor, as in Park, Hastie
2007, "L1-regularization path algorithm for generalized linear models").
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import expit, log_softmax, softmax

from headstart.learning import multi_label
from headstart.learning.basis import LEAST_SPREAD, Basis
from headstart.learning.class_weights import ClassWeights
from headstart.learning.held_out import HeldOut
from headstart.learning.lbfgs import minimize

Matrix = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]

STRENGTHS = tuple(float(10.0**power) for power in np.arange(-4, 2.1, 0.5))
"""Inverse penalties (scikit-learn's C), from the strongest penalty to the weakest."""

_NUM_FOLDS = 5
_PATIENCE = 2  # Strengths in a row that may be worse before the path ends; the log loss is a valley along it.
_FALLBACK_STRENGTH = 1e-2  # Where there are too few images to cross-validate.
_LEAST_GAIN = 1e-3
_TOLERANCE = 2e-5  # Of the mean slope; looser, steps that were left out would act as a penalty of their own.
_LEAST_STEP = 1e-9  # Of the mean loss.


@dataclasses.dataclass(frozen=True)
class LinearHead:
    """Features -> logits: ``features @ kernel + bias``, with the standardisation folded in.

    Attributes:
        kernel: (d, num_classes) float32.
        bias: (num_classes,) float32.
        strength: the inverse penalty that was chosen.
        held_out: the cross-validated answers at that strength, their loss the log loss.
        is_multi_label: whether each class is answered for by itself, so that an image may be of several or of none.
    """

    kernel: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    strength: float
    held_out: HeldOut
    is_multi_label: bool = False

    def probabilities(self, features: Matrix) -> npt.NDArray[np.float64]:
        """(n, num_views, d) features to (n, num_classes) probabilities."""
        logits = features.mean(axis=1) @ self.kernel + self.bias
        if self.is_multi_label:
            return np.asarray(expit(logits.astype(np.float64)))
        return np.asarray(softmax(logits.astype(np.float64), axis=1))


@dataclasses.dataclass(frozen=True)
class Restraint:
    """What a head may not do, and how much its classes count.

    Attributes:
        least_spread: see `basis.standardising`.
        most_strength: the weakest penalty that may be chosen, as its inverse.
        class_weights: how much each class counts; None: each image like any other.
    """

    least_spread: float = LEAST_SPREAD
    most_strength: float = math.inf
    class_weights: ClassWeights | None = None


FREE = Restraint()


def fit_linear_head(
    features: Matrix,
    labels: Labels,
    num_classes: int,
    units: Labels,
    *,
    seed: int,
    blocks: Sequence[int] = (),
    restraint: Restraint = FREE,
) -> LinearHead:
    """Fit the head, its strength chosen by cross-validation.

    Args:
        features: (n, num_views, d) float32.
        labels: (n,) class numbers; or (n, num_classes) of 0 and 1, where images may be of several classes or of none:
            then there is a logistic regression for each, and all share one strength.
        num_classes: of which each has at least one image.
        units: (n,) numbers; images of one unit (duplicates, a group) stay in one fold.
        seed: of the folds.
        blocks: how many features each part of them has, in order; the parts count alike, however wide they are.
        restraint: what the head may not do, and how much its classes count.
    """
    basis = Basis.of(features, blocks, restraint.least_spread)
    counted = restraint.class_weights or ClassWeights.alike(num_classes)
    several = labels.ndim == 2
    targets = labels.astype(np.float32) if several else np.eye(num_classes, dtype=np.float32)[labels]
    folds = assign_folds(labels, units, seed=seed)
    if folds.max() == 0:
        chosen = _Chosen(min(_FALLBACK_STRENGTH, restraint.most_strength), HeldOut.nothing())
    else:
        strengths = [each for each in STRENGTHS if each <= restraint.most_strength]
        chosen = _cross_validate(basis, labels, targets, folds, strengths, counted)
    every_image = counted.of_images(labels)[:, None]
    solution = _solve(
        basis, targets, every_image, chosen.strength, chosen.solution, chosen.tolerance, is_multi_label=several
    )
    solution[..., -1] -= counted.shift[:, None]
    kernel, bias = basis.unfold(solution[:, 0])
    return LinearHead(kernel.astype(np.float32), bias.astype(np.float32), chosen.strength, chosen.held_out, several)


def assign_folds(labels: Labels, units: Labels, *, seed: int) -> Labels:
    """A fold for each image: each class dealt out evenly, no unit in two folds; all 0 where there is too little.

    The number of folds is five, or as many as there are units with the class that is in the fewest. Images of several
    classes: see `multi_label.deal`.
    """
    if labels.ndim == 2:
        return multi_label.deal(labels, units, _NUM_FOLDS, seed=seed)
    representative = np.unique(units, return_index=True)[1]
    order = np.random.default_rng(seed).permutation(representative)
    order = order[np.argsort(labels[order], kind="stable")]
    classes_of_units, _ = np.unique(np.stack([labels, units]), axis=1)
    num_folds = min(_NUM_FOLDS, int(np.unique(classes_of_units, return_counts=True)[1].min()))
    if num_folds < 2:
        return np.zeros(len(labels), np.int64)
    fold_of_unit = dict(zip(units[order].tolist(), (np.arange(len(order)) % num_folds).tolist(), strict=True))
    return np.array([fold_of_unit[unit] for unit in units.tolist()])


@dataclasses.dataclass(frozen=True)
class _Chosen:
    """What cross-validation settled on.

    Attributes:
        strength: of least log loss.
        held_out: what is said of each image there.
        solution: (k, 1, r + 1), the average of the folds': where the one of all images is looked for; None: anywhere.
        tolerance: how exactly that has to be found.
    """

    strength: float
    held_out: HeldOut
    solution: Matrix | None = None
    tolerance: float = _TOLERANCE


def _cross_validate(
    basis: Basis,
    labels: Labels,
    targets: Matrix,
    folds: Labels,
    strengths: Sequence[float],
    counted: ClassWeights,
) -> _Chosen:
    """The strength of least log loss, and what was found there."""
    every = np.arange(len(labels))
    trained_on = (folds[:, None] != np.arange(folds.max() + 1)) * counted.of_images(labels)[:, None]
    shift, judging = counted.shift[:, None, None], counted.judging(labels)
    best, least, worse = _Chosen(strengths[0], HeldOut.nothing()), np.inf, 0
    path: list[Matrix] = []
    several = labels.ndim == 2
    even_loss = targets.shape[1] * np.log(2) if several else np.log(targets.shape[1])
    for strength in strengths:
        # Where the loss is small its slope is small everywhere: the tolerance has to shrink with it.
        tolerance = _TOLERANCE * min(1.0, least / even_loss)
        solution = _solve(basis, targets, trained_on, strength, _ahead(path), tolerance, is_multi_label=several)
        path = [*path[-1:], solution]
        logits = _products(solution[..., :-1], basis.rows) + solution[..., -1:] - shift
        if several:
            held_out = multi_label.held_out(logits[:, folds, every], labels)
        else:
            losses = -log_softmax(logits, axis=0)[labels, folds, every] * judging
            held_out = HeldOut(losses, logits.argmax(axis=0)[folds, every] == labels)
        # A weaker penalty has to earn its place: far along the path the log loss is flat.
        better = held_out.losses.mean() < least * (1 - _LEAST_GAIN)
        worse = 0 if better else worse + 1
        if better:
            least = float(held_out.losses.mean())
            best = _Chosen(strength, held_out, solution.mean(axis=1, keepdims=True), tolerance)
        if worse == _PATIENCE:
            break
    return best


def _ahead(path: Sequence[Matrix]) -> Matrix | None:
    """Where the next solution is to be expected, from the last two; the strengths are evenly spaced in logarithm."""
    if len(path) < 2:
        return path[-1] if path else None
    return 2 * path[-1] - path[-2]


def _solve(
    basis: Basis,
    targets: Matrix,
    trained_on: Matrix,
    strength: float,
    start: Matrix | None,
    tolerance: float,
    *,
    is_multi_label: bool = False,
) -> Matrix:
    """Minimise cross-entropy + |weights|^2 / (2 strength) for several folds at once.

    Args:
        basis: of n images.
        targets: (n, k) one-hot; or any 0 and 1.
        trained_on: (n, folds): how much an image counts in a fold, 0 where it is held out.
        strength: the inverse penalty.
        start: an earlier solution to start from.
        tolerance: of the gradient, in the scaled space.
        is_multi_label: whether each class is a problem of its own with two outcomes.

    Returns:
        (k, folds, r + 1), the last of each row the bias, which is not penalised.
    """
    num_images, num_classes = targets.shape
    penalty = 1 / strength
    num_outcomes = 2 if is_multi_label else num_classes
    # The curvature along each axis, if every probability were 1 / k: scaled by it, all axes are alike.
    evenness = (num_outcomes - 1) / num_outcomes**2
    curvature = np.append(basis.axes.spread.astype(np.float64) ** 2 * evenness + penalty, num_images * evenness)
    scale = np.sqrt(curvature)
    problem = _ScaledProblem(
        rows=(basis.rows / scale[:-1]).astype(np.float32),
        decay=penalty / scale[:-1] ** 2,
        bias_scale=float(scale[-1]),
        targets=np.ascontiguousarray(targets.T)[:, None],
        weight=np.ascontiguousarray(trained_on.T, np.float32),
        misfit_and_error=multi_label.misfit_and_error if is_multi_label else _misfit_and_error,
    )
    shape = (num_classes, trained_on.shape[1], len(scale))
    first = np.zeros(shape) if start is None else start * scale
    tolerance *= num_images / num_outcomes
    found = minimize(problem.loss_and_slope, first.ravel(), tolerance=tolerance, least_gain=_LEAST_STEP * num_images)
    solution: Matrix = found.reshape(shape) / scale
    return solution


def _products(weights: Matrix, rows: Matrix) -> Matrix:
    """(k, folds, r) weights and (n, r) rows to (k, folds, n) logits."""
    # Sizes in full: where no feature varies there is no axis, and NumPy cannot infer a side from nothing.
    num_classes, num_folds, rank = weights.shape
    flat = weights.reshape(num_classes * num_folds, rank).astype(np.float32) @ rows.T
    return flat.reshape(num_classes, num_folds, len(rows))


def _misfit_and_error(logits: Matrix, targets: Matrix) -> tuple[Matrix, Matrix]:
    """The log loss of images of one class each, and its slope; the logits are changed."""
    logits -= logits.max(axis=0)
    error = np.exp(logits)
    total = error.sum(axis=0)
    misfit = np.log(total) - (logits * targets).sum(axis=0)
    error /= total
    error -= targets
    return misfit, error


@dataclasses.dataclass(frozen=True)
class _ScaledProblem:
    """Penalised cross-entropy of several folds; they share each product with the rows, where the time goes.

    Classes come first and images last: sums over a few classes are then sums of long rows.

    Attributes:
        rows: (n, r) float32, scaled.
        decay: (r,): the penalty of each axis after scaling.
        bias_scale: the bias is kept multiplied by this.
        targets: (k, 1, n) one-hot.
        weight: (folds, n): how much an image counts in a fold; 0 where it is held out.
        misfit_and_error: logits (k, folds, n) and targets -> the loss of each image (folds, n), and its slope.
    """

    rows: Matrix
    decay: Matrix
    bias_scale: float
    targets: Matrix
    weight: Matrix
    misfit_and_error: Callable[[Matrix, Matrix], tuple[Matrix, Matrix]]

    def loss_and_slope(self, flat: Matrix) -> tuple[float, Matrix]:
        """The loss and its slope at scaled weights (k, folds, r + 1), flattened."""
        num_images, rank = self.rows.shape
        by_fold = (len(self.targets), len(self.weight))
        weights = flat.reshape(*by_fold, rank + 1)
        inner, bias = weights[..., :-1], weights[..., -1:] / self.bias_scale
        logits = _products(inner, self.rows) + bias.astype(np.float32)
        misfit, error = self.misfit_and_error(logits, self.targets)
        misfit *= self.weight
        error *= self.weight
        slope = np.empty_like(weights)
        decayed = self.decay * inner
        products = error.reshape(by_fold[0] * by_fold[1], num_images) @ self.rows
        slope[..., :-1] = products.reshape(inner.shape) + decayed
        slope[..., -1] = error.sum(axis=-1) / self.bias_scale
        loss = float(misfit.sum(dtype=np.float64)) + 0.5 * float((decayed * inner).sum())
        return loss, slope.ravel()
