"""How fast and how long a network is tuned: rules from the number of images, and the learning rate at each step."""

from __future__ import annotations

import dataclasses
import math

_BATCH_SIZE = 32
_IMAGES_SHOWN = 13_000  # In the whole course of a small set: about BiT's 500 steps, at this batch size.
_FEWEST_EPOCHS, _MOST_EPOCHS = 4, 20
_LEARNING_RATE = 1e-4
_LOWEST = 0.1  # Of it, at the end.


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
        last_epoch: after which it ends, though the course is one of `epochs`; 0: none.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    warmup_epochs: float = 1.0
    patience: int = 3
    label_smoothing: float = 0.1
    weight_decay: float = 0.02
    layer_decay: float = 0.9
    last_epoch: int = 0

    @property
    def num_epochs(self) -> int:
        """After how many it ends at the latest."""
        return self.last_epoch or self.epochs

    def steps_per_epoch(self, num_images: int) -> int:
        """So that every image is seen once."""
        return -(-num_images // self.batch_size)

    def rate_at(self, step: int, num_images: int) -> float:
        """The learning rate at a step, counted from 0: a straight rise, then half a cosine down to a tenth.

        Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983, without restarts.
        """
        per_epoch = self.steps_per_epoch(num_images)
        warmup = self.warmup_epochs * per_epoch
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        along = (step - warmup) / max(1.0, self.epochs * per_epoch - warmup)
        fallen = 0.5 * (1 - math.cos(math.pi * min(1.0, along)))
        return self.learning_rate * (1 - (1 - _LOWEST) * fallen)


def schedule_for(num_images: int, most_epochs: int) -> Schedule:
    """The course for so many training images: about as many steps for a small set as BiT takes, more for a large one.

    BiT-HyperRule: Kolesnikov et al. 2020, https://arxiv.org/abs/1912.11370, section 3.3.

    Args:
        num_images: to learn from.
        most_epochs: as the user set it.
    """
    epochs = min(max(round(_IMAGES_SHOWN / max(num_images, 1)), _FEWEST_EPOCHS), _MOST_EPOCHS, most_epochs)
    return Schedule(
        epochs,
        min(_BATCH_SIZE, max(1, num_images)),
        _LEARNING_RATE,
        warmup_epochs=min(1.0, epochs / 4),
        patience=epochs,  # A fitted head is hard to beat while the rate is high; what is lost comes back as it falls.
    )
