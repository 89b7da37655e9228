"""Reads ``.safetensors`` files: a JSON table of contents and, after it, the numbers.

https://github.com/huggingface/safetensors#format. The file is mapped, not read: what is not used takes no memory. The
table must cover the rest of the file without gaps or overlaps, as the format asks, so no file can claim more than it
holds.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from headstart.errors import WeightsError
from headstart.networks.torch_checkpoint import Tensors, bfloat16, plain_names

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "?",
}  # fmt: skip
_MAX_HEADER_BYTES = 10_000_000  # A tensor takes about 100.
_MAX_SIDES = 32

_Entry = tuple[str, tuple[int, ...], int, int]
"""Kind of number, shape, and where its bytes begin and end."""


def read_safetensors(path: str | Path) -> Tensors:
    """The tensors of a file by name; bfloat16 becomes float32.

    Raises:
        WeightsError: the file is no such file, or is damaged.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
                raise WeightsError(f"it does not begin as a .safetensors file does (a header of {length} bytes).")
            entries = _entries(file.read(length))
        _check_places(entries, size - 8 - length)
        numbers = np.memmap(path, np.uint8, "r", offset=8 + length) if size > 8 + length else np.zeros(0, np.uint8)
        return plain_names({name: _tensor(entry, numbers) for name, entry in entries.items()})
    except WeightsError as error:
        raise WeightsError(f"{path} was not read: {error}") from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError, MemoryError) as error:  # Of the JSON.
        raise WeightsError(
            f"{path} is not a .safetensors file, or is damaged: its header is not JSON ({type(error).__name__})."
        ) from error


def _entries(header: bytes) -> dict[str, _Entry]:
    table = json.loads(header.decode("utf-8"), object_pairs_hook=_once)
    if not isinstance(table, dict):
        raise WeightsError("its header is no table of tensors.")
    table.pop("__metadata__", None)
    if not table:
        raise WeightsError("it holds no tensor.")
    return {name: _entry(name, facts) for name, facts in table.items()}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, where no name may come twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise WeightsError("its header has a name twice.")
    return found


def _entry(name: str, facts: Any) -> _Entry:
    shown = name[:80]
    if not isinstance(facts, dict) or not {"dtype", "shape", "data_offsets"} <= facts.keys():
        raise WeightsError(f"its header says too little about tensor '{shown}'.")
    kind, shape, offsets = facts["dtype"], facts["shape"], facts["data_offsets"]
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise WeightsError(
            f"tensor '{shown}' holds numbers of the kind {str(kind)[:20]!r}; these are read: {', '.join(_DTYPES)}."
        )
    if not _whole(shape) or not _whole(offsets) or len(shape) > _MAX_SIDES or len(offsets) != 2:
        raise WeightsError(f"the shape or place of tensor '{shown}' makes no sense.")
    if offsets[1] - offsets[0] != math.prod(shape) * np.dtype(_DTYPES[kind]).itemsize:
        raise WeightsError(f"tensor '{shown}' has more or fewer bytes than its shape needs.")
    return kind, tuple(shape), offsets[0], offsets[1]


def _whole(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(each) is int and 0 <= each < 2**63 for each in numbers)


def _check_places(entries: dict[str, _Entry], size: int) -> None:
    end = 0
    for _, _, begin, until in sorted(entries.values(), key=lambda entry: entry[2:]):
        if begin != end:
            raise WeightsError("its tensors overlap, or leave a gap.")
        end = until
    if end != size:
        raise WeightsError(f"its tensors take {end} bytes; it has {size}: it was cut off, or is damaged.")


def _tensor(entry: _Entry, numbers: Any) -> Any:
    kind, shape, begin, end = entry
    values = numbers[begin:end].view(_DTYPES[kind])
    return (bfloat16(values) if kind == "BF16" else values).reshape(shape)
