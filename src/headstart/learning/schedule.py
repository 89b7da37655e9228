"""How fast and how long a network is tuned: rules from the number of images, and the learning rate at each step."""

from __future__ import annotations

import dataclasses
import math

_BATCH_SIZE = 32
_MIXUP_FROM = 20_000  # Images; below, BiT leaves it out too.


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The course of one phase.

    Attributes:
        epochs: at most.
        batch_size: images in a step.
        learning_rate: the highest, which is reached after the warm-up.
        warmup_epochs: in which it rises from nothing.
        patience: epochs without a lower validation loss, after which the phase ends.
        label_smoothing: the part of a label that is spread over all classes.
        weight_decay: of kernels.
        layer_decay: what the learning rate is multiplied by from a stage to the one below.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    warmup_epochs: float = 1.0
    patience: int = 3
    label_smoothing: float = 0.0
    weight_decay: float = 0.01
    layer_decay: float = 0.7

    def steps_per_epoch(self, num_images: int) -> int:
        """So that every image is seen once."""
        return -(-num_images // self.batch_size)

    def rate_at(self, step: int, num_images: int) -> float:
        """The learning rate at a step, counted from 0: a straight rise, then half a cosine down to nothing.

        Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983, without restarts.
        """
        per_epoch = self.steps_per_epoch(num_images)
        warmup = self.warmup_epochs * per_epoch
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        along = (step - warmup) / max(1.0, self.epochs * per_epoch - warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, along)))
