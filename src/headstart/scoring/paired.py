"""Whether one classifier is better than another on the same images, or whether they are tied."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

TIED_ABOVE = 0.05
"""A p-value above which two classifiers are called tied."""


def mcnemar(first: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """The two-sided p-value that both are right equally often: McNemar's test in its exact form.

    Only images on which one is right and the other wrong say anything; if neither is better, each such image is the
    toss of a coin.

    Args:
        first: (n,) whether the one is right on each image.
        other: (n,) whether the other is.

    Raises:
        ValueError: they are not about the same number of images.

    Source:
        Q. McNemar (1947), "Note on the sampling error of the difference between correlated proportions or
        percentages", Psychometrika 12; for classifiers Dietterich (1998), "Approximate statistical tests for comparing
        supervised classification learning algorithms", https://doi.org/10.1162/089976698300017197.
    """
    one, two = np.asarray(first, bool), np.asarray(other, bool)
    if one.shape != two.shape:
        raise ValueError(f"{one.shape} and {two.shape}: not the same images")
    wins, losses = int((one & ~two).sum()), int((two & ~one).sum())
    return min(1.0, 2 * float(bdtr(min(wins, losses), wins + losses, 0.5)))
