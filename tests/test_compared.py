"""The page of a comparison: what it says, and a plot in which every name can be read."""

from __future__ import annotations

import itertools

import pytest

from headstart.reporting.compared import BOTTOM, LEFT, RIGHT, TOP, draw_comparison, plot, verdict
from headstart.scoring.comparison import Comparison, Ranked


def ranked(name, accuracy, latency, *, num_images=1600, tied=False, p_value=0.2):
    low, high = max(0.0, accuracy - 0.02), min(1.0, accuracy + 0.01)
    return Ranked(
        name,
        224,
        num_images,
        num_images == 1600,
        accuracy,
        low,
        high,
        p_value,
        tied,
        latency,
        20.0,
        5_000_000,
        12.0,
        "here",
    )


def comparison(*ranking, left_out=None, notes=()):
    return Comparison(tuple(ranking), left_out or {}, 1600, 3, notes, 312.0)


BEST = ranked("ConvNeXtTiny", 0.963, 130, tied=True, p_value=1.0)
FAST = ranked("EfficientNetB0", 0.960, 22, tied=True)
SEVEN = (
    BEST, FAST, ranked("ResNet50", 0.93, 60, p_value=0.001), ranked("MobileNetV2", 0.925, 5.1, num_images=512),
    ranked("InceptionV3", 0.922, 95, num_images=512), ranked("MobileNet", 0.921, 6.2, num_images=512),
    ranked("VGG16", 0.9, 180, num_images=128, p_value=None),
)  # fmt: skip


def test_the_fastest_of_the_best_is_chosen_and_the_frontier_is_what_none_beats():
    found = comparison(*SEVEN)
    assert found.best == BEST
    assert found.chosen == FAST
    assert [each.backbone for each in found.frontier] == ["MobileNetV2", "EfficientNetB0", "ConvNeXtTiny"]
    standing = [found.standing(each) for each in SEVEN[:4]]
    assert standing == ["best", "tied (p = 0.20)", "behind (p = 0.001)", "overtaken"]


@pytest.mark.parametrize(
    ("ranking", "words"),
    [
        ((BEST,), "It was the only one."),
        ((BEST, SEVEN[2]), "No other of the 2 is as good on these pictures."),
        ((BEST, FAST), "2 of the 2 cannot be told apart on these pictures; it is the fastest of them, while ConvNeXtTiny"),
        ((ranked("A", 0.9, 1, tied=True), ranked("B", 0.9, 2, tied=True)), "it is the fastest of them."),
    ],
)  # fmt: skip
def test_verdict(ranking, words):
    assert words in verdict(comparison(*ranking))


def test_every_dot_and_name_lies_in_the_frame_and_no_name_covers_another():
    drawn = plot(comparison(*SEVEN))
    for dot in drawn.dots:
        assert LEFT <= dot.x <= RIGHT
        assert TOP <= dot.high <= dot.y <= dot.low <= BOTTOM
        left, top, right, bottom = dot.name.box
        assert left >= LEFT
        assert right <= RIGHT + 10
        assert TOP - 10 <= top < bottom <= BOTTOM
    for one, two in itertools.combinations([dot.name.box for dot in drawn.dots], 2):
        assert one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]
    assert all(LEFT <= x <= RIGHT for x, _ in drawn.x_ticks)
    assert len(drawn.x_ticks) >= 2
    assert 2 <= len(drawn.y_ticks) <= 8


@pytest.mark.parametrize("accuracy", [0.0, 0.5, 1.0])
def test_one_network_and_equals_can_be_drawn(accuracy):
    one = ranked("Only", accuracy, 10, tied=True, p_value=1.0)
    assert len(plot(comparison(one)).dots) == 1
    assert len(plot(comparison(one, one, one)).dots) == 3


def test_the_page_says_who_was_left_out_and_why_and_nothing_runs_in_it(tmp_path):
    found = comparison(*SEVEN, left_out={"ResNet101": "<script>cannot be reached"}, notes=("Time is up.",))
    draw_comparison(tmp_path, "<img src=x>", "now", found)
    page = (tmp_path / "report.html").read_text()
    for words in ("ResNet101", "&lt;script&gt;cannot be reached", "Time is up.", "tied (p = 0.20)", "96.0"):
        assert words in page
    assert "<script" not in page
    assert "<img" not in page
