"""Where headstart keeps what is slow to get: weights and features. And the one way it writes a file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import platformdirs


def cache_folder(part: str) -> Path:
    """The folder of one part of the cache ("weights", "features"): under ``HEADSTART_CACHE``, else the platform's."""
    chosen = os.environ.get("HEADSTART_CACHE")
    root = Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("headstart", appauthor=False)
    return root / part


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[BinaryIO]:
    """Write a file whole or not at all: a temporary file beside it, flushed to disk, then put in its place.

    Should anything go wrong, what stood at ``path`` before stands there still.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
        _flush_folder(path.parent)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # A full disk does not say which.
            error.filename = str(path)
        raise


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush_folder(folder: Path) -> None:
    """Make the new name survive a power cut too, where the platform lets a folder be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
