"""Recipe: every choice that makes a run, flat and frozen; and the rules that suggest one."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

from headstart.errors import DataError, UnknownNameError

AUTO = "auto"

HEADS = ("linear", "nearest", "mlp", "flatten")
VIEWS = ("auto", "one", "flips", "many")
FINE_TUNE = ("off", "auto", "all")
TUNABLE_HEADS = ("linear", "nearest")
CLASS_WEIGHTS = ("auto", "off", "balanced")
OPTIMIZERS = ("adamw", "sgd")

NUM_SCREENED = 320
"""Images on which sizes are tried before the rest is computed: enough to see a gain of a few points."""

NUM_SCREENED_FOR_VIEWS = 640
"""Images on which mirrored views are tried, whose gain is smaller and whose price, where they are taken, is higher."""

_LARGER = 11 / 7  # 224 -> 352, 299 -> 480. On the textile 353 px is as good as 385 px, at 0.84 of the price.


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Every choice of a run.

    Attributes:
        backbone: Keras's name, or "auto": chosen on the training images.
        weights: "auto", "imagenet", "kerashub", "packaged", "none" or a path.
        head: "linear" (logistic regression), "nearest" (class mean), "mlp" (Dense 256 on pooled features) or "flatten"
            (Dense 256 on the activations of the last stage).
        image_size: the side in pixels, or None: chosen on the training images.
        ensemble: whether the two best of a comparison may see together, if that is surely better than one: for
            "auto" as the backbone.
        fine_tune: "off" (the network stays frozen), "auto" (opened stage by stage, as far as it helps; only
            where there are thirty validation images), the name of the lowest stage that learns, or "all".
        views: "one" (each image as it is), "flips" (averaged with its mirror images), "many" (the same at two scales,
            where the network has them), "auto" (one or many, chosen likewise; above 5,000 images one or flips).
        class_weights: "off" (each image counts like any other), "balanced" (each class does, and probabilities are what
            they would be if all were equally common), "auto" (in the linear head, where one class has three times the
            images of another: weighed, if that makes the probabilities better by cross-validation).
        optimizer: of fine-tuning: "adamw" or "sgd".
        lr: the highest learning rate of fine-tuning; None: what is usual for the optimizer; "auto": found for each
            step by a range test.
        seed: of the split, the folds and the training.
        epochs: at most, for a head that is trained in epochs, and for each step of fine-tuning.
        test: the part of the images that is kept for the test.
        val: the part that is kept for validation.
    """

    backbone: str = "MobileNetV2"
    weights: str = "auto"
    head: str = "linear"
    ensemble: bool = False
    fine_tune: str = "off"
    image_size: int | None = None
    views: str = "auto"
    class_weights: str = "auto"
    optimizer: str = "adamw"
    lr: float | str | None = None
    seed: int = 0
    epochs: int = 20
    test: float = 0.2
    val: float = 0.15

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense, before any work is done."""
        if self.image_size is not None and not 32 <= self.image_size <= 2048:
            raise DataError(
                f"--image-size must be from 32 to 2048 pixels, or left out to be chosen; got {self.image_size}."
            )
        if not 1 <= self.epochs <= 100_000:
            raise DataError(f"--epochs must be at least 1; got {self.epochs}.")
        if not 0 <= self.seed < 2**32:
            raise DataError(f"--seed must be from 0 to {2**32 - 1}; got {self.seed}.")
        if self.views not in VIEWS:
            raise DataError(f"--views must be one of {', '.join(VIEWS)}; got '{self.views}'.")
        if self.class_weights not in CLASS_WEIGHTS:
            raise UnknownNameError("way to weigh classes", self.class_weights, CLASS_WEIGHTS)
        if self.head not in HEADS:
            raise UnknownNameError("head", self.head, HEADS)
        if self.fine_tune not in FINE_TUNE and not re.fullmatch(r"stage[1-9]", self.fine_tune):
            raise UnknownNameError("way to fine-tune", self.fine_tune, (*FINE_TUNE, "stage5", "stage4"))
        if self.fine_tune != "off" and self.head not in TUNABLE_HEADS:
            raise DataError(
                f"--fine-tune {self.fine_tune} starts from a head that is fitted at once; got --head {self.head}. Use "
                f"--head {' or '.join(TUNABLE_HEADS)}."
            )
        if self.ensemble:
            self._check_ensemble()
        self._check_tuning()

    def _check_tuning(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise UnknownNameError("optimizer", self.optimizer, OPTIMIZERS)
        if isinstance(self.lr, str) and self.lr != AUTO:
            raise DataError(f"--lr must be a learning rate such as 1e-4, or auto; got '{self.lr}'.")
        if not isinstance(self.lr, str | None) and not 0 < self.lr < math.inf:
            raise DataError(f"--lr must be above 0, such as 1e-4; got {self.lr}.")
        if self.fine_tune == "off" and (self.lr is not None or self.optimizer != "adamw"):
            raise DataError(
                "--lr and --optimizer are for --fine-tune, which is off. Add --fine-tune auto, or leave them."
            )

    def _check_ensemble(self) -> None:
        if self.backbone != "auto":
            raise DataError(
                f"--ensemble takes the two best networks of a comparison; got --backbone {self.backbone}. Use "
                "--backbone auto with it."
            )
        if self.head != "linear":
            raise DataError(f"--ensemble puts a linear head on two networks; got --head {self.head}. Leave out one.")
        if self.fine_tune != "off":
            raise DataError(
                f"--ensemble is for networks that stay frozen; got --fine-tune {self.fine_tune}. Leave out one."
            )

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return dataclasses.asdict(self)


def candidate_sizes(native: int) -> tuple[int, int]:
    """The sizes worth trying: what the network was trained at, and one at which small things are larger."""
    return native, round(native * _LARGER / 32) * 32
