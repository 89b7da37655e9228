"""Names + probabilities -> `MultiLabelEvaluation`, where an image may have several names or none; in pure NumPy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import DataError
from headstart.scoring.evaluation import SUMMARY_NAMES, ClassScore, Evaluation, ReliabilityBin
from headstart.scoring.intervals import wilson
from headstart.scoring.metrics import (
    ROW_TOLERANCE,
    SMALLEST_PROBABILITY,
    Floats,
    Integers,
    class_score,
    finite,
    reliability_bins,
)

SAID_FROM = 0.5
"""A name is said of an image from this probability on."""

Counts = tuple[tuple[int, int], tuple[int, int]]
"""Of one name: (rightly not said, wrongly said), (missed, rightly said), as `multilabel_confusion_matrix` has it."""


@dataclass(frozen=True)
class MultiLabelEvaluation:
    """What a classifier's answers are worth where an image may have several names. Shares are from 0 to 1.

    Attributes:
        num_images: how many images were scored.
        accuracy: share of which every name is right: said where it belongs, and nowhere else.
        accuracy_low: lower end of the 95 % Wilson interval of the accuracy.
        accuracy_high: upper end of it.
        macro_f1: mean F1 of all names; that of a name which was neither there nor said is 0.
        log_loss: mean over the images of the mean over the names of the binary log loss, in nats.
        ece: expected calibration error of all decisions, one for each image and name, 15 equal-width bins.
        hamming_accuracy: share of these decisions that are right.
        class_names: the k names in the order of the probabilities' columns.
        confusions: for each name, how its decisions fell out.
        classes: the names' own scores, in the same order.
        majority_names: the most common set of names (the first by its names, if several are).
        majority_accuracy: its share: what always answering it scores.
        reliability: the bins behind `ece` that hold at least one decision, by rising confidence.
    """

    num_images: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_f1: float
    log_loss: float
    ece: float
    hamming_accuracy: float
    class_names: tuple[str, ...]
    confusions: tuple[Counts, ...]
    classes: tuple[ClassScore, ...]
    majority_names: tuple[str, ...]
    majority_accuracy: float
    reliability: tuple[ReliabilityBin, ...]

    @property
    def num_right(self) -> int:
        """Of how many images every name is right."""
        return round(self.accuracy * self.num_images)

    def summary(self) -> dict[str, int | float]:
        """Give the few numbers that `--json` prints: those of the contract, and the accuracy of all decisions."""
        return {name: getattr(self, name) for name in (*SUMMARY_NAMES, "hamming_accuracy")}

    def to_json(self) -> dict[str, Any]:
        """Give a dict of plain types that `json.dumps` takes and `from_json` reads back to an equal one."""
        return {
            **asdict(self),
            "multi_label": True,
            "class_names": list(self.class_names),
            "confusions": [[list(row) for row in counts] for counts in self.confusions],
            "classes": [asdict(score) for score in self.classes],
            "majority_names": list(self.majority_names),
            "reliability": [each._asdict() for each in self.reliability],
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> MultiLabelEvaluation:
        """Read what `to_json` gave.

        Raises:
            DataError: a name is missing, or one is there that does not belong.
        """
        try:
            return cls(
                **{
                    **{name: value for name, value in plain.items() if name != "multi_label"},
                    "class_names": tuple(plain["class_names"]),
                    "confusions": tuple(((a, b), (c, d)) for (a, b), (c, d) in plain["confusions"]),
                    "classes": tuple(ClassScore(**score) for score in plain["classes"]),
                    "majority_names": tuple(plain["majority_names"]),
                    "reliability": tuple(ReliabilityBin(**each) for each in plain["reliability"]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"This is not an evaluation that headstart wrote: {error}. Run 'headstart evaluate' to make it again."
            ) from error


AnyEvaluation = Evaluation | MultiLabelEvaluation


def read_evaluation(plain: Any) -> AnyEvaluation:
    """Read what either kind of evaluation gave as JSON.

    Raises:
        DataError: it is none.
    """
    several = isinstance(plain, dict) and plain.get("multi_label") is True
    return MultiLabelEvaluation.from_json(plain) if several else Evaluation.from_json(plain)


def answer(row: Floats, class_names: Sequence[str], *, is_multi_label: bool) -> tuple[tuple[str, ...], float]:
    """What probabilities (k,) say: the most probable name and its probability.

    Or, where an image may have several, those from a half on, and the probability that all names are right, were they
    independent.
    """
    if not is_multi_label:
        best = int(row.argmax())
        return (class_names[best],), float(row[best])
    names = tuple(name for name, probability in zip(class_names, row, strict=True) if probability >= SAID_FROM)
    return names, float(np.maximum(row, 1 - row).prod())


def evaluate_names(targets: Integers, probabilities: Floats, class_names: Sequence[str]) -> MultiLabelEvaluation:
    """Score a classifier's answers.

    Args:
        targets: shape (n, k), 1 where an image has a name, else 0.
        probabilities: shape (n, k), of each name by itself.
        class_names: the k names, in the order of the columns.

    Raises:
        DataError: the shapes, targets or probabilities cannot be right.
    """
    there, probabilities = _checked(targets, probabilities, len(class_names))
    answers = probabilities >= SAID_FROM
    is_right = answers == there
    num_images, num_right = len(there), int(is_right.all(axis=1).sum())
    accuracy_low, accuracy_high = wilson(num_right, num_images)
    confusions = tuple(_counts(there[:, index], answers[:, index]) for index in range(len(class_names)))
    classes = tuple(
        class_score(name, found, missed + found, wrong + found)
        for name, ((_, wrong), (missed, found)) in zip(class_names, confusions, strict=True)
    )
    reliability = reliability_bins(np.maximum(probabilities, 1 - probabilities).ravel(), is_right.ravel())
    common, how_often = _most_common(there)
    of_truth = np.where(there, probabilities, 1 - probabilities).clip(SMALLEST_PROBABILITY, 1.0)
    return MultiLabelEvaluation(
        num_images=num_images,
        accuracy=num_right / num_images,
        accuracy_low=accuracy_low,
        accuracy_high=accuracy_high,
        macro_f1=float(np.mean([score.f1 for score in classes])),
        log_loss=max(0.0, float(-np.log(of_truth).mean())),
        ece=sum(each.num_images / is_right.size * abs(each.accuracy - each.confidence) for each in reliability),
        hamming_accuracy=float(is_right.mean()),
        class_names=tuple(class_names),
        confusions=confusions,
        classes=classes,
        majority_names=tuple(name for name, its in zip(class_names, common, strict=True) if its),
        majority_accuracy=how_often / num_images,
        reliability=reliability,
    )


def _checked(targets: Integers, probabilities: Floats, num_names: int) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Refuse what cannot be targets and probabilities, both (n, k); give them as booleans and float64."""
    targets, probabilities = np.asarray(targets), np.asarray(probabilities)
    if targets.ndim != 2 or targets.shape != probabilities.shape or targets.shape[1] != num_names:
        raise DataError(
            f"Names of shape {targets.shape} and probabilities of shape {probabilities.shape} do not belong together. "
            f"Expected (n, {num_names}) of both: one row per image, one column per name."
        )
    if not targets.size:
        raise DataError("There is nothing to evaluate: no images or no names. Expected at least one of each.")
    if not np.isin(targets, (0, 1)).all():
        raise DataError("An image has a name or not: expected 0 and 1 alone.")
    probabilities = finite(probabilities)
    bad = np.flatnonzero(((probabilities < -ROW_TOLERANCE) | (probabilities > 1 + ROW_TOLERANCE)).any(axis=1))
    if len(bad):
        raise DataError(
            f"Row {bad[0]} holds no probabilities: its values are from {probabilities[bad[0]].min():.4g} to "
            f"{probabilities[bad[0]].max():.4g}. Expected values from 0 to 1; does the model end in a sigmoid?"
        )
    return targets.astype(bool), probabilities.clip(0.0, 1.0)


def _counts(there: npt.NDArray[np.bool_], answers: npt.NDArray[np.bool_]) -> Counts:
    found, wrong, missed = (int(each.sum()) for each in (there & answers, ~there & answers, there & ~answers))
    return (len(there) - found - wrong - missed, wrong), (missed, found)


def _most_common(there: npt.NDArray[np.bool_]) -> tuple[tuple[bool, ...], int]:
    """The row that occurs most often, and how often."""
    counted = Counter(map(tuple, there.tolist()))
    return min(counted.items(), key=lambda each: (-each[1], tuple(not its for its in each[0])))
