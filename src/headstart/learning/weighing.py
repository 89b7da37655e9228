"""Whether the classes are weighed while the linear head is fitted: asked of the data, as everything else is.

Where one class has many times the images of another, each image can be weighed by the inverse of its class's frequency.
In theory the weights then have to be corrected back, since they make rare classes seem common. But the penalty, which
pulls every logit to zero, makes rare classes seem rarer than they are, and the weights may just mend that; which of the
two holds differs from one set of images to another (docs/measurements.md). So both are tried, and judged by the log
loss of the images as they are, on the same folds: what is taken has to be better beyond noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from headstart.learning.class_weights import UNBALANCED, ClassWeights, Labels, times_larger
from headstart.learning.logistic import LinearHead
from headstart.learning.multi_label import check_weights

_LEAST_STANDARD_ERRORS = 1.0
_WAYS = {"weighed": False, "weighed and corrected back": True}

Fit = Callable[[ClassWeights | None], LinearHead]


@dataclasses.dataclass(frozen=True)
class Weighed:
    """A linear head, and what is to be said of the weights of its classes: a sentence, or nothing."""

    head: LinearHead
    sentence: str = ""


def fit_weighed(choice: str, labels: Labels, num_classes: int, fit: Fit) -> Weighed:
    """Fit a linear head, the classes weighed or not.

    Args:
        choice: "off"; "balanced": each class counts alike, and probabilities are what they would be if all were equally
            common; "auto": weighed where that makes them better by cross-validation.
        labels: (n,) class numbers of the images to learn from; or (n, k) of 0 and 1, which are never weighed.
        num_classes: of which each has at least one image.
        fit: the head on them with some weights; cross-validated, on the same folds every time.

    Raises:
        DataError: images may have several names, and their classes cannot count alike.
    """
    if labels.ndim == 2:
        check_weights(choice)
        return Weighed(fit(None))
    if choice == "balanced":
        head = fit(ClassWeights.balanced(labels, num_classes))
        return Weighed(head, "Each class counted alike, however many images it has.")
    plain = fit(None)
    times = times_larger(labels, num_classes)
    if choice == "off" or times < UNBALANCED:
        return Weighed(plain)
    if not len(plain.held_out):
        return Weighed(plain, f"{_unbalanced(times)}, but there are too few images to try weights.")
    return _tried(plain, times, labels, num_classes, fit)


def _tried(plain: LinearHead, times: float, labels: Labels, num_classes: int, fit: Fit) -> Weighed:
    """The best of the heads that are better than the plain one beyond noise, or that."""
    weights = ClassWeights.balanced(labels, num_classes).weights
    weighed = {how: fit(ClassWeights(weights, is_corrected=is_corrected)) for how, is_corrected in _WAYS.items()}
    ahead = {how: plain.held_out.standard_errors_behind(head.held_out) for how, head in weighed.items()}
    sure = [how for how in weighed if ahead[how] > _LEAST_STANDARD_ERRORS]
    taken = min(sure, key=lambda how: weighed[how].held_out.loss, default=None)
    figures = ", ".join(f"{head.held_out.loss:.4f} {how}" for how, head in weighed.items())
    verdict = f"taken: {taken}" if taken else "no surer gain than noise, so each image counts like any other"
    sentence = (
        f"{_unbalanced(times)}, so weights by the inverse of its frequency were tried for each class: cross-validated "
        f"log loss {plain.held_out.loss:.4f} without, {figures}; {verdict}."
    )
    return Weighed(weighed[taken] if taken else plain, sentence)


def _unbalanced(times: float) -> str:
    return f"The largest class has {times:.3g} times the images of the smallest"
