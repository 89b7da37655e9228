"""The weights in the cache: what each file should be, and whether it still is that.

Beside each file lies a record (``NAME.json``) of where it came from and its SHA-256. Three things can be known of a
file: a hash that its publisher pins, the hash recorded when it came, or neither; then it is trusted on first use, and
recorded.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from contextlib import suppress
from pathlib import Path

from headstart.cache import cache_folder, file_hashes, put_in_place, write_atomically
from headstart.errors import WeightsError
from headstart.networks.catalogue import CATALOGUE
from headstart.networks.rows import BackboneSpec, PackagedWeights, WeightsFile

BY_HAND = "put there by hand"


@dataclasses.dataclass(frozen=True)
class Pin:
    """The hashes that are published for a file, or None for those that are not."""

    md5: str | None = None
    sha256: str | None = None


@dataclasses.dataclass(frozen=True)
class CachedFile:
    """A file of weights, and whether it is what it should be.

    Attributes:
        path: the file.
        source: where it came from.
        size: in bytes.
        sha256: the hash it has now.
        status: how that is known to be right: "pinned" (by its publisher), "recorded" (when it came) or "first use".
        problem: in a sentence, or "".
    """

    path: Path
    source: str
    size: int
    sha256: str
    status: str
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.problem


@dataclasses.dataclass(frozen=True)
class Record:
    """What is written down beside a file."""

    source: str
    sha256: str
    size: int | None


class _DamagedRecordError(Exception):
    """It is not what was written."""


def weights_folder() -> Path:
    """Where weights are kept."""
    return cache_folder("weights")


def pin_of(file: WeightsFile | PackagedWeights) -> Pin:
    """What is published about a file of the catalogue."""
    return Pin(sha256=file.sha256) if isinstance(file, PackagedWeights) else Pin(file.md5, file.sha256)


@functools.cache
def known_files() -> dict[str, tuple[BackboneSpec, WeightsFile | PackagedWeights]]:
    """Every file that the catalogue speaks of, by its name in the cache."""
    files: dict[str, tuple[BackboneSpec, WeightsFile | PackagedWeights]] = {}
    for spec in CATALOGUE:
        for file in (spec.weights, spec.packaged):
            if file:
                files.setdefault(file.name, (spec, file))
    return files


def keras_file(spec: BackboneSpec) -> Path | None:
    """The published weights in headstart's cache, or those that Keras downloaded before headstart came."""
    for folder in (weights_folder(), Path.home() / ".keras" / "models"):
        if (folder / spec.weights.name).is_file():
            return folder / spec.weights.name
    return None


def is_cached(spec: BackboneSpec, source: str) -> bool:
    """Whether published or "packaged" weights of a backbone need no fetching."""
    return cached_path(spec, source) is not None


def cached_path(spec: BackboneSpec, source: str) -> Path | None:
    """The file of published or "packaged" weights of a backbone, or None where it has to be fetched."""
    if source == spec.published:
        return keras_file(spec)
    path = weights_folder() / spec.packaged.name if spec.packaged else None
    return path if path and path.is_file() else None


def cached_files() -> list[CachedFile]:
    """Every file of weights in the cache, each hashed anew; those seen for the first time are recorded."""
    folder = weights_folder()
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [examine(path) for path in paths if path.is_file() and path.suffix != ".json" and path.name[0] != "."]
    for file in found:
        remember(file)
    return found


def check(path: Path, pin: Pin) -> CachedFile:
    """Hash a file that is about to be used.

    Raises:
        WeightsError: it is not what it should be.
    """
    file = examine(path, pin)
    if not file.ok:
        raise WeightsError(
            f"{path}: {file.problem} Delete it and {path.name}.json beside it, then run 'headstart weights pull' again."
        )
    remember(file)
    return file


def examine(path: Path, pin: Pin | None = None) -> CachedFile:
    """Hash a file and hold it against its published hashes and its record."""
    if pin is None:
        pin = pin_of(known_files()[path.name][1]) if path.name in known_files() else Pin()
    try:
        sha256, md5 = file_hashes(path)
        size = path.stat().st_size
    except OSError as error:
        return CachedFile(path, "unknown", 0, "", "first use", f"it cannot be read ({error.strerror}).")
    try:
        record = _read_record(path)
    except _DamagedRecordError:
        return CachedFile(
            path,
            "record damaged",
            size,
            sha256,
            "recorded",
            f"{path.name}.json beside it cannot be read, or is damaged.",
        )
    problem = _problem(pin, record, sha256, md5, size)
    status = "pinned" if pin.sha256 or pin.md5 else "recorded" if record else "first use"
    return CachedFile(path, record.source if record else BY_HAND, size, sha256, status, problem)


def _problem(pin: Pin, record: Record | None, sha256: str, md5: str, size: int) -> str:
    if pin.sha256 and sha256 != pin.sha256:
        return f"its SHA-256 is {sha256}; the published one is {pin.sha256}."
    if record and sha256 != record.sha256:
        return f"its SHA-256 is {sha256}; when it came it was {record.sha256}."
    if record and record.size not in {None, size}:
        return f"it has {size} bytes; when it came it had {record.size}."
    if pin.md5 and md5 != pin.md5:
        return f"its MD5 is {md5}; the published one is {pin.md5}."
    return ""


def remember(file: CachedFile) -> None:
    """Record a good file of the cache that has no record yet. A cache that cannot be written is left as it is."""
    if file.ok and file.path.parent == weights_folder() and not _record_path(file.path).exists():
        with suppress(OSError):
            write_record(file.path, file.source, file.sha256, file.size)


def settle(finished: Path, path: Path, source: str, sha256: str) -> None:
    """Put a file whose hash was checked into the cache: first its record, so that no moment is without one."""
    write_record(path, source, sha256, finished.stat().st_size)
    put_in_place(finished, path)


def write_record(path: Path, source: str, sha256: str, size: int) -> None:
    """Write down where a file came from and what it is."""
    with write_atomically(_record_path(path)) as file:
        file.write(_encode({"source": source, "sha256": sha256, "size": size}))


def _encode(facts: dict[str, object]) -> bytes:
    check = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return json.dumps({**facts, "check": check}, indent=2).encode()


def _read_record(path: Path) -> Record | None:
    """The record beside a file, or None where there is none.

    The record has a hash of itself, and is compared byte by byte, so that none of its bits can flip unnoticed.
    """
    try:
        with _record_path(path).open("rb") as file:
            raw = file.read(100_000)
        facts = json.loads(raw)
        record = Record(facts["source"], facts["sha256"], facts.get("size"))
        del facts["sha256"], facts["source"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _DamagedRecordError from error
    whole = raw == _encode(dataclasses.asdict(record))
    early = not set(facts) - {"size"}  # The first records had no hash of themselves.
    if (
        not (whole or early)
        or not isinstance(record.source, str)
        or not re.fullmatch("[0-9a-f]{64}", str(record.sha256))
    ):
        raise _DamagedRecordError
    return record


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")
