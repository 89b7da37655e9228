"""What a person reads after a comparison: one self-contained page, with accuracy drawn against latency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.cache import write_atomically
from headstart.reporting import runs
from headstart.reporting.page import page_environment
from headstart.reporting.words import points
from headstart.scoring.comparison import Comparison, Ranked

LEFT, RIGHT, TOP, BOTTOM = 48, 428, 14, 300
"""The frame of the plot, in the units of its drawing, which is 440 wide and 344 high."""

_LINE_HEIGHT, _LETTER_WIDTH = 12.0, 6.4
_BESIDE, _RADIUS = 9.0, 5.0


@dataclass(frozen=True)
class Label:
    """A name in the plot: the end of it that is nearer to its dot, the line it stands on, and how wide it is."""

    x: float
    y: float
    is_left: bool
    width: float

    @property
    def anchor(self) -> str:
        """As SVG calls it."""
        return "end" if self.is_left else "start"

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        left = self.x - self.width if self.is_left else self.x
        return left, self.y - _LINE_HEIGHT + 3, left + self.width, self.y + 3


@dataclass(frozen=True)
class Dot:
    """One network in the plot.

    Attributes:
        ranked: the network.
        x: where it lies, from its latency, on a logarithmic scale.
        y: from its accuracy.
        low: the lower end of its interval.
        high: the upper end.
        name: where its name goes, clear of the others.
        is_frontier: whether none beats it in both.
    """

    ranked: Ranked
    x: float
    y: float
    low: float
    high: float
    name: Label
    is_frontier: bool


@dataclass(frozen=True)
class Plot:
    """Accuracy against latency: the dots, the ticks (position, text) of both axes, and the line along the frontier."""

    dots: tuple[Dot, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    frontier: str


def draw_comparison(path: Path, title: str, created: str, comparison: Comparison) -> None:
    """Write the page of a comparison."""
    page = page_environment().get_template("compare.html.j2")
    text = page.render(
        title=title, created=created, comparison=comparison, verdict=verdict(comparison), plot=plot(comparison)
    )
    with write_atomically(path / runs.REPORT_FILE) as file:
        file.write(text.encode())


def verdict(comparison: Comparison) -> str:
    """What came of it, in two sentences."""
    chosen, best, num = comparison.chosen, comparison.best, len(comparison.ranking)
    tied = sum(each.tied_with_best for each in comparison.ranking)
    if num == 1:
        how = "It was the only one."
    elif tied == 1:
        how = f"No other of the {num} is as good on these pictures."
    else:
        how = f"{tied} of the {num} cannot be told apart on these pictures; it is the fastest of them"
        how += "." if chosen == best else f", while {best.backbone} is right most often ({points(best.accuracy)} %)."
    return (
        f"{chosen.backbone} at {chosen.image_size} px: {points(chosen.accuracy)} % right, cross-validated on "
        f"{chosen.num_images:,} training pictures. {how}"
    )


def plot(comparison: Comparison) -> Plot:
    """Lay out the plot."""
    ranking = comparison.ranking
    slowest = max(each.latency_ms for each in ranking)
    fastest = min(each.latency_ms for each in ranking)
    left, right = math.log10(fastest / 1.4), math.log10(slowest * 1.4)
    bottom = math.floor(20 * min(each.accuracy_low for each in ranking)) / 20
    top = math.ceil(20 * max(each.accuracy_high for each in ranking)) / 20

    def x(milliseconds: float) -> float:
        return round(LEFT + (math.log10(milliseconds) - left) / (right - left) * (RIGHT - LEFT), 1)

    def y(share: float) -> float:
        return round(BOTTOM - (share - bottom) / (top - bottom) * (BOTTOM - TOP), 1)

    spots = [(x(each.latency_ms), y(each.accuracy)) for each in ranking]
    names = _labels([each.backbone for each in ranking], spots)
    dots = tuple(
        Dot(each, *spot, y(each.accuracy_low), y(each.accuracy_high), name, each in comparison.frontier)
        for each, spot, name in zip(ranking, spots, names, strict=True)
    )
    corners = [(dot.x, dot.y) for dot in sorted(dots, key=lambda dot: dot.x) if dot.is_frontier]
    line = f"M{corners[0][0]} {corners[0][1]}" + "".join(f"H{right_x}V{up_y}" for right_x, up_y in corners[1:])
    return Plot(
        dots,
        tuple((x(each), f"{each:g}") for each in _round_numbers(10**left, 10**right)),
        tuple((y(each), f"{100 * each:.0f}") for each in _steps(bottom, top)),
        f"{line}H{RIGHT}",
    )


def _labels(names: Sequence[str], spots: Sequence[tuple[float, float]]) -> list[Label]:
    """Each name beside its dot, higher or lower where it would cover another; the best networks choose first."""
    taken = [(x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS) for x, y in spots]
    placed = []
    for name, (x, y) in zip(names, spots, strict=True):
        width = _LETTER_WIDTH * len(name)
        choices = [
            Label(round(x + (-_BESIDE if is_left else _BESIDE), 1), round(y + 4 + up, 1), is_left, width)
            for up in (0, -9, 9, -18, 18, -27, 27)
            for is_left in (False, True)
        ]
        best = min(choices, key=lambda label: sum(_overlap(label.box, box) for box in taken) + _outside(label.box))
        placed.append(best)
        taken.append(best.box)
    return placed


def _overlap(one: tuple[float, ...], two: tuple[float, ...]) -> float:
    across, down = min(one[2], two[2]) - max(one[0], two[0]), min(one[3], two[3]) - max(one[1], two[1])
    return max(0.0, across) * max(0.0, down)


def _outside(box: tuple[float, ...]) -> float:
    over = (LEFT - box[0], TOP - 8 - box[1], box[2] - RIGHT - 6, box[3] - BOTTOM)
    return 100 * sum(max(0.0, each) for each in over)


def _round_numbers(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20, ... between two numbers, fewer where they are far apart."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if high / low < 300 else (1,)
    return [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]


def _steps(low: float, high: float) -> list[float]:
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / step <= 7 or step == 0.2)
    return [each * step for each in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
