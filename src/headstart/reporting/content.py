"""From a run folder to what its report says: read back from the files, so that a report can be drawn at any time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from headstart.cache import write_atomically
from headstart.errors import DataError, ImageError, RunError
from headstart.pictures.decode import read, thumbnail
from headstart.pictures.folder import BETWEEN_NAMES, SPLITS, Skipped
from headstart.reporting.card import model_card
from headstart.reporting.charts import loss_charts, rate_charts
from headstart.reporting.report import MAX_MISTAKES, Mistake, ReportContent, WeightsFacts, render
from headstart.reporting.runs import (
    CARD_FILE,
    HISTORY_FILE,
    PREDICTIONS_FILE,
    RATES_FILE,
    REPORT_FILE,
    SPLIT_FILE,
    read_table,
)
from headstart.reporting.words import names_in_words
from headstart.scoring.multi_label import AnyEvaluation, MultiLabelEvaluation

_THUMBNAIL_PIXELS = 224


def draw_report(path: Path, facts: dict[str, Any], evaluation: AnyEvaluation) -> ReportContent:
    """Write ``report.html`` and the model card of a run.

    Args:
        path: the run folder, with its tables.
        facts: the content of ``run.json``.
        evaluation: the content of ``evaluation.json``.
    """
    content = report_content(path, facts, evaluation)
    for name, text in ((REPORT_FILE, render(content)), (CARD_FILE, model_card(content))):
        with write_atomically(path / name) as file:
            file.write(text.encode())
    return content


def report_content(path: Path, facts: dict[str, Any], evaluation: AnyEvaluation) -> ReportContent:
    """Everything the report says.

    Raises:
        RunError: the folder's files do not hold what a run's do.
    """
    several = isinstance(evaluation, MultiLabelEvaluation)
    try:
        return ReportContent(
            title=facts["title"],
            created=facts["created"],
            evaluation=evaluation,
            counts=_counts(path, evaluation.class_names, several=several),
            totals=dict(Counter(row["split"] for row in read_table(path / SPLIT_FILE))) if several else {},
            recipe=tuple((str(label), str(value)) for label, value in facts["choices"].items()),
            weights=WeightsFacts(**facts["weights"]),
            mistakes=_mistakes(path, Path(facts["root"]), several=several),
            skipped=tuple(Skipped(each["name"], each["reason"]) for each in facts["skipped"]),
            notes=tuple(facts["notes"]),
            seconds=facts["seconds"],
            self_check=facts["self_check"],
            head_note=facts["head_note"],
            versions=facts["versions"],
            charts=(*rate_charts(_rows(path / RATES_FILE)), *loss_charts(_rows(path / HISTORY_FILE))),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, DataError) as error:
        raise RunError(f"{path} is damaged: {error!r}.") from error


def _rows(path: Path) -> list[dict[str, str]]:
    return read_table(path) if path.is_file() else []


def _counts(path: Path, class_names: tuple[str, ...], *, several: bool) -> dict[str, tuple[int, ...]]:
    counter = Counter(
        (row["split"], name)
        for row in read_table(path / SPLIT_FILE)
        for name in (row["label"].split(BETWEEN_NAMES) if several else (row["label"],))
    )
    return {split: tuple(counter[split, name] for name in class_names) for split in SPLITS}


def _mistakes(path: Path, root: Path, *, several: bool) -> tuple[Mistake, ...]:
    def in_words(label: str) -> str:
        return names_in_words(label.split(BETWEEN_NAMES) if label else ()) if several else label

    rows = [row for row in read_table(path / PREDICTIONS_FILE) if row["label"] != row["predicted"]]
    wrong = sorted(rows, key=lambda row: -float(row["probability"]))
    folder = root if root.is_dir() else root.parent
    return tuple(
        Mistake(
            row["path"],
            in_words(row["label"]),
            in_words(row["predicted"]),
            float(row["probability"]),
            _thumbnail(folder / row["path"]) if number < MAX_MISTAKES else None,
        )
        for number, row in enumerate(wrong)
    )


def _thumbnail(path: Path) -> bytes | None:
    try:
        return thumbnail(read(path), _THUMBNAIL_PIXELS)
    except ImageError:
        return None
