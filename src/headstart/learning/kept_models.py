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
import os
from pathlib import Path

from headstart.cache import cache_folder, code_sha256, file_sha256, read_sealed, write_atomically, write_sealed
from headstart.networks.backend import backend_name, keras_version

_CHUNK = 1 << 22
_SOURCE = Path(__file__).parents[1]


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
    """A hash of facts, each plain or bytes, and of the code and the versions that make models of them."""
    code = [code_sha256(_SOURCE / room) for room in ("learning", "features", "networks", "pictures")]
    digest = hashlib.sha256(json.dumps([code, keras_version(), backend_name()]).encode())
    for fact in facts:
        data = fact if isinstance(fact, bytes) else json.dumps(fact).encode()
        digest.update(f"{type(fact).__name__} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()


def copy_kept(identity: str, path: Path) -> KeptModel | None:
    """Copy a model that was saved before to ``path``; None where there is none, or not as it was written."""
    kept = _read(identity)
    if kept is None:
        return None
    digest = hashlib.sha256()
    try:
        with Path(kept.path).open("rb") as source, write_atomically(path) as target:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
            if digest.hexdigest() != kept.sha256:
                raise _ChangedError
    except (FileNotFoundError, NotADirectoryError, PermissionError, IsADirectoryError, _ChangedError):
        return None
    return kept


def keep(identity: str, path: Path, check: str) -> None:
    """Note where a model was saved and what came of asking it. A cache that cannot be written costs time alone."""
    note = {"identity": identity, "path": str(path.resolve()), "sha256": file_sha256(path), "check": check}
    with contextlib.suppress(OSError):
        write_sealed(_note(identity), json.dumps(note).encode())


def _read(identity: str) -> KeptModel | None:
    try:
        data = read_sealed(_note(identity))
    except OSError:
        return None
    if data is None:
        return None
    note = json.loads(bytes(data))
    if note.pop("identity") != identity:  # A file that was given another's name.
        return None
    with contextlib.suppress(OSError):
        os.utime(_note(identity))  # `headstart cache prune` removes what was not used for longest.
    return KeptModel(**note)


def _note(identity: str) -> Path:
    return cache_folder("heads") / f"{identity[:32]}.saved"
