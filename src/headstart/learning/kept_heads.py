"""Linear heads, kept in the cache: what was fitted once on the same numbers is not fitted again.

A head is kept under the hash of all that decides it: every feature, label and unit, the seed, what the head may not do,
and the code that fits it. What is damaged counts as not there, and is written anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import scipy

from headstart.cache import cache_folder, code_sha256, read_kept, write_sealed
from headstart.features.blocks import Unheard
from headstart.learning.held_out import HeldOut
from headstart.learning.logistic import FREE, Labels, LinearHead, Matrix, Restraint, fit_linear_head

_ROWS_AT_ONCE = 4096  # What is not contiguous is copied to be hashed.
_MOST_BYTES = 500_000_000  # Of all that are kept; the least recently used go.
_CODE = (version("headstart"), code_sha256(Path(__file__).parent))
"""Of what runs: taken now, since the files may be replaced while a long fit goes on."""


def linear_head(
    features: Matrix,
    labels: Labels,
    num_classes: int,
    units: Labels,
    *,
    seed: int,
    blocks: Sequence[int] = (),
    restraint: Restraint = FREE,
) -> LinearHead:
    """What `fit_linear_head` makes of the same arguments; where it has made it before, as it was kept.

    A cache that cannot be read or written costs the time of fitting, nothing else.
    """
    facts = {
        "num_classes": int(num_classes),
        "seed": int(seed),
        "blocks": [(int(block), isinstance(block, Unheard)) for block in blocks],
        "restraint": dataclasses.asdict(restraint),
        "code": (_CODE, np.__version__, scipy.__version__),
    }
    identity = _identity(facts, features, labels, units)
    path = cache_folder("heads") / f"{identity[:32]}.head"
    if kept := _read(path, identity):
        return kept
    head = fit_linear_head(features, labels, num_classes, units, seed=seed, blocks=blocks, restraint=restraint)
    with contextlib.suppress(OSError):
        write_sealed(path, _packed(head, identity))
        _make_room(path.parent)
    return head


def _make_room(folder: Path) -> None:
    """Remove the least recently used: nested cross-validation fits heads by the thousand."""
    kept = sorted(((path.stat(), path) for path in folder.glob("*.head")), key=lambda each: each[0].st_mtime)
    excess = sum(status.st_size for status, _ in kept) - _MOST_BYTES
    for status, path in kept:
        if excess <= 0:
            break
        path.unlink(missing_ok=True)
        excess -= status.st_size


def _identity(facts: dict[str, object], *arrays: Matrix | Labels) -> str:
    digest = hashlib.sha256(json.dumps(facts, default=np.ndarray.tolist).encode())
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        for start in range(0, len(array), _ROWS_AT_ONCE):
            digest.update(np.ascontiguousarray(array[start : start + _ROWS_AT_ONCE]).data)
    return digest.hexdigest()


def _packed(head: LinearHead, identity: str) -> memoryview:
    stream = io.BytesIO()
    np.savez(
        stream,
        identity=identity,
        kernel=head.kernel,
        bias=head.bias,
        strength=head.strength,
        losses=head.held_out.losses,
        right=head.held_out.right,
        is_multi_label=head.is_multi_label,
    )
    return stream.getbuffer()


def _read(path: Path, identity: str) -> LinearHead | None:
    data = read_kept(path)
    if data is None:
        return None
    with np.load(io.BytesIO(data), allow_pickle=False) as kept:
        if kept["identity"] != identity:  # A file that was given another's name.
            return None
        held_out = HeldOut(kept["losses"], kept["right"])
        return LinearHead(kept["kernel"], kept["bias"], float(kept["strength"]), held_out, bool(kept["is_multi_label"]))
