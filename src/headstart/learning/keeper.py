"""The state of training on disk: whole or not there, two generations, each with its own hash.

Whoever is killed goes on where the newest whole generation stands; everything random is settled by the seed and the
number of the step, so the end is the same to the bit. A generation that is damaged is passed over for the other one;
where both are, that is said, and nothing is trained on what is left of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.cache import read_sealed, write_sealed
from headstart.errors import RunError

Arrays = Mapping[str, Sequence[npt.NDArray[Any]]]


@dataclasses.dataclass(frozen=True)
class Saved:
    """What was kept.

    Attributes:
        facts: plain values.
        arrays: lists of arrays by name.
        fallback: whether the newest generation was damaged and this is the one before.
    """

    facts: dict[str, Any]
    arrays: dict[str, list[npt.NDArray[Any]]]
    fallback: bool


class Keeper:
    """Keeps the state of one training in two files that are written in turn."""

    def __init__(self, folder: Path, name: str, identity: str) -> None:
        """Take where to keep it.

        Args:
            folder: exists.
            name: what the files are called.
            identity: what tells this training from every other; the state of another one is never read.
        """
        self._paths = [folder / f"{name}-{generation}.state" for generation in (0, 1)]
        self._identity = hashlib.sha256(identity.encode()).hexdigest()
        self._count = 0

    def save(self, facts: Mapping[str, Any], arrays: Arrays) -> None:
        """Write a generation over the older of the two.

        Raises:
            RunError: it cannot be written.
        """
        self._count += 1
        names = {name: len(values) for name, values in arrays.items()}
        header = {"identity": self._identity, "count": self._count, "names": names, "facts": dict(facts)}
        stream = io.BytesIO()
        flat = {f"{name}.{number}": value for name, values in arrays.items() for number, value in enumerate(values)}
        np.savez(stream, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **flat)  # type: ignore[arg-type]
        path = self._paths[self._count % 2]
        try:
            write_sealed(path, stream.getbuffer())
        except OSError as error:
            raise RunError(f"The state of the training cannot be written to {path}: {error.strerror}.") from error

    def load(self) -> Saved | None:
        """The newest whole generation of this training, or None where there is none.

        Raises:
            RunError: there is something, and all of it is damaged.
        """
        there = [path for path in self._paths if path.exists()]
        read = [found for path in there if (found := _read(path))]
        if there and not read:
            raise RunError(
                f"The state of an interrupted training is damaged: {' and '.join(map(str, there))}. Nothing was "
                f"trained on it. Delete {'them' if len(there) > 1 else 'it'} to train from the start."
            )
        mine = [header for header in read if header[0].get("identity") == self._identity]
        if not mine:
            return None
        header, arrays = max(mine, key=lambda each: each[0]["count"])
        self._count = header["count"]
        return Saved(header["facts"], arrays, len(read) < len(there))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, list[npt.NDArray[Any]]]] | None:
    try:
        data = read_sealed(path)
        if data is None:
            return None
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            header = json.loads(stored["header"].tobytes())
            names = header["names"]
            return header, {name: [stored[f"{name}.{number}"] for number in range(names[name])] for name in names}
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
