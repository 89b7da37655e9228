"""The page, the text and the card of pictures that may have several names."""

from __future__ import annotations

import ast
import dataclasses
import re

import numpy as np
import pytest

from headstart.reporting import report
from headstart.reporting.card import model_card
from headstart.reporting.report import Mistake
from headstart.reporting.words import names_in_words
from headstart.scoring.multi_label import MultiLabelEvaluation, evaluate_names
from test_card import content as card_content
from test_report import HOSTILE, Page
from test_report import content as page_content


def answers(right: int, wrong: int, names: tuple[str, ...] = ("defective", "poly", "x"), sure: float = 0.9):
    """Pictures with no name, one or two of the first two; where wrong, the first is said or not as it should not be."""
    number = np.arange(right + wrong)
    targets = np.zeros((right + wrong, len(names)), np.int64)
    targets[:, 0], targets[:, 1] = number % 2, number // 2 % 2
    said = targets.copy()
    said[right:, 0] = 1 - said[right:, 0]
    return evaluate_names(targets, np.where(said == 1, sure, 1 - sure), names)


def content(evaluation: MultiLabelEvaluation | None = None, **changes: object) -> report.ReportContent:
    totals = {"train": 300, "val": 100, "test": 100}
    return page_content(evaluation or answers(87, 13), totals=totals, **changes)


def test_the_headline_and_what_it_rests_on() -> None:
    found = answers(87, 13)
    assert report.headline(found) == "87.0 of 100 new pictures have every name right (95 % interval 79.0 to 92.2)"
    assert report.evidence(found) == (
        "Measured on 100 test pictures that were never used in training: 87 have every name right, 13 not. "
        "Name by name, 95.7 of 100 answers are right."
    )
    assert report.baseline(found) == (
        "Always answering “defective, poly” would get 25.0 right; the classifier is clearly better than that."
    )
    nothing = evaluate_names(np.zeros((3, 2), int), np.zeros((3, 2)), ("a", "b"))
    assert report.baseline(nothing).startswith("Always answering “none of the names” would get 100 right")


def test_what_is_wrong_is_told_name_by_name() -> None:
    assert report.slips(answers(88, 12)) == [("defective", "missed", 6), ("defective", "said wrongly", 6)]
    assert report.confusions(answers(88, 12)) == []
    text = report.plain_text(content())
    assert "Most often wrong:\n  7 × “defective” missed\n  6 × “defective” said wrongly\n" in text
    assert "No mistakes on the test pictures." in report.plain_text(content(answers(100, 0)))


@pytest.mark.parametrize(
    ("right", "wrong", "sure", "verdict"),
    [
        (85, 15, 0.95, "it was 95.0 % sure and 95.0 % right, as it should be"),
        (90, 10, 0.98, "may be chance"),
        (10, 90, 0.95, "surer than it should be"),
        (200, 0, 0.7, "more often than it claims"),
    ],
)
def test_confidence_is_that_of_answers_on_names(right: int, wrong: int, sure: float, verdict: str) -> None:
    assert verdict in report.calibration(answers(right, wrong, sure=sure))


def test_answers_on_one_picture_count_once_in_the_whiskers() -> None:
    found = answers(87, 13)
    (only,) = found.reliability
    ((low, high),) = report._whiskers(found)
    assert only.num_images == 300
    assert (low, high) == pytest.approx(report.wilson(287 / 3, 100))


def test_the_page() -> None:
    mistake = Mistake("a.jpg", "defective, poly", "none of the names", 0.9)
    page = Page(report.render(content(mistakes=(mistake,))))
    for part in (
        "87.0 of 100 new pictures have every name right",
        "always “ defective, poly ”: 25.0",
        "13 not. Name by name, 95.7 of 100 answers are right.",
        "tossing a coin for each name gives 0.69",
        "7 × defective missed",
        "name found missed wrong rest defective 43 7 6 44",
        "said none of the names (90.0 %)",
        "labelled defective, poly",
        "pictures 300 100 100 500",
        "one with none in no row but the last",
    ):
        assert part in page.text
    assert "Confusion" not in page.text
    assert not page.open, "every element is closed"


def test_hostile_names() -> None:
    html = report.render(content(answers(60, 40, HOSTILE)))
    page = Page(html)
    assert page.num("script") == 0
    assert not page.open
    html.encode("utf-8")
    assert "\x1b" not in report.plain_text(content(answers(60, 40, HOSTILE)))


def test_the_card() -> None:
    found = answers(87, 13)
    counts = tuple(score.num_images for score in found.classes)
    plain = dataclasses.replace(
        card_content(), evaluation=found, counts={"train": counts, "test": counts}, totals={"train": 100, "test": 100}
    )
    card = model_card(plain)
    for part in (
        "87.0 of 100 new pictures have every name right",
        "      name: every name right\n      value: 0.8700",
        "any number of them or none: “defective”, “poly”, “x”.",
        "| name | train | test |\n|:--|--:|--:|\n| defective | 50 | 50 |",
        "| x | 0 | 0 |\n| pictures | 100 | 100 |\n\n1 file",
        "Most often wrong:\n\n- 7 × “defective” missed\n- 6 × “defective” said wrongly\n",
        "- For a name with few test pictures",
    ):
        assert part in card
    assert "It always answers with one" not in card
    (code,) = re.findall(r"^```python\n(.*?)^```", card, re.MULTILINE | re.DOTALL)
    assert ast.parse(code)
    assert "print([name for name, probability in zip(class_names, probabilities) if probability >= 0.5])" in code


def test_names_in_words() -> None:
    assert names_in_words(["a", "b"]) == "a, b"
    assert names_in_words([]) == "none of the names"
