"""One phase of fine-tuning: a tail, what it learns from, and a schedule -> better weights in its layers, or the same.

Everything random is settled by the seed, the epoch and the image, so a phase that is killed goes on from its last kept
state to the same end, to the bit. The weights that are left in the layers are those of the epoch with the least
validation loss; where no epoch has less than the start, they are those of the start.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.learning.held_out import HeldOut
from headstart.learning.keeper import Keeper
from headstart.learning.lessons import Lessons, prepared_ahead
from headstart.learning.schedule import Schedule
from headstart.networks.backend import keras
from headstart.networks.guard import Guard, check_epochs_differ
from headstart.progress import Progress, silent

_SECONDS_BETWEEN_STATES = 30.0  # What a kill may cost; epochs of few images take less than a state does.
_SMALLEST = 1e-12

Arrays = list[npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class Epoch:
    """A row of history.csv.

    Attributes:
        phase: what is open: a stage, with all above it, or "all"; and whether it learns from validation images too.
        epoch: from 1.
        loss: of the training images as they were shown, in nats.
        val_loss: of the validation images, each as it is; see `Lessons.quick_answers`.
        val_accuracy: likewise.
        learning_rate: at the end of the epoch.
        images_per_second: of training.
        seconds: of training and judging.
    """

    phase: str
    epoch: int
    loss: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    images_per_second: float
    seconds: float


Tell = Callable[[Epoch, int], None]
"""Called after each epoch with its row and the number of epochs there may be."""


@dataclasses.dataclass(frozen=True)
class Diary:
    """Where fine-tuning writes down how far it is.

    Attributes:
        folder: in which the state is kept, so that it can be gone on with; None: nowhere.
        tell: told of each epoch.
    """

    folder: Path | None = None
    tell: Tell = lambda epoch, num_epochs: None


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of training.

    Attributes:
        name: what the history calls it: the lowest stage that learns, or "all".
        schedule: how fast and how long.
        seed: of the order of images and of their views.
        factors: of the learning rate by layer; see `LayerwiseAdamW`.
    """

    name: str
    schedule: Schedule
    seed: int
    factors: Mapping[str, float] = dataclasses.field(default_factory=dict)


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

    def __init__(self, model: keras.Model, optimizer: Any, phase: Phase, loss_before: float) -> None:
        self.model, self.optimizer, self.phase = model, optimizer, phase
        self.best: Arrays = weights_of(model)
        self._saved = time.perf_counter()
        self.facts: dict[str, Any] = {
            "epoch": 0, "step": 0, "loss_sum": 0.0, "seconds": 0.0, "best_epoch": 0, "least": loss_before, "rows": [],
            "over": False, "trouble": "",
        }  # fmt: skip

    def save_if_due(self, keeper: Keeper | None) -> None:
        is_due = self.facts["over"] or time.perf_counter() - self._saved > _SECONDS_BETWEEN_STATES
        if keeper and is_due:
            optimizer = [np.asarray(keras.ops.convert_to_numpy(each.value)) for each in self.optimizer.variables]
            arrays = {"weights": weights_of(self.model), "best": self.best, "optimizer": optimizer}
            keeper.save(self.facts, arrays)
            self._saved = time.perf_counter()

    def resume(self, keeper: Keeper | None) -> None:
        saved = keeper.load() if keeper else None
        if saved:
            self.facts, self.best = saved.facts, saved.arrays["best"]
            put_weights(self.model, saved.arrays["weights"])
            for variable, value in zip(self.optimizer.variables, saved.arrays["optimizer"], strict=True):
                variable.assign(value)

    @property
    def history(self) -> tuple[Epoch, ...]:
        return tuple(Epoch(**row) for row in self.facts["rows"])


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
    phase: Phase,
    *,
    keeper: Keeper | None = None,
    tell: Tell = lambda epoch, num_epochs: None,
    progress: Progress = silent,
) -> Tuned:
    """Train what is open in a model.

    Args:
        model: a `tail.Tail`'s; its trainable weights are those that learn.
        lessons: the images.
        phase: how fast and how long.
        keeper: keeps the state on disk; None: nothing is kept.
        tell: told of each epoch.
        progress: told of each step.

    Raises:
        GuardError: something else changed than what is open.
        RunError: the state cannot be kept, or what there is of it is damaged.
    """
    optimizer = compile_for(model, phase, len(lessons.train))
    before = lessons.answers(model)
    guard = Guard.before(model)
    course = _Course(model, optimizer, phase, lessons.quick_answers(model).loss)
    course.resume(keeper)
    while not course.facts["over"]:
        _run_epoch(course, lessons, keeper, progress)
        if not course.facts["trouble"]:
            _judge(course, lessons, tell)
        course.save_if_due(keeper)
    if course.facts["epoch"]:
        guard.after(model)
    put_weights(model, course.best)
    after = lessons.answers(model) if course.facts["best_epoch"] else before
    return Tuned(before, after, course.history, course.facts["trouble"], course.facts["best_epoch"])


def compile_for(model: keras.Model, phase: Phase, num_images: int) -> Any:
    """Compile a model for a phase with so many training images; returns its optimizer, which starts afresh."""
    schedule = phase.schedule
    momentum = schedule.average_over(num_images)
    from headstart.learning.optimizer import make_optimizer  # Its classes are Keras's, which is imported with them.

    optimizer = make_optimizer(
        schedule.optimizer,
        phase.factors,
        learning_rate=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
        use_ema=bool(momentum),
        ema_momentum=momentum,
    )
    model.compile(optimizer, keras.losses.CategoricalCrossentropy(label_smoothing=schedule.label_smoothing))
    optimizer.build(model.trainable_variables)
    return optimizer


def _run_epoch(course: _Course, lessons: Lessons, keeper: Keeper | None, progress: Progress) -> None:
    """Every training image once, from the batch at which the course stands."""
    facts, model, schedule, seed = course.facts, course.model, course.phase.schedule, course.phase.seed
    if facts["epoch"] == 1:
        _see_that_epochs_differ(lessons, seed)
    num_images = len(lessons.train)
    num_steps = schedule.steps_per_epoch(num_images)
    batch = lessons.batches(seed, facts["epoch"], schedule.batch_size, schedule.mixup)
    start = time.perf_counter()
    for each in prepared_ahead(batch, range(facts["step"], num_steps)):
        done = facts["epoch"] * num_steps + facts["step"]
        course.optimizer.learning_rate.assign(schedule.rate_at(done, num_images))
        model.reset_metrics()  # Keras would average over all steps before.
        loss = float(model.train_on_batch(**each))
        facts["step"] += 1
        facts["loss_sum"] += loss * len(each["y"])
        progress(f"Tuning {course.phase.name}", done + 1, schedule.epochs * num_steps)
        if not math.isfinite(loss):
            facts["over"], facts["trouble"] = True, _no_number(facts["epoch"] + 1, schedule)
            break
        course.save_if_due(keeper)
    facts["seconds"] += time.perf_counter() - start


def _no_number(epoch: int, schedule: Schedule) -> str:
    return (
        f"The loss was no number any more in epoch {epoch}: a learning rate of {schedule.learning_rate:.2g} is too "
        "high here. The weights are those of the best epoch before."
    )


def _see_that_epochs_differ(lessons: Lessons, seed: int) -> None:
    by_epoch = [lessons.shown(seed, epoch) for epoch in (0, 1)]
    first, second = (views[np.argsort(order, kind="stable")].tolist() for order, views in by_epoch)
    check_epochs_differ(first, second, lessons.material.num_views)


def _judge(course: _Course, lessons: Lessons, tell: Tell) -> None:
    """End an epoch: what is said of the validation images now, whether it is the best so far, and whether to go on."""
    facts, num_images, schedule = course.facts, len(lessons.train), course.phase.schedule
    start = time.perf_counter()
    facts["epoch"] += 1
    trained = weights_of(course.model)
    if course.optimizer.use_ema:  # What is judged and kept is the mean over the last steps; what learns on is the last.
        course.optimizer.finalize_variable_values(course.model.trainable_weights)
        put_weights(course.model, weights_of(course.model))  # On JAX both would hold the same memory, and lose it.
    held_out = lessons.quick_answers(course.model)
    row = Epoch(
        phase=course.phase.name,
        epoch=facts["epoch"],
        loss=facts["loss_sum"] / num_images,
        val_loss=held_out.loss,
        val_accuracy=held_out.accuracy,
        learning_rate=schedule.rate_at(facts["epoch"] * schedule.steps_per_epoch(num_images) - 1, num_images),
        images_per_second=num_images / max(facts["seconds"], _SMALLEST),
        seconds=facts["seconds"] + time.perf_counter() - start,
    )
    if not len(held_out) or held_out.loss < facts["least"]:
        course.best = weights_of(course.model)
        facts.update(best_epoch=facts["epoch"], least=held_out.loss)
    put_weights(course.model, trained)
    facts["rows"].append(dataclasses.asdict(row))
    tell(row, schedule.epochs)
    facts.update(step=0, loss_sum=0.0, seconds=0.0)
    tired = len(held_out) and facts["epoch"] - facts["best_epoch"] >= schedule.patience
    facts["over"] = facts["epoch"] >= schedule.epochs or bool(tired)
