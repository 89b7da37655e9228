"""One phase of fine-tuning: a tail, what it learns from, and a schedule -> better weights in its layers, or the same.

Everything random is settled by the seed, the epoch and the image, so a phase that is killed goes on from its last kept
state to the same end, to the bit. The weights that are left in the layers are those of the epoch with the least
validation loss; where no epoch has less than the start, they are those of the start.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.learning.held_out import HeldOut
from headstart.learning.keeper import Keeper
from headstart.learning.material import Material, Numbers
from headstart.learning.optimizer import LayerwiseAdamW
from headstart.learning.schedule import Schedule
from headstart.networks.backend import keras
from headstart.networks.guard import Guard, check_epochs_differ

_SECONDS_BETWEEN_STATES = 60.0
_SMALLEST = 1e-12

Arrays = list[npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class Epoch:
    """A row of history.csv.

    Attributes:
        phase: what is open: a stage or "all".
        epoch: from 1; 0 is before any step.
        loss: of the training images as they were shown, in nats; not a number before the first epoch.
        val_loss: of the validation images, views averaged.
        val_accuracy: likewise.
        learning_rate: at the end of the epoch.
        images_per_second: of training.
    """

    phase: str
    epoch: int
    loss: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    images_per_second: float


Tell = Callable[[Epoch, int], None]
"""Called after each epoch with its row and the number of epochs there may be."""


@dataclasses.dataclass(frozen=True)
class Lessons:
    """What a phase learns from, and is judged on.

    Attributes:
        material: all images.
        labels: (n,) class numbers.
        num_classes: of them.
        train: numbers of the images to learn from.
        val: of those to judge by; may be empty, then the schedule runs to its end.
        weights: (num_classes,) by which a class's loss is multiplied.
    """

    material: Material
    labels: Numbers
    num_classes: int
    train: Numbers
    val: Numbers


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What a phase came to.

    Attributes:
        before: what was said of the validation images before it.
        after: with the weights that are kept.
        history: one row per epoch.
        trouble: why it ended early, in a sentence, or "".
        best_epoch: whose weights are kept; 0: those of the start.
    """

    before: HeldOut
    after: HeldOut
    history: tuple[Epoch, ...]
    trouble: str
    best_epoch: int


class _Course:
    """Where a phase stands: everything that is kept of it."""

    def __init__(self, model: keras.Model, optimizer: Any) -> None:
        self.model, self.optimizer = model, optimizer
        self.facts: dict[str, Any] = {
            "epoch": 0, "step": 0, "loss_sum": 0.0, "seconds": 0.0, "best_epoch": 0, "history": [], "over": False,
            "trouble": "",
        }  # fmt: skip
        self.best: Arrays = weights_of(model)
        self.start: Arrays = self.best

    def save(self, keeper: Keeper | None) -> None:
        if keeper:
            optimizer = [np.asarray(keras.ops.convert_to_numpy(each.value)) for each in self.optimizer.variables]
            arrays = {"weights": weights_of(self.model), "best": self.best, "start": self.start, "optimizer": optimizer}
            keeper.save(self.facts, arrays)

    def resume(self, keeper: Keeper | None) -> None:
        saved = keeper.load() if keeper else None
        if saved:
            self.facts = saved.facts
            self.best, self.start = saved.arrays["best"], saved.arrays["start"]
            put_weights(self.model, saved.arrays["weights"])
            for variable, value in zip(self.optimizer.variables, saved.arrays["optimizer"], strict=True):
                variable.assign(value)

    @property
    def history(self) -> list[Epoch]:
        return [Epoch(**row) for row in self.facts["history"]]


def weights_of(model: keras.Model) -> Arrays:
    """Copies of the weights that learn."""
    return [np.array(keras.ops.convert_to_numpy(weight.value)) for weight in model.trainable_weights]


def put_weights(model: keras.Model, values: Arrays) -> None:
    """Give the weights that learn other values."""
    for weight, value in zip(model.trainable_weights, values, strict=True):
        weight.assign(value)


def tune(
    model: keras.Model,
    lessons: Lessons,
    schedule: Schedule,
    *,
    phase: str,
    seed: int,
    factors: dict[str, float] | None = None,
    keeper: Keeper | None = None,
    tell: Tell = lambda epoch, num_epochs: None,
) -> Tuned:
    """Train what is open in a model.

    Args:
        model: a `tail.Tail`'s; its trainable weights are those that learn.
        lessons: the images.
        schedule: how fast and how long.
        phase: its name, for the history.
        seed: of the order of images and of their views.
        factors: of the learning rate by layer; see `LayerwiseAdamW`.
        keeper: keeps the state on disk; None: nothing is kept.
        tell: told of each epoch.

    Raises:
        GuardError: something else changed than what is open.
        RunError: the state cannot be kept, or what there is of it is damaged.
    """
    optimizer = LayerwiseAdamW(factors, learning_rate=schedule.learning_rate, weight_decay=schedule.weight_decay)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=schedule.label_smoothing)
    model.compile(optimizer=optimizer, loss=loss)
    optimizer.build(model.trainable_variables)
    course = _Course(model, optimizer)
    course.resume(keeper)
    guard = Guard.before(model)
    before = _with_weights(course.start, model, lessons)
    if not course.facts["history"]:
        _note(course, Epoch(phase, 0, math.nan, before.loss, before.accuracy, 0.0, 0.0), tell, schedule)
    while not course.facts["over"]:
        _run_epoch(course, lessons, schedule, seed, keeper)
        if not course.facts["trouble"]:
            _judge(course, lessons, schedule, phase, tell)
        course.save(keeper)
    if len(course.facts["history"]) > 1 and not course.facts["trouble"]:
        guard.after(model)
    put_weights(model, course.best)
    after = answers(model, lessons, lessons.val) if course.facts["best_epoch"] else before
    history = tuple(row for row in course.history if row.epoch)
    return Tuned(before, after, history, course.facts["trouble"], course.facts["best_epoch"])


def _with_weights(weights: Arrays, model: keras.Model, lessons: Lessons) -> HeldOut:
    now = weights_of(model)
    put_weights(model, weights)
    found = answers(model, lessons, lessons.val)
    put_weights(model, now)
    return found


def shown(lessons: Lessons, seed: int, epoch: int) -> tuple[Numbers, Numbers]:
    """The order of the training images in an epoch, and the view that each is shown in."""
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(lessons.train)
    return order, random.integers(lessons.material.num_views, size=len(order))


def _run_epoch(
    course: _Course, lessons: Lessons, schedule: Schedule, seed: int, keeper: Keeper | None
) -> None:
    """Every training image once, from the batch at which the course stands."""
    facts, model = course.facts, course.model
    order, views = shown(lessons, seed, facts["epoch"])
    if facts["epoch"] and not facts["step"]:
        previous = dict(zip(*(each.tolist() for each in shown(lessons, seed, facts["epoch"] - 1)), strict=True))
        check_epochs_differ(views.tolist(), [previous[each] for each in order.tolist()], lessons.material.num_views)
    num_steps = schedule.steps_per_epoch(len(order))
    one_hot = np.eye(lessons.num_classes, dtype=np.float32)
    kept = start = time.perf_counter()
    while facts["step"] < num_steps:
        step = facts["step"]
        batch = slice(step * schedule.batch_size, (step + 1) * schedule.batch_size)
        rate = schedule.rate_at(facts["epoch"] * num_steps + step, len(order))
        course.optimizer.learning_rate.assign(rate)
        model.reset_metrics()  # Keras would average over all steps before.
        inputs = lessons.material.batch(order[batch], views[batch])
        loss = float(model.train_on_batch(_one_or_all(inputs), one_hot[lessons.labels[order[batch]]]))
        facts["step"] += 1
        facts["loss_sum"] += loss * len(order[batch])
        if not math.isfinite(loss):
            facts["trouble"] = (
                f"The loss was no number any more in epoch {facts['epoch'] + 1}: a learning rate of "
                f"{schedule.learning_rate:.2g} is too high here."
            )
            facts["over"] = True
            break
        if time.perf_counter() - kept > _SECONDS_BETWEEN_STATES:
            course.save(keeper)
            kept = time.perf_counter()
    facts["seconds"] += time.perf_counter() - start


def _judge(course: _Course, lessons: Lessons, schedule: Schedule, phase: str, tell: Tell) -> None:
    """End an epoch: what is said of the validation images now, whether it is the best so far, and whether to go on."""
    facts, num_images = course.facts, len(lessons.train)
    facts["epoch"] += 1
    held_out = answers(course.model, lessons, lessons.val)
    num_steps = schedule.steps_per_epoch(num_images)
    speed = num_images / max(facts["seconds"], _SMALLEST)
    rate = schedule.rate_at(facts["epoch"] * num_steps - 1, num_images)
    row = Epoch(phase, facts["epoch"], facts["loss_sum"] / num_images, held_out.loss, held_out.accuracy, rate, speed)
    least = min((each.val_loss for each in course.history), default=math.inf)
    if not len(held_out) or held_out.loss < least:
        course.best = weights_of(course.model)
        facts["best_epoch"] = facts["epoch"]
    _note(course, row, tell, schedule)
    facts.update(step=0, loss_sum=0.0, seconds=0.0)
    tired = len(held_out) and facts["epoch"] - facts["best_epoch"] >= schedule.patience
    facts["over"] = facts["epoch"] >= schedule.epochs or bool(tired)


def _note(course: _Course, row: Epoch, tell: Tell, schedule: Schedule) -> None:
    course.facts["history"].append(dataclasses.asdict(row))
    if row.epoch:
        tell(row, schedule.epochs)


def answers(model: keras.Model, lessons: Lessons, images: Numbers) -> HeldOut:
    """What a model says of images, all views together: the mean of the logits, as averaged features give it."""
    if not len(images):
        return HeldOut.nothing()
    log_probabilities = np.concatenate(
        [_logs(model, lessons, images[start : start + _AT_ONCE]) for start in range(0, len(images), _AT_ONCE)]
    )
    labels = lessons.labels[images]
    losses = -log_probabilities[np.arange(len(images)), labels]
    return HeldOut(losses, log_probabilities.argmax(axis=1) == labels)


_AT_ONCE = 16


def _logs(model: keras.Model, lessons: Lessons, images: Numbers) -> npt.NDArray[np.float64]:
    num_views = lessons.material.num_views
    padded = np.resize(images, _AT_ONCE)  # One shape, so that no backend compiles twice.
    inputs = lessons.material.batch(np.repeat(padded, num_views), np.tile(np.arange(num_views), _AT_ONCE))
    each = np.asarray(model.predict_on_batch(_one_or_all(inputs)), np.float64).reshape(_AT_ONCE, num_views, -1)
    logits = np.log(each + _SMALLEST).mean(axis=1)
    logits -= logits.max(axis=1, keepdims=True)
    found: npt.NDArray[np.float64] = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return found[: len(images)]


def _one_or_all(inputs: list[npt.NDArray[np.float32]]) -> Any:
    return inputs[0] if len(inputs) == 1 else inputs
