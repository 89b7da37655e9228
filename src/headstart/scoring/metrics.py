"""labels + probabilities -> Evaluation, in pure NumPy.

scikit-learn's metrics are the oracle in the tests, so the numbers can be checked, and a report needs no scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import DataError
from headstart.scoring.evaluation import ClassScore, Evaluation, ReliabilityBin
from headstart.scoring.intervals import wilson

NUM_BINS = 15
SMALLEST_PROBABILITY = 1e-15
ROW_TOLERANCE = 1e-3

Integers = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]


def evaluate(labels: Integers, probabilities: Floats, class_names: Sequence[str]) -> Evaluation:
    """Score a classifier's answers.

    The answer to an image is its most probable class (the first one on a tie). The macro F1 is the mean over the
    classes that occur in the labels or in the predictions, as scikit-learn's default is: a class that is absent from
    the labels but was predicted counts with F1 = 0, one absent from both does not count.

    Args:
        labels: the true classes, shape (n,), integers from 0 to k-1.
        probabilities: one row per image, shape (n, k), each row summing to 1.
        class_names: the k names, in the order of the columns.

    Raises:
        DataError: the shapes, labels or probabilities cannot be right.
    """
    labels, probabilities = _checked(labels, probabilities, len(class_names))
    predicted = probabilities.argmax(axis=1)
    num_classes = len(class_names)
    confusion = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    confusion = confusion.reshape(num_classes, num_classes)
    classes = tuple(
        class_score(name, int(confusion[index, index]), int(confusion[index].sum()), int(confusion[:, index].sum()))
        for index, name in enumerate(class_names)
    )
    occurs = (confusion.sum(axis=0) + confusion.sum(axis=1)) > 0
    reliability = reliability_bins(probabilities.max(axis=1), predicted == labels)
    num_images, num_right = len(labels), int(confusion.trace())
    accuracy_low, accuracy_high = wilson(num_right, num_images)
    return Evaluation(
        num_images=num_images,
        accuracy=num_right / num_images,
        accuracy_low=accuracy_low,
        accuracy_high=accuracy_high,
        macro_f1=float(np.mean([score.f1 for score, there in zip(classes, occurs, strict=True) if there])),
        log_loss=_log_loss(labels, probabilities),
        ece=sum(each.num_images / num_images * abs(each.accuracy - each.confidence) for each in reliability),
        class_names=tuple(class_names),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        classes=classes,
        majority_accuracy=float(confusion.sum(axis=1).max() / num_images),
        reliability=reliability,
    )


def _checked(labels: Integers, probabilities: Floats, num_classes: int) -> tuple[Integers, Floats]:
    """Refuse what cannot be labels (n,) and probabilities (n, k); give them as int64 and float64."""
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if labels.ndim != 1 or probabilities.shape != (len(labels), num_classes):
        raise DataError(
            f"Labels of shape {labels.shape} and probabilities of shape {probabilities.shape} do not belong together. "
            f"Expected (n,) and (n, {num_classes}): one row per image, one column per class name."
        )
    if len(labels) == 0 or num_classes == 0:
        raise DataError("There is nothing to evaluate: no images or no classes. Expected at least one of each.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"Labels have the type {labels.dtype}. Expected whole numbers from 0 to {num_classes - 1}.")
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise DataError(
            f"Label {labels[wrong[0]]} at position {wrong[0]} has no class name. "
            f"Expected whole numbers from 0 to {num_classes - 1}."
        )
    return labels.astype(np.int64), _checked_rows(probabilities)


def finite(probabilities: Floats) -> Floats:
    """Give probabilities (n, k) as float64.

    Raises:
        DataError: they are no numbers, or not all finite.
    """
    if not np.issubdtype(probabilities.dtype, np.floating) and not np.issubdtype(probabilities.dtype, np.integer):
        raise DataError(f"Probabilities have the type {probabilities.dtype}. Expected floating-point numbers.")
    probabilities = probabilities.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if len(bad):
        raise DataError(
            f"The probabilities of {len(bad)} of {len(probabilities)} images are not numbers (NaN or infinite), first "
            f"at position {bad[0]}. Training probably diverged; try a smaller learning rate."
        )
    return probabilities


def _checked_rows(probabilities: Floats) -> Floats:
    """Refuse rows that are no probabilities; give them as float64 (n, k)."""
    probabilities = finite(probabilities)
    sums = probabilities.sum(axis=1)
    outside = ((probabilities < -ROW_TOLERANCE) | (probabilities > 1 + ROW_TOLERANCE)).any(axis=1)
    bad = np.flatnonzero(outside | (np.abs(sums - 1) > ROW_TOLERANCE))
    if len(bad):
        raise DataError(
            f"Row {bad[0]} is no set of probabilities: it sums to {sums[bad[0]]:.4g}, and its lowest value is "
            f"{probabilities[bad[0]].min():.4g}. Expected values from 0 to 1 that sum to 1; does the "
            "model end in a softmax?"
        )
    return probabilities.clip(0.0, 1.0)


def class_score(name: str, num_right: int, num_images: int, num_said: int) -> ClassScore:
    """Score one class from how many of its images were called so, how many there are, and how often it was said."""
    recall_low, recall_high = wilson(num_right, num_images)
    return ClassScore(
        name=name,
        num_images=num_images,
        precision=num_right / num_said if num_said else 0.0,
        recall=num_right / num_images if num_images else 0.0,
        recall_low=recall_low,
        recall_high=recall_high,
        f1=2 * num_right / (num_images + num_said) if num_images + num_said else 0.0,
    )


def _log_loss(labels: Integers, probabilities: Floats) -> float:
    """Mean of -ln(probability of the label), in nats; probabilities below 1e-15 count as 1e-15."""
    of_label = probabilities[np.arange(len(labels)), labels]
    return max(0.0, float(-np.log(of_label.clip(SMALLEST_PROBABILITY, 1.0)).mean()))


def reliability_bins(confidence: Floats, right: npt.NDArray[np.bool_]) -> tuple[ReliabilityBin, ...]:
    """Sort answers into 15 equal-width bins (low, high] of their confidence, both (n,).

    Source: Guo, Pleiss, Sun and Weinberger (2017), "On calibration of modern neural networks", section 2.
    """
    indices = (np.ceil(confidence * NUM_BINS).astype(np.int64) - 1).clip(0, NUM_BINS - 1)
    return tuple(
        ReliabilityBin(float(confidence[inside].mean()), float(right[inside].mean()), int(inside.sum()))
        for inside in (indices == index for index in np.unique(indices))
    )
