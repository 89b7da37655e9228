"""Read a manifest: a CSV, JSONL or Parquet file that names the pictures and their labels.

Columns (or keys): ``file_name`` relative to the manifest, ``label``, optionally ``split`` and ``group``; others are
ignored. A mistake in the manifest is a `DataError` with its line number; a missing picture is left for `scan` to skip.

A label may be several names, or none: a list in JSONL and Parquet; in CSV names with a ``|`` between, or ``|`` alone.
Where any row has several or none, all are taken as sets of names; else each picture has one.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from headstart.errors import DataError
from headstart.pictures.decode import why_unreadable
from headstart.pictures.folder import BETWEEN_NAMES, ImageFile, readable_name
from headstart.pictures.parquet import parquet_rows

MANIFEST_SUFFIXES = (".csv", ".jsonl", ".parquet")

MAX_BYTES = 1_000_000_000
"""The largest manifest that is read: about ten million rows."""

MAX_LINE = 1_000_000
"""The longest line in characters; without a limit a file with no line ends would be held in memory whole."""

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""How people write the three splits, in lower case, and what headstart calls them."""


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where something stands: in a line of a text, or in a row of a table."""

    path: Path
    kind: str
    number: int

    def __str__(self) -> str:
        return f"{self.path}, {self.kind} {self.number}"


@dataclasses.dataclass(frozen=True)
class _Row:
    place: _Place
    file_name: str
    names: tuple[str, ...]
    split: str
    group: str

    @property
    def label(self) -> str:
        return BETWEEN_NAMES.join(self.names)


def read_manifest(path: Path) -> tuple[ImageFile, ...]:
    """Read the rows of a manifest in their order, without looking at the pictures: every ``sha256`` is still empty.

    Raises:
        DataError: the manifest cannot be read or says something that cannot be; the message holds the line number.
    """
    suffix = path.suffix.lower()
    if suffix not in MANIFEST_SUFFIXES:
        raise DataError(
            f"{path} is not a manifest; expected a folder with one sub-folder per class, or a manifest whose name ends "
            "in .csv, .jsonl or .parquet."
        )
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is larger than 1 GB, the limit for a manifest. Split it into several.")
        with path.open("rb") as file:
            rows = tuple(_ROWS[suffix](path, file))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {why_unreadable(path, error)}.") from error
    if not rows:
        raise DataError(f"{path} has no rows; expected one for each picture, with file_name and label.")
    _check_splits(path, rows)
    return _images(path, rows)


def _lines(path: Path, file: Any) -> Iterator[str]:
    """The lines as text with their ends; bytes are decoded line by line, so that the number of a bad one is known."""
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if len(line) == MAX_LINE:
            raise DataError(f"{path}, line {number}: longer than {MAX_LINE:,} bytes. Is this a manifest?")
        if b"\0" in line:
            raise DataError(f"{path}, line {number}: holds a NUL byte. Save the manifest as UTF-8 text.")
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            byte = line[error.start]
            raise DataError(
                f"{path}, line {number}: byte 0x{byte:02x} is not UTF-8. Save the manifest as UTF-8 text."
            ) from error


def _csv_rows(path: Path, file: Any) -> Iterator[_Row]:
    reader = csv.reader(_lines(path, file), strict=True)
    try:
        columns = [name.strip() for name in next(reader, [])]
        _check_columns(path, columns)
        for values in reader:
            if not values:
                continue
            if len(values) > len(columns):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(values)} values for {len(columns)} columns. "
                    "Put double quotes around a value that holds a comma."
                )
            yield _row(_Place(path, "line", reader.line_num), _parted(dict(zip(columns, values, strict=False))))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV as expected ({error}).") from error


def _parted(values: dict[str, str]) -> dict[str, object]:
    """A label with bars in it as a list of names."""
    label = values.get("label", "")
    if BETWEEN_NAMES not in label:
        return dict(values)
    return {**values, "label": [name for name in label.split(BETWEEN_NAMES) if name.strip()]}


def _parquet_rows(path: Path, _: Any) -> Iterator[_Row]:
    columns = ("file_name", "label", "split", "group")
    for number, values in enumerate(parquet_rows(path, columns, functools.partial(_check_columns, path)), 1):
        yield _row(_Place(path, "row", number), values)


def _check_columns(path: Path, columns: list[str]) -> None:
    missing = [name for name in ("file_name", "label") if name not in columns]
    if not any(columns):
        raise DataError(f"{path} is empty; expected a first line with the column names file_name,label.")
    if missing:
        shown = ", ".join(columns)
        hint = " Separate the columns with commas." if len(columns) == 1 and {";", "\t"} & set(shown) else ""
        raise DataError(
            f"{path} has no column {' and no column '.join(missing)}; its columns are: {shown}. "
            f"Expected file_name and label, optionally split and group.{hint}"
        )
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise DataError(f"{path} has the column {twice[0]} twice. Remove one of them.")


def _json_rows(path: Path, file: Any) -> Iterator[_Row]:
    for number, line in enumerate(_lines(path, file), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not JSON ({error}).") from error
        if not isinstance(values, dict):
            example = '{"file_name": "a.jpg", "label": "cat"}'
            raise DataError(f"{path}, line {number}: not a JSON object; expected one such as {example}.")
        missing = [name for name in ("file_name", "label") if name not in values]
        if missing:
            present = ", ".join(values) or "none"
            raise DataError(
                f"{path}, line {number}: no key {missing[0]}; its keys are: {present}. "
                "Expected file_name and label, optionally split and group."
            )
        yield _row(_Place(path, "line", number), values)


_ROWS = {".csv": _csv_rows, ".jsonl": _json_rows, ".parquet": _parquet_rows}


def _row(place: _Place, values: Mapping[str, object]) -> _Row:
    label = values.get("label")
    several = label if isinstance(label, list) else [label]
    names = {_text(place, "label", each) for each in several}
    fields = {name: _text(place, name, values.get(name)) for name in ("file_name", "split", "group")}
    row = _Row(place, names=tuple(sorted(names)), **fields)
    if not row.file_name or "" in names:
        empty = "label" if row.file_name else "file_name"
        raise DataError(f"{place}: {empty} is empty. Fill it in or remove the {place.kind}.")
    if row.split and row.split.lower() not in SPLIT_NAMES:
        raise DataError(f"{place}: unknown split '{row.split}'; expected train, val or test.")
    return row


def _text(place: _Place, name: str, value: object) -> str:
    """A field as text. A number is a fine label in JSON, and blanks around a name in CSV are never meant."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{place}: {name} is {json.dumps(value, default=str)[:80]}; expected a name.")
    text = str(value)
    if name == "file_name":
        return text
    if readable_name(text) != text:
        raise DataError(f"{place}: {name} is not valid Unicode text.")
    return text.strip()


def _check_splits(path: Path, rows: tuple[_Row, ...]) -> None:
    empty = next((row for row in rows if not row.split), None)
    if empty and any(row.split for row in rows):
        where = f"{empty.place.kind} {empty.place.number}"
        raise DataError(f"{path}: split is empty in {where}; give every row a split or none.")


def _check_bars(rows: tuple[_Row, ...]) -> None:
    """Sets of names are written with bars between, in CSV and in a run's tables."""
    for row in rows:
        for name in row.names:
            if BETWEEN_NAMES in name:
                raise DataError(
                    f"{row.place}: the name '{name}' holds '{BETWEEN_NAMES}', which parts the names of pictures that "
                    "have several. Give it another name."
                )


def _images(path: Path, rows: tuple[_Row, ...]) -> tuple[ImageFile, ...]:
    is_multi_label = any(len(row.names) != 1 for row in rows)
    if is_multi_label:
        _check_bars(rows)
    seen: dict[str, _Row] = {}
    images = []
    for row in rows:
        where = os.path.normpath(path.parent / row.file_name)
        first = seen.setdefault(where, row)
        if first is not row:
            lines = f"{path}, {row.place.kind}s {first.place.number} and {row.place.number}"
            name = readable_name(row.file_name)
            if first.label != row.label:
                raise DataError(f"{lines}: '{name}' is labelled '{first.label}' and '{row.label}'. Keep one of them.")
            raise DataError(f"{lines}: duplicate row for '{name}'. Remove one of them.")
        image = ImageFile(
            path.parent / row.file_name,
            PurePath(row.file_name).as_posix(),
            row.label,
            "",
            row.group or None,
            SPLIT_NAMES.get(row.split.lower()),
            row.names if is_multi_label else None,
        )
        images.append(image)
    return tuple(images)
