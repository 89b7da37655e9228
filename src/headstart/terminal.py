"""How headstart looks in a terminal. Everything goes to standard error but what a command is asked to print."""

from __future__ import annotations

import io
import json
import math
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.progress import Progress

if TYPE_CHECKING:
    from headstart.comparing import Compared
    from headstart.features.upkeep import Stored
    from headstart.learning.classifier import Prediction
    from headstart.learning.tuning import Epoch
    from headstart.pictures.folder import Skipped
    from headstart.scoring.comparison import Ranked
    from headstart.scoring.multi_label import AnyEvaluation
    from headstart.workflow import Run

_MAX_SKIPPED = 10
_STORE_COLUMNS = {
    "backbone": "backbone", "px": "image_size", "view": "view", "features": "pooling", "engine": "engine"
}  # fmt: skip
_PLAIN_SECONDS = 5.0  # Between two lines of progress where there is no terminal to draw a bar on.


def prepare() -> None:
    """See that printing never fails: a closed stream swallows, and a sign the terminal does not know is escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # Closed, as under some schedulers.
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  open as long as we run
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def hang_up() -> None:
    """Nobody reads any more: keep Python from complaining when it flushes at the end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: str) -> None:
    """Print a line for the person."""
    sys.stderr.write(text + "\n")


def complain(text: str) -> None:
    """Print an error: one line, whatever the files and classes in it are called."""
    from headstart.reporting.words import clean

    sys.stderr.write(f"error: {clean(text)}\n")


@contextmanager
def bar() -> Iterator[Progress]:
    """Progress with speed and time left: a bar in a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    display = _bars()
    with display:
        yield _drawing(display)


def _bars() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}")]
    return RichProgress(*columns, TimeRemainingColumn(), console=Console(stderr=True))


def _drawing(display: Any, *, one_by_one: bool = False) -> Progress:
    """Draw each step as a bar; one by one, a new step takes the place of the one before."""
    tasks: dict[str, tuple[Any, float]] = {}

    def draw(step: str, done: int, total: int) -> None:
        if step not in tasks or (one_by_one and not done):
            for old, _ in tasks.values() if one_by_one else ():
                display.remove_task(old)
            if one_by_one:
                tasks.clear()
            tasks[step] = (display.add_task(step, total=total, speed=""), time.perf_counter())
        task, start = tasks[step]
        display.update(task, completed=done, total=total, speed=_speed(done, total, time.perf_counter() - start))

    return draw


@contextmanager
def race() -> Iterator[tuple[Progress, Callable[[Ranked], None]]]:
    """Progress, and a table that grows while networks are compared: live in a terminal, line by line elsewhere."""
    if not sys.stderr.isatty():
        yield _lines(), lambda each: say(_judged(each))
        return
    from rich.console import Group
    from rich.live import Live

    bars = _bars()
    standing: dict[str, Ranked] = {}
    with Live(console=bars.console, refresh_per_second=4) as live:

        def tell(ranked: Ranked) -> None:
            standing[ranked.backbone] = ranked
            live.update(Group(_standing(standing.values()), bars))

        live.update(bars)
        yield _drawing(bars, one_by_one=True), tell


def _judged(each: Ranked) -> str:
    return (
        f"{each.backbone} at {each.image_size} px: {each.accuracy:.1%} of {each.num_images:,} pictures right, "
        f"{each.latency_ms:.1f} ms an image, {each.seconds:.0f} s so far."
    )


def _standing(judged: Iterable[Ranked]) -> Any:
    """As a table: who has seen the most images first, and of those the best."""
    from rich.table import Table

    table = Table("network", box=None)
    for name in ("pictures", "px", "right %", "95 % interval", "ms", "MB", "seconds"):
        table.add_column(name, justify="right")
    for each in sorted(judged, key=lambda one: (-one.num_images, -one.accuracy)):
        table.add_row(each.backbone, *_figures(each))
    return table


def _figures(each: Ranked) -> tuple[str, ...]:
    from headstart.reporting.words import points

    return (
        f"{each.num_images:,}",
        f"{each.image_size}",
        points(each.accuracy),
        f"{points(each.accuracy_low)} to {points(each.accuracy_high)}",
        f"{each.latency_ms:.1f}",
        f"{each.size_mb:.0f}",
        f"{each.seconds:.0f}",
    )


def show_comparison(compared: Compared) -> None:
    """The ranking, on standard output: what the command is for."""
    from headstart.reporting.compared import verdict
    from headstart.reporting.runs import REPORT_FILE
    from headstart.reporting.words import clean

    comparison = compared.comparison
    header = ("network", "pictures", "px", "right %", "95 % interval", "ms", "MB", "seconds", "")
    rows = [(each.backbone, *_figures(each), comparison.standing(each)) for each in comparison.ranking]
    _table(header, rows, right=header[1:-1])
    for name, reason in comparison.left_out.items():
        say(f"Not compared: {name}. {clean(reason)}")
    if comparison.left_out:
        say("'headstart weights pull NAME' fetches weights where there is a network; --weights none takes random ones.")
    for note in comparison.notes:
        say(f"Note: {clean(note)}")
    say("")
    say(verdict(comparison))
    say(f"\nDone in {comparison.seconds:.0f} s. Report: {compared.path / REPORT_FILE}")


def _speed(done: int, total: int, seconds: float) -> str:
    """Nothing where it would be a zero."""
    return f"{done / seconds:,.0f}/s" if total > 1 and seconds > 0.2 and done / seconds > 0.5 else ""


def _lines() -> Progress:
    started: dict[str, float] = {}
    last_said: dict[str, float] = {}

    def tell(step: str, done: int, total: int) -> None:
        now = time.perf_counter()
        start = started.setdefault(step, now)
        if total <= 1:
            if not done:  # It cannot be seen to go on, so say at least that it began.
                say(f"{step} ...")
        elif now - last_said.setdefault(step, now) >= _PLAIN_SECONDS:
            last_said[step] = now
            left = f", {(now - start) / done * (total - done):.0f} s left" if 0 < done < total else ""
            say(f"{step}: {done:,} of {total:,}{left}")

    return tell


def show_run(run: Run) -> None:
    """What a person wants to know when `fit` is done."""
    from headstart.reporting.runs import REPORT_FILE

    facts = run.facts
    summary = facts["summary"]
    show_skipped_plain(facts["skipped"])
    for note in facts["notes"]:
        say(f"Note: {note}")
    features, seconds = summary["features"], facts["seconds"]
    say(f"Weights: {summary['weights']['source']}, SHA-256 {summary['weights']['sha256']}")
    if facts["head_note"]:
        say(facts["head_note"])
    computed = f"{features['computed']:,} computed at {features['images_per_second']:.0f} a second"
    none = "none computed"
    say(f"Features: {computed if features['computed'] else none}, {features['reused']:,} reused from the store.")
    say(facts["self_check"])
    say("")
    show_evaluation(run.evaluation)
    say(f"\nDone in {seconds['total']:.0f} s. Report: {run.path / REPORT_FILE}")
    say(f"Use it: headstart predict {shlex.quote(str(run.path))} PICTURE...")


def show_epoch(row: Epoch, num_epochs: int) -> None:
    """One line after each epoch of fine-tuning."""
    judged = "" if math.isnan(row.val_loss) else f", validation loss {row.val_loss:.3f}, {row.val_accuracy:.1%} right"
    left = (num_epochs - row.epoch) * row.seconds
    say(
        f"Tuning {row.phase}, epoch {row.epoch} of {num_epochs}: "
        f"loss {row.loss:.3f}{judged}, learning rate {row.learning_rate:.1e}, {row.images_per_second:.0f} images/s"
        + (f", {left:.0f} s left" if left >= 2 else "")
    )


def show_evaluation(evaluation: AnyEvaluation) -> None:
    """The score in words."""
    from headstart.reporting.report import baseline, evidence, headline

    say(headline(evaluation))
    say(evidence(evaluation))
    say(baseline(evaluation))


def show_skipped(skipped: Sequence[Skipped]) -> None:
    """The first files that were left out, each with its reason."""
    show_skipped_plain([{"name": each.name, "reason": each.reason} for each in skipped])


def show_skipped_plain(skipped: Sequence[Mapping[str, str]]) -> None:
    """The same from a run's facts."""
    from headstart.reporting.words import clean

    for each in skipped[:_MAX_SKIPPED]:
        say(f"Skipped {clean(each['name'])}: {clean(each['reason'])}")
    if len(skipped) > _MAX_SKIPPED:
        say(f"... and {len(skipped) - _MAX_SKIPPED:,} more; all are in the report.")


def show_predictions(predictions: Sequence[Prediction]) -> None:
    """One line per file, on standard output: what a command is for."""
    from headstart.reporting.words import clean

    for each in predictions:
        if each.error:
            said = f"error: {clean(each.error)}"
        else:
            none = each.is_multi_label and not each.labels
            said = f"{'(none)' if none else clean(each.label)}\t{each.probability:.1%}"
        sys.stdout.write(f"{clean(each.path)}\t{said}\n")


def show_models(rows: Sequence[Mapping[str, Any]], *, measured: bool) -> None:
    """Networks as a table; in a window that is too narrow without the columns that can best be spared."""
    columns = {
        "backbone": [each["backbone"] for each in rows],
        "family": [each["family"] for each in rows],
        "px": [f"{each['image_size']}" for each in rows],
        "params": [f"{each['num_params'] / 1e6:.1f}M" for each in rows],
        "MB": [f"{each['size_mb']}" for each in rows],
        "top-1": [_or_dash(each["imagenet_top1"], ".1%") for each in rows],
        "ms/image": [_or_dash(each["latency_ms"], ".1f") for each in rows],
        "here": ["yes" if each["cached"] else "no" for each in rows],
        "licence": [each["licence"] for each in rows],
    }
    if not measured:
        del columns["ms/image"]
    left_out = []
    if sys.stdout.isatty():
        for name in ("family", "licence"):
            if _width(columns) > shutil.get_terminal_size().columns:
                del columns[name]
                left_out.append(name)
    lines = list(zip(*columns.values(), strict=True))
    _table(tuple(columns), lines, right=("px", "params", "MB", "top-1", "ms/image"))
    if left_out:
        say(f"For want of room without: {', '.join(left_out)}.")


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _width(columns: Mapping[str, Sequence[str]]) -> int:
    return sum(max(map(len, (name, *cells))) + 2 for name, cells in columns.items()) - 2


def show_weights(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """The sources of weights as a table."""
    lines = [
        (
            each["backbone"], each["source"], "here" if each["cached"] else "not fetched",
            f"{each['size'] / 1e6:.1f}" if each["size"] else "", each["pinned"], each["licence"],
        )
        for each in rows
    ]  # fmt: skip
    _table(("backbone", "source", "in the cache", "MB", "published hash", "licence"), lines)
    say(f"Cache: {folder}")


def show_stores(stores: Sequence[Stored]) -> None:
    """Stored features as a table; in a window that is too narrow without the columns that can best be spared."""
    columns = {
        **{name: [str(each.key.get(field, "?")) for each in stores] for name, field in _STORE_COLUMNS.items()},
        "weights": [str(each.key.get("fingerprint", "?"))[:8] for each in stores],
        "images": [f"{each.num_images:,}" for each in stores],
        "MB": [f"{each.num_bytes / 1e6:,.1f}" for each in stores],
        "last used": [time.strftime("%Y-%m-%d %H:%M", time.localtime(each.last_used)) for each in stores],
    }
    left_out = []
    for name in ("weights", "engine", "features"):
        if sys.stdout.isatty() and _width(columns) > shutil.get_terminal_size().columns:
            del columns[name]
            left_out.append(name)
    _table(tuple(columns), list(zip(*columns.values(), strict=True)), right=("px", "images", "MB"))
    if left_out:
        say(f"For want of room without: {', '.join(left_out)}.")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Columns as wide as their longest cell; those named in ``right`` are set to the right, as numbers are."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        cells = zip(header, row, widths, strict=True)
        line = "  ".join(cell.rjust(width) if name in right else cell.ljust(width) for name, cell, width in cells)
        sys.stdout.write(line.rstrip() + "\n")


def print_json(plain: Any) -> None:
    """The last line on standard output."""
    sys.stdout.write(json.dumps(plain, ensure_ascii=True) + "\n")
    sys.stdout.flush()


@contextmanager
def transfers() -> Iterator[Progress]:
    """Progress of several downloads at once, in bytes; may be told from several threads."""
    if not sys.stderr.isatty():
        yield _byte_lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as RichProgress

    columns = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()]
    with RichProgress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as display:
        tasks: dict[str, Any] = {}

        def draw(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = display.add_task(step, total=total if total > 1 else None)
            display.update(tasks[step], completed=done, visible=done < total)  # What is done makes room.

        yield draw


def _byte_lines() -> Progress:
    plain = _lines()
    started: dict[str, tuple[float, int]] = {}
    last_said: dict[str, float] = {}

    def tell(step: str, done: int, total: int) -> None:
        if total <= 1:
            plain(step, done, total)
            return
        now = time.perf_counter()
        start, before = started.setdefault(step, (now, done))
        if now - last_said.setdefault(step, now) >= _PLAIN_SECONDS:
            last_said[step] = now
            left = f", {(now - start) / (done - before) * (total - done):.0f} s left" if before < done < total else ""
            say(f"{step}: {done / 1e6:,.1f} of {total / 1e6:,.1f} MB{left}")

    return tell
