"""The nearest class mean: for a handful of images of each class, where a regression has nothing to fit.

An image belongs to the class whose mean it is nearest to. The squared distances, times a sharpness, are the logits of
probabilities; they differ by a linear function of the image, so this is a linear head like any other. (Mensink et al.
2013, "Distance-based image classification", https://doi.org/10.1109/TPAMI.2013.83.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import log_softmax

from headstart.learning.basis import Basis
from headstart.learning.held_out import HeldOut
from headstart.learning.logistic import Labels, LinearHead, Matrix, assign_folds

_SHARPNESSES = 10.0 ** np.arange(-2, 2.1, 0.25)  # Times one over the mean squared distance of an image to its class.
_FALLBACK_SHARPNESS = 1.0  # Where there are too few images to cross-validate.


def fit_nearest_head(
    features: Matrix, labels: Labels, num_classes: int, units: Labels, *, seed: int, blocks: Sequence[int] = ()
) -> LinearHead:
    """Fit the head, its sharpness chosen by cross-validated log loss; takes what `fit_linear_head` takes.

    ``strength`` of what it returns is the sharpness.
    """
    basis = Basis.of(features, blocks)
    means = _class_means(basis.rows, labels, num_classes)
    spread = float(((basis.rows - means[labels]) ** 2).sum(axis=1).mean()) or 1.0
    folds = assign_folds(labels, units, seed=seed)
    if folds.max() == 0:
        sharpness, held_out = _FALLBACK_SHARPNESS / spread, HeldOut.nothing()
    else:
        sharpness, held_out = _cross_validate(basis.rows, labels, num_classes, folds, spread)
    solution = np.concatenate([means, -0.5 * (means**2).sum(axis=1, keepdims=True)], axis=1) * sharpness
    kernel, bias = basis.unfold(solution)
    return LinearHead(kernel.astype(np.float32), bias.astype(np.float32), sharpness, held_out)


def _class_means(rows: Matrix, labels: Labels, num_classes: int) -> Matrix:
    """(k, r) means of the rows (n, r) of each class; a class without any is put at the mean of all."""
    belongs = np.eye(num_classes, dtype=np.float64)[labels]
    counts = belongs.sum(axis=0)[:, None]
    means = belongs.T @ rows / np.maximum(counts, 1)
    found: Matrix = np.where(counts > 0, means, rows.mean(axis=0))
    return found


def _cross_validate(
    rows: Matrix, labels: Labels, num_classes: int, folds: Labels, spread: float
) -> tuple[float, HeldOut]:
    """The sharpness of least log loss, and what is said of each image there."""
    scores = np.zeros((len(rows), num_classes))
    for fold in range(int(folds.max()) + 1):
        held_out = folds == fold
        means = _class_means(rows[~held_out], labels[~held_out], num_classes)
        scores[held_out] = rows[held_out] @ means.T - 0.5 * (means**2).sum(axis=1)
    every = np.arange(len(rows))
    losses = [-log_softmax(scores * each / spread, axis=1)[every, labels] for each in _SHARPNESSES]
    best = int(np.argmin([each.mean() for each in losses]))
    return float(_SHARPNESSES[best] / spread), HeldOut(losses[best], scores.argmax(axis=1) == labels)
