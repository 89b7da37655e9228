"""Reads HDF5 files with suspicion: numbers and names, in the file itself, no larger than what is expected of them.

Links to other files are not followed. No array is read before its shape is known to be right, so that a file cannot
claim more memory than the network needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import WeightsError

_MAX_SPARE_BYTES = 50_000_000


class UnreadableError(Exception):
    """What is wrong with the file itself."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A file of weights to read from; whatever is wrong with it ends in one error that names it.

    Raises:
        WeightsError: it is no HDF5 file, or is damaged.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except WeightsError:
        raise
    except UnreadableError as error:
        raise WeightsError(f"{path} was not read: {error}") from error
    except Exception as error:  # h5py raises OSError, KeyError, RuntimeError, ... for what is damaged.
        raise WeightsError(f"{path} is not a Keras weights file, or is damaged ({error}).") from error


def array(dataset: Any, name: str) -> npt.NDArray[Any]:
    """The numbers of a dataset whose shape is known to be right."""
    chunk = int(np.prod(dataset.chunks or (0,), dtype=object)) * dataset.dtype.itemsize
    if dataset.external or dataset.is_virtual or chunk > dataset.nbytes + _MAX_SPARE_BYTES:
        raise UnreadableError(f"layer '{name}' keeps its numbers in another file, or in pieces larger than itself.")
    values = np.asarray(dataset)
    if text(dataset.attrs.get("dtype", "")) == "bfloat16":
        import ml_dtypes

        values = values.view(ml_dtypes.bfloat16).astype(np.float32)
    if values.dtype.kind not in "fiu":
        raise UnreadableError(f"layer '{name}' holds {values.dtype}, not numbers.")
    return values


def has(group: Any, name: str) -> bool:
    """Whether there is such a link; Python's ``in`` would follow it."""
    return group.get(name, getlink=True) is not None


def member(group: Any, name: str) -> Any:
    """What lies in the file itself under a name, which may have slashes."""
    import h5py

    for part in filter(None, name.split("/")):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise KeyError(f"{name} is missing, or lies in another file")
        group = group[part]
    return group


def texts(group: Any, attribute: str) -> list[str]:
    """A list of names; Keras splits one above 64 kB into "layer_names0", "layer_names1", ..."""
    if attribute in group.attrs:
        return [text(name) for name in group.attrs[attribute]]
    chunks: list[str] = []
    number = 0
    while f"{attribute}{number}" in group.attrs:
        chunks += map(text, group.attrs[f"{attribute}{number}"])
        number += 1
    return chunks


def text(name: Any) -> str:
    """A name, whichever way HDF5 gives it."""
    return name.decode("utf-8") if isinstance(name, bytes) else str(name)
