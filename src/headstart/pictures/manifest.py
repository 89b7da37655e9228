"""Read a manifest: a CSV or JSONL file that names the pictures and their labels.

Columns (or keys): ``file_name`` relative to the manifest, ``label``, optionally ``split`` and ``group``; others are
ignored. A mistake in the manifest is a `DataError` with its line number; a missing picture is left for `scan` to skip.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from headstart.errors import DataError
from headstart.pictures.decode import why_unreadable
from headstart.pictures.folder import ImageFile, readable_name

MANIFEST_SUFFIXES = (".csv", ".jsonl")

MAX_BYTES = 1_000_000_000
"""The largest manifest that is read: about ten million rows."""

MAX_LINE = 1_000_000
"""The longest line in characters; without a limit a file with no line ends would be held in memory whole."""

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""How people write the three splits, in lower case, and what headstart calls them."""


@dataclasses.dataclass(frozen=True)
class _Row:
    line: int
    file_name: str
    label: str
    split: str
    group: str


def read_manifest(path: Path) -> tuple[ImageFile, ...]:
    """Read the rows of a manifest in their order, without looking at the pictures: every ``sha256`` is still empty.

    Raises:
        DataError: the manifest cannot be read or says something that cannot be; the message holds the line number.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        convert = f"pandas.read_parquet({path.name!r}).to_csv({path.stem + '.csv'!r}, index=False)"
        raise DataError(f"{path} is a Parquet file, which is not read yet. Convert it: {convert}")
    if suffix not in MANIFEST_SUFFIXES:
        raise DataError(
            f"{path} is not a manifest; expected a folder with one sub-folder per class, or a manifest whose name ends "
            "in .csv or .jsonl."
        )
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is larger than 1 GB, the limit for a manifest. Split it into several.")
        with path.open("rb") as file:
            rows = tuple((_csv_rows if suffix == ".csv" else _json_rows)(path, _lines(path, file)))
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


def _csv_rows(path: Path, lines: Iterator[str]) -> Iterator[_Row]:
    reader = csv.reader(lines, strict=True)
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
            yield _row(path, reader.line_num, dict(zip(columns, values, strict=False)))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV as expected ({error}).") from error


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


def _json_rows(path: Path, lines: Iterator[str]) -> Iterator[_Row]:
    for number, line in enumerate(lines, start=1):
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
        yield _row(path, number, values)


def _row(path: Path, line: int, values: Mapping[str, object]) -> _Row:
    label = values.get("label", "")
    if isinstance(label, list):
        raise DataError(f"{path}, line {line}: several labels in one image are not supported yet. Give one name.")
    fields = {name: _text(path, line, name, values.get(name)) for name in ("file_name", "label", "split", "group")}
    row = _Row(line, **fields)
    for name in ("file_name", "label"):
        if not fields[name]:
            raise DataError(f"{path}, line {line}: {name} is empty. Fill it in or remove the line.")
    if row.split and row.split.lower() not in SPLIT_NAMES:
        raise DataError(f"{path}, line {line}: unknown split '{row.split}'; expected train, val or test.")
    return row


def _text(path: Path, line: int, name: str, value: object) -> str:
    """A field as text. A number is a fine label in JSON, and blanks around a name in CSV are never meant."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{path}, line {line}: {name} is {json.dumps(value)[:80]}; expected a name.")
    text = str(value)
    if name == "file_name":
        return text
    if readable_name(text) != text:
        raise DataError(f"{path}, line {line}: {name} is not valid Unicode text.")
    return text.strip()


def _check_splits(path: Path, rows: tuple[_Row, ...]) -> None:
    empty = next((row for row in rows if not row.split), None)
    if empty and any(row.split for row in rows):
        raise DataError(f"{path}: split is empty in line {empty.line}; give every row a split or none.")


def _images(path: Path, rows: tuple[_Row, ...]) -> tuple[ImageFile, ...]:
    seen: dict[str, _Row] = {}
    images = []
    for row in rows:
        where = os.path.normpath(path.parent / row.file_name)
        first = seen.setdefault(where, row)
        if first is not row:
            lines = f"{path}, lines {first.line} and {row.line}"
            name = readable_name(row.file_name)
            if first.label != row.label:
                raise DataError(f"{lines}: '{name}' is labelled '{first.label}' and '{row.label}'. Keep one of them.")
            raise DataError(f"{lines}: duplicate row for '{name}'. Remove one of them.")
        split = SPLIT_NAMES.get(row.split.lower())
        name = PurePath(row.file_name).as_posix()
        images.append(ImageFile(path.parent / row.file_name, name, row.label, "", row.group or None, split))
    return tuple(images)
