"""The rows of a Parquet file, read by pyarrow in a process of its own, since some damaged files end their reader.

(pyarrow 26 does, on a changed byte in the statistics: "Definition level histogram size mismatch".)
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from headstart.errors import DataError, MissingExtraError

MAX_ROWS = 10_000_000
"""A few bytes of a hostile file can stand for any number of rows."""

MAX_BYTES = 1_000_000_000
"""What the columns that are read may come to when they are decompressed, by what the file says."""

_READER = Path(__file__).with_name("parquet_reader.py")


def parquet_rows(path: Path, columns: Sequence[str], check: Callable[[list[str]], None]) -> Iterator[dict[str, object]]:
    """Read some columns, row by row, as plain values.

    Args:
        path: the file.
        columns: those to read, where they are there.
        check: called with the names of all columns.

    Raises:
        DataError: it is no Parquet file, damaged, or too large.
        MissingExtraError: pyarrow is not installed.
    """
    if not _has_pyarrow():
        raise MissingExtraError("Reading a Parquet manifest", "pyarrow", "parquet")
    command = [sys.executable, "-P", str(_READER), str(path), *columns]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        try:
            lines = _lines(path, child.stdout)
            header = next(lines)
            check(header["columns"])
            _check_size(path, header["num_rows"], header["num_bytes"])
            for values in lines:
                yield dict(zip(header["taken"], values, strict=True))
        finally:
            child.kill()


def _has_pyarrow() -> bool:
    with contextlib.suppress(ValueError):  # What is in sys.modules without a specification.
        return importlib.util.find_spec("pyarrow") is not None
    return False


def _lines(path: Path, stream: Any) -> Iterator[Any]:
    """What the reader says, up to the null with which it ends."""
    for line in stream:
        said = json.loads(line)
        if said is None:
            return
        if isinstance(said, dict) and "error" in said:
            raise _unreadable(path, said["error"])
        yield said
    raise _unreadable(path, "it is damaged in a way that ended its reader")


def _check_size(path: Path, num_rows: int, num_bytes: int) -> None:
    if num_rows > MAX_ROWS or num_bytes > MAX_BYTES:
        raise DataError(
            f"{path} holds {num_rows:,} rows and {num_bytes / 1e6:,.0f} MB; the limits for a manifest are "
            f"{MAX_ROWS:,} rows and {MAX_BYTES / 1e6:,.0f} MB. Split it into several."
        )


def _unreadable(path: Path, reason: str) -> DataError:
    short = " ".join(reason.split())[:200].rstrip(".")
    return DataError(f"{path} cannot be read as Parquet: {short}. Write it again, or use .csv or .jsonl.")
