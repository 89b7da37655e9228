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

_LINE_HEIGHT = 13.0


@dataclass(frozen=True)
class Dot:
    """One network in the plot.

    Attributes:
        ranked: the network.
        x: where it lies, from its latency, on a logarithmic scale.
        y: from its accuracy.
        low: the lower end of its interval.
        high: the upper end.
        text_y: where its name goes, clear of the others.
        to_the_left: whether its name stands left of it.
        is_frontier: whether none beats it in both.
    """

    ranked: Ranked
    x: float
    y: float
    low: float
    high: float
    text_y: float
    to_the_left: bool
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
        how = f"No other of the {num} is as good on these images."
    else:
        how = f"{tied} of the {num} cannot be told apart on these images; it is the fastest of them"
        how += "." if chosen == best else f", while {best.backbone} is right most often ({points(best.accuracy)} %)."
    return (
        f"{chosen.backbone} at {chosen.image_size} px: {points(chosen.accuracy)} % right, cross-validated on "
        f"{chosen.num_images:,} training images. {how}"
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
    sides = [spot[0] > (LEFT + RIGHT) / 2 for spot in spots]
    dots = tuple(
        Dot(each, *spot, y(each.accuracy_low), y(each.accuracy_high), text_y, side, each in comparison.frontier)
        for each, spot, text_y, side in zip(ranking, spots, _spread(spots), sides, strict=True)
    )
    corners = [(dot.x, dot.y) for dot in sorted(dots, key=lambda dot: dot.x) if dot.is_frontier]
    line = f"M{corners[0][0]} {corners[0][1]}" + "".join(f"H{right_x}V{up_y}" for right_x, up_y in corners[1:])
    return Plot(
        dots,
        tuple((x(each), f"{each:g}") for each in _round_numbers(10**left, 10**right)),
        tuple((y(each), f"{100 * each:.0f}") for each in _steps(bottom, top)),
        f"{line}H{RIGHT}",
    )


def _spread(spots: Sequence[tuple[float, float]]) -> list[float]:
    """Heights for the names: those of the dots, moved down where two would cover each other."""
    heights: dict[int, float] = {}
    lowest = -math.inf
    for index in sorted(range(len(spots)), key=lambda each: spots[each][1]):
        heights[index] = lowest = max(spots[index][1], lowest + _LINE_HEIGHT)
    over = max(0.0, lowest - BOTTOM)
    return [round(heights[index] - over, 1) for index in range(len(spots))]


def _round_numbers(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20, ... between two numbers, fewer where they are far apart."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if high / low < 300 else (1,)
    return [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]


def _steps(low: float, high: float) -> list[float]:
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / step <= 7 or step == 0.2)
    return [each * step for each in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
