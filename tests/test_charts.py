from __future__ import annotations

import pytest

from headstart.reporting import charts
from headstart.reporting.charts import loss_charts, rate_charts


def epochs(losses, **part):
    return [
        {**part, "epoch": str(number), "loss": str(loss), "val_loss": str(loss + 0.1)}
        for number, loss in enumerate(losses, 1)
    ]


def rates(losses, phase="all", chosen="0.001"):
    return [
        {
            "phase": phase,
            "learning_rate": f"{10.0 ** (number - 7)}",
            "loss": str(loss),
            "smoothed": str(loss),
            "chosen": chosen,
        }
        for number, loss in enumerate(losses)
    ]


def test_a_chart_for_each_part():
    history = [
        *epochs([1.0, 0.5, 0.4], phase="stage5"),
        *epochs([0.9, 0.3], phase="all"),
    ]
    first, second = loss_charts(history)
    assert (first.title, second.title) == ("Training stage5 and above", "Training the whole network")
    assert list(first.lines) == ["training", "validation"]
    assert [x for x, _ in first.lines["training"]] == pytest.approx([1 / 3, 2 / 3, 1])
    assert first.lines["validation"][0][1] == pytest.approx(1 / 1.05)  # The highest of all loss lies near the top.
    assert list(first.x_ticks.values()) == ["1", "2", "3"]
    assert next(iter(first.y_ticks.values())) == "0"
    assert all(0 <= share <= 1 for share in first.y_ticks)


def test_a_head_has_one_and_a_frozen_run_none():
    (chart,) = loss_charts(epochs([0.7, 0.6]))
    assert chart.title == "Training the head"
    assert loss_charts([]) == ()
    assert loss_charts(epochs([0.7])) == ()  # One point is no line.


def test_what_is_no_number_is_left_out():
    history = epochs([0.7, float("nan"), 0.5], phase="all")
    (chart,) = loss_charts(history)
    assert len(chart.lines["training"]) == 2


def test_the_learning_rate_that_was_taken_is_marked():
    (chart,) = rate_charts(rates([1.0, 1.0, 0.9, 0.6, 0.5, 3.0]))
    assert chart.title == "Learning rates for the whole network"
    assert "Taken was 1.0e-03" in chart.caption
    ticks = {words: share for share, words in chart.x_ticks.items()}
    assert chart.mark == pytest.approx(ticks["1e-3"])
    assert max(y for _, y in chart.lines["smoothed"]) == 1.0  # What leaves the frame is drawn at its edge.
    assert len(rate_charts([*rates([1.0] * 9, "stage5"), *rates([1.0] * 9)])) == 2


def test_losses_of_nothing_at_all_have_a_frame():
    (chart,) = loss_charts([{**each, "val_loss": "0.0"} for each in epochs([0.0, 0.0], phase="all")])
    assert {y for points in chart.lines.values() for _, y in points} == {0.0}


@pytest.mark.parametrize("top", [1e-9, 0.03, 0.7, 1.0, 17.0, 1e12])
def test_ticks_are_few_and_round(top):
    ticks = charts._loss_ticks(top)
    assert 2 <= len(ticks) <= 6
    assert ticks[0.0] == "0"


def test_a_course_that_nothing_judges_has_no_line_of_validation():
    history = [{**each, "val_loss": "nan"} for each in epochs([0.5, 0.4], phase="stage3, validation images too")]
    (chart,) = loss_charts(history)
    assert chart.title == "Training stage3 and above, validation images too"
    assert list(chart.lines) == ["training"]
