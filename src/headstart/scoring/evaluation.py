"""Evaluation: what a classifier's answers on labelled images are worth, as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from headstart.errors import DataError

SUMMARY_NAMES = ("num_images", "accuracy", "accuracy_low", "accuracy_high", "macro_f1", "log_loss", "ece")


class ReliabilityBin(NamedTuple):
    """The answers whose confidence falls into one bin.

    Attributes:
        confidence: mean probability of the predicted class, 0 to 1.
        accuracy: share of these answers that were right, 0 to 1.
        num_images: how many answers there are (at least 1; empty bins are left out).
    """

    confidence: float
    accuracy: float
    num_images: int


@dataclass(frozen=True)
class ClassScore:
    """How one class fared. Shares are from 0 to 1.

    Attributes:
        name: the class.
        num_images: how many images carry this label.
        precision: of the images said to be this class, the share that are; 0 if it was never said.
        recall: of the images of this class, the share said to be; 0 if there are none (the interval is then 0 to 1).
        recall_low: lower end of the 95 % Wilson interval of the recall.
        recall_high: upper end of it.
        f1: harmonic mean of precision and recall; 0 if the class occurs neither in labels nor in predictions.
    """

    name: str
    num_images: int
    precision: float
    recall: float
    recall_low: float
    recall_high: float
    f1: float


@dataclass(frozen=True)
class Evaluation:
    """Everything the report says about a classifier's answers. Shares are from 0 to 1.

    Attributes:
        num_images: how many images were scored.
        accuracy: share whose most probable class is the label.
        accuracy_low: lower end of the 95 % Wilson interval of the accuracy.
        accuracy_high: upper end of it.
        macro_f1: mean F1 of the classes that occur in the labels or in the predictions.
        log_loss: mean of -ln(probability of the label), in nats.
        ece: expected calibration error, top label, 15 equal-width bins.
        class_names: the k classes in the order of the probabilities' columns.
        confusion: k rows (true class) of k counts (predicted class).
        classes: the k classes' own scores, in the same order.
        majority_accuracy: share of the most common label: what always answering that class scores.
        reliability: the bins behind `ece` that hold at least one image, by rising confidence.
    """

    num_images: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_f1: float
    log_loss: float
    ece: float
    class_names: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    classes: tuple[ClassScore, ...]
    majority_accuracy: float
    reliability: tuple[ReliabilityBin, ...]

    @property
    def num_right(self) -> int:
        """How many images were answered right."""
        return sum(row[index] for index, row in enumerate(self.confusion))

    @property
    def majority_class(self) -> str:
        """The most common class among the labels (the first one, if several are equally common)."""
        return max(self.classes, key=lambda score: score.num_images).name

    def summary(self) -> dict[str, int | float]:
        """Give the few numbers that `--json` prints, under the contract's names."""
        return {name: getattr(self, name) for name in SUMMARY_NAMES}

    def to_json(self) -> dict[str, Any]:
        """Give a dict of plain types that `json.dumps` takes and `from_json` reads back to an equal Evaluation."""
        return {
            **asdict(self),
            "class_names": list(self.class_names),
            "confusion": [list(row) for row in self.confusion],
            "classes": [asdict(score) for score in self.classes],
            "reliability": [each._asdict() for each in self.reliability],
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Evaluation:
        """Read what `to_json` gave.

        Raises:
            DataError: a name is missing, or one is there that does not belong.
        """
        try:
            return cls(
                **{
                    **plain,
                    "class_names": tuple(plain["class_names"]),
                    "confusion": tuple(tuple(row) for row in plain["confusion"]),
                    "classes": tuple(ClassScore(**score) for score in plain["classes"]),
                    "reliability": tuple(ReliabilityBin(**each) for each in plain["reliability"]),
                }
            )
        except (KeyError, TypeError) as error:
            raise DataError(
                f"This is not an evaluation that headstart wrote: {error}. Run 'headstart evaluate' to make it again."
            ) from error
