"""The run folder: where everything about one run lies. Nothing here needs Keras.

``MANIFEST.json``, the hashes of the other files, is written last: a folder without it is unfinished, and the same
command goes on with it.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import errno
import hashlib
import io
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.cache import file_sha256, write_atomically
from headstart.errors import RunError
from headstart.pictures.folder import ImageFile, ImageFolder

RUN_FILE = "run.json"
SPLIT_FILE = "split.csv"
EVALUATION_FILE = "evaluation.json"
PREDICTIONS_FILE = "predictions.csv"
HISTORY_FILE = "history.csv"
RATES_FILE = "learning_rate.csv"
REPORT_FILE = "report.html"
CARD_FILE = "README.md"
COMPARISON_FILE = "comparison.json"
MANIFEST_FILE = "MANIFEST.json"

_NEEDED = (RUN_FILE, SPLIT_FILE, EVALUATION_FILE, PREDICTIONS_FILE)


def data_hash(folder: ImageFolder) -> str:
    """A hash of the contents, labels, groups and splits of the images, whatever the files are called."""
    facts = sorted(
        (
            image.sha256,
            image.label if image.label_set is None else image.label_set,
            image.group or "",
            image.split or "",
        )
        for image in folder.images
    )
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def start_run(out: str | Path | None, folder: ImageFolder, identity: Mapping[str, Any], kind: str = "") -> Path:
    """Find or make the folder of a run, and see that it can be written to.

    Args:
        out: where the user wants it, or None for the next free folder below ``runs/``.
        folder: the data, for the default name.
        identity: the recipe and the hash of the data; the same identity is the same run.
        kind: what the default name ends in, such as "-compare".

    Raises:
        RunError: something else lies there, or it cannot be written to.
    """
    path = Path(out) if out is not None else _free_folder(folder.root, identity, kind)
    if folder.root.is_dir() and path.resolve().is_relative_to(folder.root.resolve()):
        raise RunError(
            f"The run folder {path} would lie inside {folder.root} and be taken for a class the next time. "
            "Choose another place with --out."
        )
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            _check_reusable(path, identity)
        if (path / MANIFEST_FILE).exists():  # Its results stay until there are new ones.
            with tempfile.TemporaryFile(dir=path):
                pass
        else:
            reopen_run(path, identity)
    return path


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of what goes wrong inside that it was the run folder that could not be written.

    Raises:
        RunError: instead of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise RunError(why_unwritable(path, error)) from error


def reopen_run(path: Path, identity: Mapping[str, Any]) -> None:
    """Mark a run as unfinished, before anything is written to it."""
    (path / MANIFEST_FILE).unlink(missing_ok=True)
    write_json(path / RUN_FILE, {"identity": dict(identity), "finished": False})


def discard_run(path: Path) -> None:
    """Take away the folder of a run that came to nothing; one with any result in it stays."""
    with contextlib.suppress(OSError):
        if [each.name for each in path.iterdir()] == [RUN_FILE]:
            (path / RUN_FILE).unlink()
            path.rmdir()


def remove_states(path: Path) -> None:
    """Remove what an unfinished training was kept in, see `learning.keeper`: it is over."""
    for state in path.glob(".tuning-*.state"):
        state.unlink()


def finish_run(path: Path) -> None:
    """Write the manifest: from here on the run is finished."""
    names = sorted(each.name for each in path.iterdir() if each.is_file() and each.name != MANIFEST_FILE)
    hashes = {name: file_sha256(path / name) for name in names if not name.startswith(".")}
    write_json(path / MANIFEST_FILE, {"sha256": hashes})


def open_run(path: str | Path) -> dict[str, Any]:
    """The facts of a finished run, after checking every file against the manifest.

    Raises:
        RunError: no run lies there, it is unfinished, or a file in it is damaged.
    """
    folder = Path(path)
    if not (folder / RUN_FILE).is_file():
        raise RunError(f"{folder} is not a run folder: it has no {RUN_FILE}. Expected one that 'headstart fit' made.")
    if (folder / COMPARISON_FILE).is_file():
        raise RunError(f"{folder} holds a comparison and no classifier. Expected a folder that 'headstart fit' made.")
    if not (folder / MANIFEST_FILE).is_file():
        raise RunError(f"{folder} is unfinished: it has no {MANIFEST_FILE}. Run the same 'headstart fit' again.")
    try:
        hashes = json.loads((folder / MANIFEST_FILE).read_bytes())["sha256"]
        # The report and the card may be drawn anew, or edited; all else must be what the run wrote.
        kept = {str(name): str(value) for name, value in hashes.items() if name not in (REPORT_FILE, CARD_FILE)}
        missing = [name for name in _NEEDED if name not in kept]
        if missing:
            raise RunError(f"{folder} is damaged: {MANIFEST_FILE} does not list {missing[0]}.")
        damaged = [
            name for name, value in kept.items() if Path(name).name != name or file_sha256(folder / name) != value
        ]
        if damaged:
            raise RunError(f"{folder / damaged[0]} is not what the run wrote: its hash differs from {MANIFEST_FILE}.")
        facts = json.loads((folder / RUN_FILE).read_bytes())
        if not isinstance(facts, dict):
            raise RunError(f"{folder} is damaged: {RUN_FILE} does not hold what a run's does.")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{folder} is damaged: {error}.") from error
    return facts


def write_json(path: Path, plain: Any) -> None:
    """Write plain values as JSON, whole or not at all."""
    with write_atomically(path) as file:
        file.write((json.dumps(plain, ensure_ascii=False, indent=1) + "\n").encode())


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    with write_atomically(path) as file:
        file.write(text.getvalue().encode())


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a CSV file of a run.

    Raises:
        RunError: it cannot be read.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{path} cannot be read: {error}.") from error


def write_split(path: Path, images: Sequence[ImageFile], splits: Sequence[str]) -> None:
    """Write which image went where."""
    rows = [(image.name, image.label, split, image.sha256) for image, split in zip(images, splits, strict=True)]
    write_table(path / SPLIT_FILE, ("path", "label", "split", "sha256"), rows)


def why_unwritable(path: Path, error: OSError) -> str:
    """One message for a folder that cannot be written to."""
    reasons = {
        errno.ENOSPC: "the disk is full. Free some space, or choose another place with --out",
        errno.EDQUOT: "your quota of the disk is used up. Choose another place with --out",
        errno.EROFS: "the disk is read-only. Choose another place with --out",
        errno.EACCES: "you may not write there. Choose another place with --out",
        errno.EPERM: "you may not write there. Choose another place with --out",
        errno.ENOTDIR: "a file is in the way. Choose another place with --out",
        errno.EEXIST: "a file is in the way. Choose another place with --out",
    }
    return f"The run folder {path} cannot be written: {reasons.get(error.errno or 0, error.strerror or str(error))}."


def now() -> str:
    """The time, as a report shows it."""
    return datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")


def _free_folder(root: Path, identity: Mapping[str, Any], kind: str) -> Path:
    """The first of runs/NAME, runs/NAME-2, ... that is free, or unfinished and the same."""
    stem = re.sub(r"[^\w.-]+", "-", root.resolve().stem if root.is_file() else root.resolve().name).strip("-.") or "run"
    stem += kind
    number = 1
    while True:
        path = Path("runs") / (stem if number == 1 else f"{stem}-{number}")
        if not path.exists() or (not (path / MANIFEST_FILE).exists() and _identity(path) == dict(identity)):
            return path
        number += 1


def _check_reusable(path: Path, identity: Mapping[str, Any]) -> None:
    if not (path / RUN_FILE).is_file():
        raise RunError(f"{path} is not empty and is not a run folder. Choose another place with --out.")
    if (path / MANIFEST_FILE).is_file() and _identity(path) != dict(identity):
        raise RunError(
            f"{path} holds a finished run of other images or another recipe, which would be lost. Choose another "
            "place with --out, or delete it."
        )


def _identity(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((path / RUN_FILE).read_bytes())["identity"]
        return found if isinstance(found, dict) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
