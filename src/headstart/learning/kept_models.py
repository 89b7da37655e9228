"""Models that were saved before: one that would be built, written, read back and asked again is copied instead.

In the cache lies a note of where it was written, its hash and what it answered, under a hash of all that decides it.
The file itself stays in its run folder; where it is gone, or is not what was written any more, the note is worth
nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

from headstart.cache import cache_folder, code_sha256, file_sha256, read_kept, write_atomically, write_sealed
from headstart.networks.backend import backend_name, backend_version, keras_version

_CHUNK = 1 << 22
_ROOMS = ("learning", "features", "networks", "pictures")
_CODE = [version("headstart"), *(code_sha256(Path(__file__).parents[1] / room) for room in _ROOMS)]
"""Of what runs: taken now, since the files may be replaced while a long fit goes on."""


class _ChangedError(Exception):
    """The file is not what was written."""


@dataclasses.dataclass(frozen=True)
class KeptModel:
    """A note of a model.

    Attributes:
        path: its file.
        sha256: of that.
        check: what came of asking it, in a sentence.
    """

    path: str
    sha256: str
    check: str


def identity_of(*facts: object) -> str:
    """A hash of facts, each plain or bytes, and of the code and the versions that make and ask models of them."""
    versions = keras_version(), backend_name(), backend_version(), version("pillow")
    digest = hashlib.sha256(json.dumps([_CODE, versions]).encode())
    for fact in facts:
        data = fact if isinstance(fact, bytes) else json.dumps(fact).encode()
        digest.update(f"{type(fact).__name__} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()


def find_kept(identity: str) -> KeptModel | None:
    """A model that was saved before, if it still lies where it was written, as it was written."""
    kept = _read(identity)
    return kept if kept and _is_as_it_was(kept) else None


def _is_as_it_was(kept: KeptModel) -> bool:
    try:
        return file_sha256(Path(kept.path)) == kept.sha256
    except OSError:  # It went; or what it lies on is not there.
        return False


def copy_model(kept: KeptModel, path: Path) -> bool:
    """Copy a model that was found to ``path``; returns whether it still was what was written.

    Raises:
        OSError: it cannot be written there.
    """
    if Path(kept.path) == path.resolve():  # The same run again; Windows replaces no file that is open.
        return _is_as_it_was(kept)
    try:
        source = Path(kept.path).open("rb")  # noqa: SIM115  Its troubles are not those of the target.
    except OSError:
        return False
    digest = hashlib.sha256()
    with contextlib.suppress(_ChangedError), source, write_atomically(path) as target:
        while chunk := _chunk(source):
            digest.update(chunk)
            target.write(chunk)
        if digest.hexdigest() != kept.sha256:
            raise _ChangedError
        return True
    return False


def _chunk(source: BinaryIO) -> bytes:
    try:
        return source.read(_CHUNK)
    except OSError as error:
        raise _ChangedError from error


def keep(identity: str, path: Path, check: str) -> None:
    """Note where a model was saved and what came of asking it. A cache that cannot be written costs time alone."""
    note = {"identity": identity, "path": str(path.resolve()), "sha256": file_sha256(path), "check": check}
    with contextlib.suppress(OSError):
        write_sealed(_note(identity), json.dumps(note).encode())


def _read(identity: str) -> KeptModel | None:
    data = read_kept(_note(identity))
    if data is None:
        return None
    note = json.loads(bytes(data))
    if note.pop("identity") != identity:  # A file that was given another's name.
        return None
    return KeptModel(**note)


def _note(identity: str) -> Path:
    return cache_folder("heads") / f"{identity[:32]}.saved"
