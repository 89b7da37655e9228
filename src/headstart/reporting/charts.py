"""Line charts of a training, in shares of their width and height: how the loss fell, and which rate was taken."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Row = Mapping[str, str]
Points = tuple[tuple[float, float], ...]

_NUM_TICKS = 4
_TOP = 1.05  # Of the frame, against the highest point.
_LOSSES = {"training": "loss", "validation": "val_loss"}
_WORDS = {"all": "the whole network"}
_ABOUT_LOSS = "The training loss is of varied pictures and softened labels, so it stays above 0."


@dataclass(frozen=True)
class Chart:
    """Lines in a frame; all positions are shares of it, from 0 (left, below) to 1.

    Attributes:
        title: above it.
        caption: below it.
        across: what lies along the bottom.
        upward: what rises.
        lines: name -> points (x, y), in the order in which they are drawn.
        x_ticks: position -> words along the bottom.
        y_ticks: position -> words along the side.
        mark: the position of a line upward that the caption speaks of, or None.
    """

    title: str
    caption: str
    across: str
    upward: str
    lines: Mapping[str, Points]
    x_ticks: Mapping[float, str]
    y_ticks: Mapping[float, str]
    mark: float | None = None


def loss_charts(history: Sequence[Row]) -> tuple[Chart, ...]:
    """How the loss fell, from the rows of history.csv: one chart for each part of the training."""
    parts = [(phase, list(rows)) for phase, rows in itertools.groupby(history, lambda row: row.get("phase"))]
    return tuple(_loss_chart(phase, rows) for phase, rows in parts if len(rows) > 1)


def _loss_chart(phase: str | None, rows: Sequence[Row]) -> Chart:
    epochs = [float(row["epoch"]) for row in rows]
    losses = {name: [float(row[column]) for row in rows] for name, column in _LOSSES.items()}
    losses = {name: each for name, each in losses.items() if any(map(math.isfinite, each))}
    seen = [loss for each in losses.values() for loss in each if math.isfinite(loss)]
    top = _TOP * max(seen, default=0.0) or 1.0
    last = max(epochs)
    what = "the head" if phase is None else _opened(phase)
    return Chart(
        title=f"Training {what}",
        caption="" if phase is None else _ABOUT_LOSS,
        across="epoch",
        upward="loss",
        lines={name: _points([each / last for each in epochs], each, top) for name, each in losses.items()},
        x_ticks={each / last: f"{each:.0f}" for each in _some(epochs)},
        y_ticks=_loss_ticks(top),
    )


def _opened(phase: str) -> str:
    """What learns in a phase, by its name; after a comma that may say from which images."""
    stage, comma, images = phase.partition(",")
    return _WORDS.get(stage, f"{stage} and above") + comma + images


def rate_charts(steps: Sequence[Row]) -> tuple[Chart, ...]:
    """How the loss took ever higher learning rates, from the rows of learning_rate.csv."""
    return tuple(_rate_chart(phase, list(rows)) for phase, rows in itertools.groupby(steps, lambda row: row["phase"]))


def _rate_chart(phase: str, rows: Sequence[Row]) -> Chart:
    rates = [math.log10(float(row["learning_rate"])) for row in rows]
    chosen = float(rows[0]["chosen"])
    smoothed, each = ([float(row[name]) for row in rows] for name in ("smoothed", "loss"))
    low, high = math.floor(rates[0]), math.ceil(rates[-1] + 1e-9)
    top = 2 * max(smoothed[: len(smoothed) // 2 + 1]) or 1.0
    along = [(rate - low) / (high - low) for rate in rates]
    return Chart(
        title=f"Learning rates for {_opened(phase)}",
        caption=f"Each step at a higher rate than the one before. Taken was {chosen:.1e}, the dashed line: a tenth of "
        "where the smoothed loss was least, or what is usual where it hardly fell.",
        across="learning rate",
        upward="loss",
        lines={"of a batch": _points(along, each, top), "smoothed": _points(along, smoothed, top)},
        x_ticks={(power - low) / (high - low): f"1e{power}" for power in range(low, high + 1)},
        y_ticks=_loss_ticks(top),
        mark=min(1.0, max(0.0, (math.log10(chosen) - low) / (high - low))),
    )


def _points(across: Sequence[float], losses: Sequence[float], top: float) -> Points:
    """What is higher than the frame is drawn at its edge, and what is no number is left out."""
    return tuple((x, min(1.0, loss / top)) for x, loss in zip(across, losses, strict=True) if math.isfinite(loss))


def _loss_ticks(top: float) -> dict[float, str]:
    """From 0, at round numbers."""
    rough = top / _NUM_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return {number * step / top: f"{number * step:.3g}" for number in range(math.floor(top / step) + 1)}


def _some(values: Sequence[float]) -> Sequence[float]:
    """About six of them, the last among them."""
    every = math.ceil(len(values) / 6)
    return values[len(values) - 1 :: -every][::-1]
