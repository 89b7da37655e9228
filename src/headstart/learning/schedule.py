"""How fast and how long a network is tuned: rules from the number of images, and the learning rate at each step."""

from __future__ import annotations

import dataclasses
import math

ADAMW, SGD = "adamw", "sgd"

_BATCH_SIZE = 32
_IMAGES_SHOWN = 33_000  # In the whole course of a small set: 1,031 steps at this batch size; BiT takes 500.
_IMAGE_SIZE = 224
_FEWEST_EPOCHS, _MOST_EPOCHS = 4, 20
_LEARNING_RATES = {ADAMW: 2e-4, SGD: 3e-3}
_LOWEST = 0.1  # Of it, at the end.
_MANY_IMAGES = 20_000  # From here on BiT mixes images.
_MIXUP = 0.1
_AVERAGED_EPOCHS = 1.0
_QUICK_LOOK = 1 / 3  # Of the epochs of a whole course.
_LAST_COURSE = 1 / 4


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The course of one phase.

    Attributes:
        epochs: at most.
        batch_size: images in a step.
        learning_rate: the highest, which is reached after the warm-up.
        optimizer: "adamw" or "sgd".
        warmup_epochs: in which it rises from nothing.
        patience: epochs without a lower validation loss, after which the phase ends.
        averaged_epochs: over the steps of so many the weights are averaged that are judged and kept; 0: none.
        mixup: see `Lessons.batch`.
        label_smoothing: the part of a label that is spread over all classes.
        weight_decay: of kernels.
        layer_decay: what the learning rate is multiplied by from a stage to the one below.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: str = ADAMW
    warmup_epochs: float = 1.0
    patience: int = 3
    averaged_epochs: float = 0.0
    mixup: float = 0.0
    label_smoothing: float = 0.1
    weight_decay: float = 0.02
    layer_decay: float = 0.9

    def steps_per_epoch(self, num_images: int) -> int:
        """So that every image is seen once."""
        return -(-num_images // self.batch_size)

    def average_over(self, num_images: int) -> float:
        """The momentum of the moving average of the weights; 0 where there is none, or it would be of one step."""
        steps = self.averaged_epochs * self.steps_per_epoch(num_images)
        return 1 - 1 / steps if steps > 1 else 0.0

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


def last_course(whole: Schedule, learning_rate: float) -> Schedule:
    """A short one with some images more, from what another came to, and at a rate of its own."""
    return dataclasses.replace(_shorter(whole, _LAST_COURSE), learning_rate=learning_rate)


def quick_look(whole: Schedule) -> Schedule:
    """A short one, for a step that is only on the way."""
    return _shorter(whole, _QUICK_LOOK)


def _shorter(whole: Schedule, share: float) -> Schedule:
    epochs = max(1, round(share * whole.epochs))
    return dataclasses.replace(
        whole,
        epochs=epochs,
        warmup_epochs=min(whole.warmup_epochs, epochs / 4),
        averaged_epochs=min(whole.averaged_epochs, epochs / 4),  # An average of all steps would be half the start.
        patience=epochs,
    )


def schedule_for(
    num_images: int,
    most_epochs: int,
    *,
    image_size: int = _IMAGE_SIZE,
    optimizer: str = ADAMW,
    learning_rate: float | None = None,
) -> Schedule:
    """The course for so many training images: about as many steps for a small set as BiT takes, more for a large one.

    BiT-HyperRule: Kolesnikov et al. 2020, https://arxiv.org/abs/1912.11370, section 3.3: more steps and mixup for
    larger sets, and its learning rate for SGD.

    Args:
        num_images: to learn from.
        most_epochs: as the user set it.
        image_size: the side in pixels; larger ones are shown less often, so that a course costs about the same.
        optimizer: "adamw" or "sgd".
        learning_rate: as the user set it; None: what is usual for the optimizer.
    """
    num_shown = _IMAGES_SHOWN * (_IMAGE_SIZE / image_size) ** 2
    epochs = min(max(round(num_shown / max(num_images, 1)), _FEWEST_EPOCHS), _MOST_EPOCHS, most_epochs)
    return Schedule(
        epochs,
        min(_BATCH_SIZE, max(1, num_images)),
        learning_rate or _LEARNING_RATES[optimizer],
        optimizer,
        warmup_epochs=min(1.0, epochs / 4),
        patience=epochs,  # A fitted head is hard to beat while the rate is high; what is lost comes back as it falls.
        averaged_epochs=_AVERAGED_EPOCHS,
        mixup=_MIXUP if num_images >= _MANY_IMAGES else 0.0,
    )
