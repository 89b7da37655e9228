"""How sure a share is: confidence intervals for counts of right answers."""

from __future__ import annotations

import math
from statistics import NormalDist

from headstart.errors import DataError

_DEPENDENCE = 1.1  # By how much the standard error of a cross-validation is larger than that of a test.


def cross_validated(num_right: int, num_total: int, gain: float, confidence: float = 0.95) -> tuple[float, float]:
    """Give an interval for how often a classifier is right that learnt from all images, from its cross-validation.

    The folds share most of their images, so the answers are not as independent as those on a test set (Bates, Hastie
    and Tibshirani 2021, "Cross-validation: what does it estimate and how well does it do it?",
    https://arxiv.org/abs/2104.00673): the standard error is a tenth larger. And the classifiers that answered learnt
    from four fifths: the upper end is raised by what the last fifth adds. Both were settled by simulation, and are held
    to it by `benchmarks/coverage.py`.

    Args:
        num_right: how many held-out images were right.
        num_total: how many there were.
        gain: how much more often the one that learns from all is right, at least 0.
        confidence: how often such an interval holds the truth.

    Returns:
        The lower and upper end, as shares from 0 to 1.

    Raises:
        DataError: the counts or the confidence make no sense.
    """
    low, high = wilson(num_right / _DEPENDENCE**2, num_total / _DEPENDENCE**2, confidence)
    return low, min(1.0, high + gain)


def wilson(num_right: float, num_total: float, confidence: float = 0.95) -> tuple[float, float]:
    """Give the Wilson score interval of a share.

    It keeps its coverage for few images and for shares near 0 and 1, where the usual "plus or minus 1.96 standard
    errors" collapses to a point.

    Args:
        num_right: how many were right, 0 to `num_total`; no whole number where images count in part.
        num_total: how many there were; with 0 nothing is known and the interval is (0, 1).
        confidence: how often such an interval holds the true share, between 0 and 1.

    Returns:
        The lower and upper end, as shares from 0 to 1. The lower end for 0 right is exactly 0, and the upper end for
        all right exactly 1.

    Raises:
        DataError: the counts or the confidence make no sense.

    Source:
        E. B. Wilson (1927), "Probable inference, the law of succession, and statistical inference", JASA 22;
        recommended by Brown, Cai and DasGupta (2001), "Interval estimation for a binomial proportion", Statistical
        Science 16.
    """
    if not 0 <= num_right <= num_total:
        raise DataError(f"{num_right} right of {num_total} is no share. Expected 0 <= right <= total.")
    if not 0 < confidence < 1:
        raise DataError(f"A confidence of {confidence} is not possible. Expected a number between 0 and 1, say 0.95.")
    if num_total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = num_right / num_total
    shrink = 1 + z * z / num_total
    centre = (share + z * z / (2 * num_total)) / shrink
    half_width = z / shrink * math.sqrt(share * (1 - share) / num_total + z * z / (4 * num_total * num_total))
    low = 0.0 if num_right == 0 else max(0.0, centre - half_width)
    high = 1.0 if num_right == num_total else min(1.0, centre + half_width)
    return low, high
