"""The learning-rate range test: steps at ever higher rates until the loss rises; the highest that is safe lies below.

Smith 2017, "Cyclical Learning Rates for Training Neural Networks", https://arxiv.org/abs/1506.01186, section 3.3. Taken
is a tenth of the rate at which the smoothed loss was least, as fastai does
(https://docs.fast.ai/callback.schedule.html#learner.lr_find).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

from headstart.learning.lessons import Batch, Lessons
from headstart.learning.tuning import Phase, compile_for, put_weights, weights_of
from headstart.networks.backend import keras
from headstart.progress import Progress, silent

_LOWEST, _HIGHEST = 1e-7, 1.0
_NUM_STEPS = 100
_MEMORY = 0.9  # Of the smoothed loss, from a step to the next.
_TOO_HIGH = 2.0  # Times the least loss: it will only get worse.
_LEAST_FALL = 0.99
_PART = 0.1  # Of the rate of the least loss.
_FARTHEST = 100.0  # Times lower or higher than is usual: where batches differ much, the least loss may be chance.


@dataclasses.dataclass(frozen=True)
class RateStep:
    """A row of learning_rate.csv.

    Attributes:
        phase: what is open.
        learning_rate: of the step.
        loss: of its images, in nats.
        smoothed: a mean over it and those before.
        chosen: the rate that the test came to.
    """

    phase: str
    learning_rate: float
    loss: float
    smoothed: float
    chosen: float = 0.0


def find_rate(
    model: keras.Model, lessons: Lessons, phase: Phase, progress: Progress = silent
) -> tuple[float, tuple[RateStep, ...]]:
    """Try learning rates on a model, whose weights are then what they were.

    Args:
        model: see `tuning.tune`.
        lessons: the images; those to learn from are used.
        phase: what is trained, in which batches and how.
        progress: told of each step.

    Returns:
        The rate to train with, and the steps; that of the phase where no rate lets the loss fall.
    """
    before = weights_of(model)
    optimizer = compile_for(model, phase, len(lessons.train))
    batches = itertools.islice(_batches(lessons, phase), _NUM_STEPS)
    steps: list[RateStep] = []
    smoothed = 0.0
    for number, batch in enumerate(batches):
        rate = _LOWEST * (_HIGHEST / _LOWEST) ** (number / (_NUM_STEPS - 1))
        optimizer.learning_rate.assign(rate)
        model.reset_metrics()
        loss = float(model.train_on_batch(**batch))
        smoothed = _MEMORY * smoothed + (1 - _MEMORY) * loss
        mean = smoothed / (1 - _MEMORY ** (number + 1))  # As if it had not begun at nothing.
        progress(f"Trying learning rates for {phase.name}", number + 1, _NUM_STEPS)
        if not math.isfinite(loss):
            break
        steps.append(RateStep(phase.name, rate, loss, mean))
        if mean > _TOO_HIGH * min(step.smoothed for step in steps):
            break
    progress(f"Trying learning rates for {phase.name}", _NUM_STEPS, _NUM_STEPS)
    put_weights(model, before)
    usual = phase.schedule.learning_rate
    chosen = min(max(_chosen(steps) or usual, usual / _FARTHEST), usual * _FARTHEST)
    return chosen, tuple(dataclasses.replace(step, chosen=chosen) for step in steps)


def _batches(lessons: Lessons, phase: Phase) -> Iterator[Batch]:
    """Batch after batch of the training images, epoch after epoch, without end."""
    schedule = phase.schedule
    for epoch in itertools.count():
        batch = lessons.batches(phase.seed, epoch, schedule.batch_size, schedule.mixup)
        yield from map(batch, range(schedule.steps_per_epoch(len(lessons.train))))


def _chosen(steps: list[RateStep]) -> float | None:
    """A tenth of the rate of the least smoothed loss; None where it hardly fell."""
    settled = steps[math.ceil(1 / (1 - _MEMORY)) :]  # Before that it is the mean of too few.
    best = min(settled, key=lambda step: step.smoothed, default=None)
    return best.learning_rate * _PART if best and best.smoothed < _LEAST_FALL * settled[0].smoothed else None
