"""Where headstart keeps what is slow to get: weights, features, networks, heads. And the one way it writes a file."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import platformdirs

_UMASK_LOCK = threading.Lock()
_SEAL_BYTES = 32  # Of SHA-256.


def cache_folder(part: str) -> Path:
    """The folder of one part of the cache ("weights", "heads", ...): under ``HEADSTART_CACHE``, else the platform's."""
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
        put_in_place(Path(temporary), path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # A full disk does not say which.
            error.filename = str(path)
        raise


def put_in_place(finished: Path, path: Path) -> None:
    """Give a finished file its final name, on disk and for everyone whom the user's settings let read files."""
    with finished.open("r+b") as file:
        os.fsync(file.fileno())
    finished.chmod(0o666 & ~_umask())
    finished.replace(path)
    _flush_folder(path.parent)


def write_sealed(path: Path, data: bytes | memoryview) -> None:
    """Write a file atomically, a hash of the data before it, by which `read_sealed` knows it again."""
    with write_atomically(path) as file:
        file.write(hashlib.sha256(data).digest())
        file.write(data)


def read_sealed(path: Path) -> memoryview | None:
    """What `write_sealed` wrote; None where it is not that, not there, or not to be read."""
    try:
        read = memoryview(path.read_bytes())
    except OSError:
        return None
    seal, data = read[:_SEAL_BYTES], read[_SEAL_BYTES:]
    return data if hashlib.sha256(data).digest() == seal else None


def read_kept(path: Path) -> memoryview | None:
    """The same of a file that can be made again: `headstart cache prune` removes what was not read for longest."""
    data = read_sealed(path)
    if data is not None:
        with contextlib.suppress(OSError):
            os.utime(path)
    return data


def unfinished(path: Path, suffix: str = "") -> Path:
    """Where the cache keeps what belongs to a file that is still on its way: a hidden folder beside it, made here."""
    folder = path.parent / ".partial"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / (path.name + suffix)


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of one file in the cache against every other thread and process.

    The operating system keeps it, so that a process that dies lets go. Whoever had to wait should look again whether
    the work is done already.

    Args:
        path: the file; it need not exist.
        waiting: called once should someone else hold the lock.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(unfinished(path, ".lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hashes(path: Path) -> tuple[str, str]:
    """The SHA-256 and the MD5 of a file's content, in hexadecimal, in one reading."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
            md5.update(chunk)
    return sha256.hexdigest(), md5.hexdigest()


@functools.cache
def code_sha256(folder: Path) -> str:
    """The hash of the Python code in a folder: what it made is kept under it, so that a change is never missed."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        code = path.read_bytes()
        digest.update(f"{path.name} {len(code)}\n".encode())
        digest.update(code)
    return digest.hexdigest()


def _umask() -> int:
    with _UMASK_LOCK:  # It can only be read by setting it; two threads at once would leave it at 0.
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
