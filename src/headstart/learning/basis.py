"""Features as a linear head wants them: standardised, averaged over views, and on their principal axes.

Several views of an image (as it is, mirrored, ...) are averaged. To train on every view would ask for the same answer
on each; to second order that is the average plus a penalty on the directions in which the views of one image differ
(Bishop 1995, "Training with noise is equivalent to Tikhonov regularization"). The penalty costs a quarter of the rows.

The features are the channels of several stages. A penalty that is the same for each would let the deepest stage, which
has ten times the channels of the first, be heard ten times as loud; so each stage gets the same share of the variance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from headstart.features.blocks import Unheard

Matrix = npt.NDArray[np.floating]

LEAST_SPREAD = 0.03
"""Features that vary less than this part of what the median one does are not blown up to vary as much as the others. A
maximum that is nearly the same on every image would get a weight of hundreds, and float32 keep little of the answer."""

_VIEW_PENALTY = 5.0  # 3 and 10 score alike on the solar cells; 0 scores half a point less (docs/decisions.md).
_MAX_VIEW_ROWS = 1500
_SMALLEST_STD = 1e-6
_RANK_TOLERANCE = 1e-6


def _block_weights(blocks: Sequence[int], width: int) -> Matrix:
    """(d,) by which standardised features are multiplied, so that each block has the variance of the average one.

    What is not to be heard is multiplied by nothing, and so gets no weight.
    """
    widths = np.array(blocks or [width])
    if widths.sum() != width or widths.min() < 1:
        raise ValueError(f"blocks of {list(blocks)} features do not make {width}")
    heard = np.array([not isinstance(block, Unheard) for block in blocks] or [True])
    return np.repeat(heard * np.sqrt(widths[heard].mean() / widths), widths).astype(np.float32)


def standardising(spread: Matrix, least_spread: float = LEAST_SPREAD) -> Matrix:
    """(d,) by which features are multiplied whose standard deviations are given, so that they vary alike.

    Args:
        spread: (d,) those.
        least_spread: features that vary less than this part of what the median one does are taken to vary so much.
    """
    scale: Matrix = 1 / (np.maximum(spread, least_spread * np.median(spread)) + _SMALLEST_STD)
    return scale


@dataclasses.dataclass(frozen=True)
class Basis:
    """Features, standardised and on their principal axes.

    Attributes:
        axes: of the standardised features, with the directions shrunk in which views differ.
        views: those directions.
        mean: (d,) of the features.
        scale: (d,) by which each is multiplied.
    """

    axes: Axes
    views: ViewDirections
    mean: Matrix
    scale: Matrix

    @staticmethod
    def of(features: Matrix, blocks: Sequence[int] = (), least_spread: float = LEAST_SPREAD) -> Basis:
        """The basis of features (n, num_views, d).

        Args:
            features: float32.
            blocks: how many of them each part has, in order; the parts get the same variance, however wide they are.
            least_spread: see `standardising`.
        """
        weights = _block_weights(blocks, features.shape[2])
        averaged = features.mean(axis=1)
        mean = averaged.mean(axis=0)
        scale = weights * standardising(np.sqrt(features.var(axis=(0, 1))), least_spread)
        centred = (averaged - mean) * scale
        views = ViewDirections.of(features, averaged, scale)
        return Basis(Axes.of(views.shrink(centred)), views, mean, scale)

    @property
    def rows(self) -> Matrix:
        """(n, r) float32 coordinates."""
        return self.axes.rows

    def unfold(self, solution: Matrix) -> tuple[Matrix, Matrix]:
        """Weights on the axes (k, r + 1), the last the bias, to a kernel (d, k) and bias (k,) on raw features."""
        standard = self.axes.out_of(np.ascontiguousarray(solution[:, :-1].T, np.float32))
        kernel = self.scale[:, None] * self.views.shrink(standard.T).T
        return kernel, solution[:, -1] - self.mean @ kernel


@dataclasses.dataclass(frozen=True)
class ViewDirections:
    """The directions in which the views of one image differ, and how much each is shrunk."""

    directions: Matrix
    factors: Matrix

    @staticmethod
    def of(features: Matrix, averaged: Matrix, scale: Matrix) -> ViewDirections:
        """Of features (n, num_views, d), their averages (n, d) and what standardises them (d,)."""
        num_images, num_views, width = features.shape
        if num_views == 1:
            return ViewDirections(np.zeros((width, 0), np.float32), np.zeros(0, np.float32))
        # Evenly taken images are enough to know the directions; all of them would cost as much as the rest.
        taken = np.linspace(0, num_images - 1, min(num_images, _MAX_VIEW_ROWS // num_views)).astype(int)
        differences = ((features[taken] - averaged[taken, None]) * scale).reshape(-1, width)
        axes = Axes.of(differences)
        variance = axes.spread**2 / len(differences)
        directions = axes.out_of(np.eye(len(axes.spread), dtype=np.float32))
        return ViewDirections(directions, 1 - 1 / np.sqrt(1 + _VIEW_PENALTY * variance))

    def shrink(self, rows: Matrix) -> Matrix:
        """Rows (n, d) times (I + penalty * covariance) ** -1/2."""
        if not len(self.factors):
            return rows
        return rows - (rows @ self.directions * self.factors) @ self.directions.T


@dataclasses.dataclass(frozen=True)
class Axes:
    """The principal axes of a matrix (n, d), known without being written out where d is much larger than n.

    Attributes:
        rows: (n, r) the matrix on its axes.
        spread: (r,) the length of each column of ``rows``.
        matrix: (n, d) itself.
        vectors: the axes (d, r); or, where there are fewer rows than columns, what makes them of the rows: (n, r).
    """

    rows: Matrix
    spread: Matrix
    matrix: Matrix
    vectors: Matrix

    @staticmethod
    def of(matrix: Matrix) -> Axes:
        """The axes of a matrix (n, d)."""
        tall = matrix.shape[0] > matrix.shape[1]
        squares, vectors = np.linalg.eigh(matrix.T @ matrix if tall else matrix @ matrix.T)
        kept = squares > max(float(squares[-1]), 1e-12) * _RANK_TOLERANCE
        spread, vectors = np.sqrt(squares[kept]), np.ascontiguousarray(vectors[:, kept])
        if tall:
            return Axes(matrix @ vectors, spread, matrix, vectors)
        return Axes(vectors * spread, spread, matrix, vectors / spread)

    def out_of(self, coordinates: Matrix) -> Matrix:
        """Coordinates on the axes (r, m) to (d, m)."""
        tall = self.matrix.shape[0] > self.matrix.shape[1]
        inner = self.vectors @ coordinates
        return inner if tall else self.matrix.T @ inner
