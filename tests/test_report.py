import dataclasses
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.pictures.folder import Skipped
from headstart.reporting import report, words
from headstart.reporting.report import Mistake, ReportContent, WeightsFacts
from headstart.scoring.evaluation import Evaluation
from headstart.scoring.metrics import evaluate

HOSTILE = (
    "<script>alert(1)</script>",
    "two\nlines \"double\" 'single' & {{ 7 * 7 }}",
    "a\u202egnp.exe",
    "\udcff undecodable \x1b[31m",
    "long" * 100,
    "日本語",
)
VOID = {"meta", "img", "br", "line", "circle", "wbr"}


class Page(HTMLParser):
    """What a browser would see: elements in order, the text, and whether every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += [] if self.open[-1:] == ["style"] else data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def num(self, tag: str) -> int:
        return sum(each == tag for each, _ in self.elements)


def answers(right: int, wrong: int, names: tuple[str, ...] = ("good", "scratched")) -> Evaluation:
    """The given numbers of right and wrong answers, spread over the classes, each 90 % sure."""
    labels = np.arange(right + wrong) % len(names)
    predicted = np.where(np.arange(right + wrong) < right, labels, (labels + 1) % len(names))
    probabilities = np.full((right + wrong, len(names)), 0.1 / (len(names) - 1))
    probabilities[np.arange(right + wrong), predicted] = 0.9
    return evaluate(labels, probabilities, names)


def content(evaluation: Evaluation | None = None, **changes: object) -> ReportContent:
    evaluation = evaluation or answers(474, 26)
    counts = tuple(score.num_images for score in evaluation.classes)
    plain = ReportContent(
        title="lens caps",
        created="2025-03-01 14:05",
        evaluation=evaluation,
        counts={"train": tuple(3 * count for count in counts), "val": counts, "test": counts},
        recipe=(("backbone", "MobileNetV2"), ("image size", "225 px")),
        weights=WeightsFacts("a package", "ab" * 32, "MIT", "Converted from PyTorch."),
        seconds={"scan": 1.0, "fine_tune": 151.0, "total": 152.0},
        versions={"keras": "3.15.1"},
    )
    return dataclasses.replace(plain, **changes)


def test_the_headline_is_in_plain_words() -> None:
    assert report.headline(answers(474, 26)) == "94.8 of 100 new pictures right (95 % interval 92.5 to 96.4)"
    page = Page(report.render(content()))
    assert "94.8 of 100 new pictures right" in page.text
    assert "92.5 to 96.4" in page.text
    assert "500 test pictures that were never used in training : 474 right, 26 wrong" in page.text


def test_the_page_says_how_it_was_made() -> None:
    text = Page(report.render(content(self_check="Same answers.", head_note="A linear head."))).text
    for part in (
        "MobileNetV2",
        "ab" * 32,
        "MIT",
        "fine tune",
        "2 min 31 s",
        "3.15.1",
        "Same answers.",
        "A linear head.",
    ):
        assert part in text


def test_notes_stand_on_the_page_and_in_the_text() -> None:
    noted = content(notes=("These pictures are simulated.",))
    assert "These pictures are simulated." in Page(report.render(noted)).text
    assert "Note: These pictures are simulated." in report.plain_text(noted)


@pytest.mark.parametrize(
    ("right", "wrong", "verdict"),
    [(95, 5, "clearly better than that"), (55, 45, "cannot be told from that"), (20, 80, "worse than that")],
)
def test_the_baseline_is_judged_with_the_interval(right: int, wrong: int, verdict: str) -> None:
    sentence = report.baseline(answers(right, wrong))
    assert sentence.startswith("Always answering “good” would get 50.0 right; ")
    assert verdict in sentence


@pytest.mark.parametrize(
    ("right", "wrong", "verdict"),
    [
        (90, 10, "as it should be"),
        (88, 12, "may be chance"),
        (50, 50, "surer than it should be"),
        (200, 0, "more often than it"),
    ],
)
def test_calibration_in_words(right: int, wrong: int, verdict: str) -> None:
    assert verdict in report.calibration(answers(right, wrong))


@pytest.mark.parametrize("num_classes", [2, 7, 30])
def test_every_class_has_its_row_and_column(num_classes: int) -> None:
    names = tuple(f"class {index}" for index in range(num_classes))
    html = report.render(content(answers(300, 20, names)))
    assert len(re.findall(r'<td class="(?:right|wrong)', html)) == num_classes**2
    assert len(re.findall(r'<span class="interval"', html)) == num_classes + 1


def test_hostile_names_change_nothing() -> None:
    mistakes = tuple(Mistake(f"{name}/x.jpg", name, HOSTILE[0], 0.9, b"jpeg") for name in HOSTILE)
    skipped = tuple(Skipped(name, name) for name in HOSTILE)
    hostile = content(answers(50, 12, HOSTILE), title=HOSTILE[0], mistakes=mistakes, skipped=skipped, notes=HOSTILE)
    html = report.render(hostile)
    html.encode("utf-8")
    page = Page(html)
    assert not page.open
    assert page.num("script") == 0
    assert "<script>alert(1)</script>" in page.text
    assert "two ⏎ lines" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "a�gnp.exe" in page.text
    assert not re.search("[\u202e\x1b\udcff]", html + report.plain_text(hostile))
    assert all(not name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_the_page_needs_no_network() -> None:
    html = report.render(content(mistakes=(Mistake("a.jpg", "good", "scratched", 0.9, b"jpeg"),)))
    page = Page(html)
    sources = [attributes["src"] for _, attributes in page.elements if "src" in attributes]
    assert sources == ["data:image/jpeg;base64,anBlZw=="]
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.elements}
    assert not re.search(r"https?:|url\(|@import", html)
    assert "default-src 'none'" in html
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_the_surest_mistakes_come_first_and_24_are_shown() -> None:
    mistakes = tuple(Mistake(f"{index}.jpg", "good", "scratched", index / 100) for index in range(26))
    html = report.render(content(mistakes=mistakes))
    shown = [int(number) for number in re.findall(r'class="file" title="(\d+).jpg"', html)]
    assert shown == list(range(25, 1, -1))
    page = Page(html)
    assert page.num("figure") == 24
    assert "The 24 most confident of 26 wrong answers" in page.text
    assert "said scratched (25.0 %) labelled good" in page.text
    assert "picture no longer there" in page.text


def test_no_mistakes_is_said_nicely() -> None:
    perfect = content(answers(160, 0))
    page = Page(report.render(perfect))
    assert "There are none. All 160 test pictures were answered right" in page.text
    assert "No mistakes on the test pictures." in report.plain_text(perfect)


def test_fifty_skipped_files_are_listed_and_all_are_counted() -> None:
    skipped = tuple(Skipped(f"s{index}.jpg", "truncated") for index in range(120))
    page = Page(report.render(content(skipped=skipped)))
    assert "120 files were left out" in page.text
    assert "and 70 more" in page.text
    assert page.text.count("truncated") == 50
    assert "1 file was left out" in Page(report.render(content(skipped=skipped[:1]))).text


def test_a_class_without_test_pictures_has_no_figure() -> None:
    labels, probabilities = np.array([0, 0, 1]), np.eye(3)[[0, 1, 1]]
    absent = content(evaluate(labels, probabilities, ("a", "b", "rare")))
    assert "no test pictures" in Page(report.render(absent)).text
    assert re.search(r"^rare +0 +– ", report.plain_text(absent), re.MULTILINE)


def test_the_text_is_short_and_aligned() -> None:
    text = report.plain_text(content(answers(190, 10, ("good", "日本", "x" * 80)), skipped=(Skipped("a", "b"),)))
    lines = text.splitlines()
    assert lines[0] == "lens caps: 95.0 of 100 new pictures right (95 % interval 91.0 to 97.3)"
    table = lines[4:8]
    assert len({report._width(line) for line in table}) == 1
    assert "  3 × “good” taken for “日本”" in lines
    assert "could not be used: 1 (listed" in text
    many = report.plain_text(content(answers(400, 50, tuple(f"c{index}" for index in range(45)))))
    assert "These are the 30 worst of 45 classes" in many


@pytest.mark.parametrize(
    ("share", "text"), [(1, "100"), (0.99999, "99.9"), (0.948, "94.8"), (0, "0.0"), (0.0004, "0.0")]
)
def test_points_are_never_rounded_up_to_perfect(share: float, text: str) -> None:
    assert words.points(share) == text


@pytest.mark.parametrize(
    ("count", "total", "text"),
    [(0, 0, "–"), (0, 9, "0 %"), (1, 300, "<1 %"), (299, 300, ">99 %"), (300, 300, "100 %"), (1, 4, "25 %")],
)
def test_shares_of_a_row(count: int, total: int, text: str) -> None:
    assert report._percent_of(count, total) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (99, "99.0 s"), (151, "2 min 31 s"), (7300, "2 h 1 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@given(st.text(alphabet=st.characters(codec=None)))
def test_clean_text_is_one_harmless_line(text: str) -> None:
    cleaned = words.clean(text)
    assert len(cleaned.encode("utf-8").decode("utf-8").splitlines()) <= 1
    assert words.clean(cleaned) == cleaned


def test_reporting_needs_no_keras() -> None:
    code = "import sys, headstart.reporting.card; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
