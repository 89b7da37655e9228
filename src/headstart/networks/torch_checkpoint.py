"""Reads PyTorch checkpoints as tensors and nothing else. PyTorch is not needed, and no code in the file can run.

Both layouts are read: the zip archive of PyTorch >= 1.6, and the older row of pickles followed by raw storages
(https://github.com/pytorch/pytorch/blob/main/torch/serialization.py). The unpickler knows four names; any other is
refused before it is looked up. Every size is checked against the bytes that are there before anything is allocated.
Before a pickle runs its instructions are looked through, since a few bytes can make Python's unpickler itself take
gigabytes, or overflow its stack.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import io
import operator
import pickle
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from headstart.errors import WeightsError

Tensors = dict[str, npt.NDArray[Any]]

_Any = TypeVar("_Any")

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8", "IntStorage": "<i4",
    "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1", "BoolStorage": "?",
    "BFloat16Storage": "bfloat16",
}  # fmt: skip
_STATES = ("state_dict", "model_state_dict", "model")  # Where training scripts keep the weights.
_WRAPPERS = ("module.", "_orig_mod.")  # What DataParallel and torch.compile put in front of every name.
_MAX_PICKLE_BYTES = 64_000_000
_MAX_MEMO = 1_000_000  # The unpickler allocates as many places as the highest index, which is any number.
_MAX_TUPLES = 40_000  # Hashing tuples nested deeper than about 100,000 overflows the stack. A tensor takes four.


@dataclasses.dataclass(frozen=True)
class _StorageType:
    dtype: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    num_elements: int

    @property
    def itemsize(self) -> int:
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize

    def numbers(self, data: bytes) -> npt.NDArray[Any]:
        """Bytes as numbers. NumPy has no bfloat16."""
        return bfloat16(np.frombuffer(data, "<u2")) if self.dtype == "bfloat16" else np.frombuffer(data, self.dtype)


@dataclasses.dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def bfloat16(bits: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The numbers whose bfloat16 has these 16 bits: the upper half of a float32, so nothing is lost."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def plain_names(tensors: Mapping[str, _Any]) -> dict[str, _Any]:
    """Tensors without what DataParallel and torch.compile put in front of their names.

    Raises:
        WeightsError: two have the same name then.
    """
    plain: dict[str, _Any] = {}
    for name, value in tensors.items():
        inner = name
        while inner.startswith(_WRAPPERS):
            inner = inner.partition(".")[2]
        if inner in plain:
            raise WeightsError(f"it has the tensor '{inner}' twice.")
        plain[inner] = value
    return plain


def read_torch_checkpoint(path: str | Path) -> Tensors:
    """The tensors of a checkpoint by name, such as "features.0.0.weight".

    Args:
        path: a file that ``torch.save`` wrote, holding a state dict, or a dict with one under "state_dict",
            "model_state_dict" or "model".

    Raises:
        WeightsError: the file is no such checkpoint, is damaged, or asks for anything but tensors.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _read_zip(file) if zipfile.is_zipfile(file) else _read_legacy(file)
    except WeightsError as error:
        raise WeightsError(f"{path} was not read: {error}") from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # A hostile pickle can raise anything while it is read.
        raise WeightsError(f"{path} is not a PyTorch checkpoint, or is damaged ({type(error).__name__}).") from error


class _TensorsOnly(pickle.Unpickler):
    """An unpickler that can build dicts, numbers, texts and tensors.

    Attributes:
        storages: every storage that was referred to, by key.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in _STORAGES:
            return _StorageType(_STORAGES[name])
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _parameter
        raise WeightsError(
            f"it asks for {module}.{name}; a checkpoint of weights holds tensors alone. Save it with "
            "torch.save(model.state_dict(), path)."
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _, num_elements = pid[:5]
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise WeightsError("it refers to something that is no tensor.")
        storage = _Storage(str(key), storage_type.dtype, int(num_elements))
        return self.storages.setdefault(storage.key, storage)


def _unpickle(file: BinaryIO) -> tuple[Any, dict[str, _Storage]]:
    """The next pickle of a file, and the storages it refers to."""
    start = file.tell()
    num_tuples = 0
    for instruction, argument, _ in pickletools.genops(file):
        name = instruction.name
        num_tuples += "TUPLE" in name or name == "FROZENSET"
        if ("PUT" in name and int(argument or 0) > _MAX_MEMO) or num_tuples > _MAX_TUPLES:
            raise WeightsError("its index is larger than any network's.")
    file.seek(start)
    unpickler = _TensorsOnly(file)
    return unpickler.load(), unpickler.storages


def _tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _parameter(tensor: _Tensor, *_: Any) -> _Tensor:
    return tensor


def _read_zip(file: BinaryIO) -> Tensors:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            raise WeightsError(
                "it is a TorchScript program, which is never run. Save its weights with "
                "torch.save(torch.jit.load(path).state_dict(), other_path)."
            )
        (pickled,) = [name for name in names if name.endswith("/data.pkl") or name == "data.pkl"]
        if archive.getinfo(pickled).file_size > _MAX_PICKLE_BYTES:
            raise WeightsError("its index is too large.")
        found = _named_tensors(_unpickle(io.BytesIO(archive.read(pickled)))[0])
        folder = pickled.removesuffix("data.pkl")
        values: dict[str, npt.NDArray[Any]] = {}
        for storage in {tensor.storage.key: tensor.storage for tensor in found.values()}.values():
            member = archive.getinfo(f"{folder}data/{storage.key}")
            # Stored, not deflated, as torch writes it: so what is read cannot be larger than the file.
            if member.compress_type != zipfile.ZIP_STORED:
                raise WeightsError("its tensors are compressed.")
            values[storage.key] = storage.numbers(archive.read(member))
    return {name: _view(tensor, values[tensor.storage.key]) for name, tensor in found.items()}


def _read_legacy(file: BinaryIO) -> Tensors:
    file.seek(0, io.SEEK_END)
    size = file.tell()
    file.seek(0)
    (magic, _), _, _, (state, storages) = (_unpickle(file) for _ in range(4))
    if magic != _LEGACY_MAGIC:
        raise WeightsError("it does not begin as a PyTorch checkpoint does.")
    found = _named_tensors(state)
    values: dict[str, npt.NDArray[Any]] = {}
    for key in map(str, _unpickle(file)[0]):
        num_elements = int.from_bytes(file.read(8), "little", signed=True)
        storage = storages[key]
        if not 0 <= num_elements * storage.itemsize <= size - file.tell():
            raise WeightsError("it ends before its tensors do.")
        values[key] = storage.numbers(file.read(num_elements * storage.itemsize))
    return {name: _view(tensor, values[tensor.storage.key]) for name, tensor in found.items()}


def _named_tensors(state: Any) -> dict[str, _Tensor]:
    if not isinstance(state, dict):
        raise WeightsError("it holds no state dict.")
    state = next((state[name] for name in _STATES if isinstance(state.get(name), dict)), state)
    found = plain_names({str(name): value for name, value in state.items() if isinstance(value, _Tensor)})
    if not found:
        raise WeightsError("it holds no tensor.")
    return found


def _view(tensor: _Tensor, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The tensor, after checking that it lies inside its storage.

    No copy: any number of tensors may share a storage, and a file must not claim more memory than it has bytes.
    """
    shape, strides = tensor.shape, tensor.strides
    num_elements = functools.reduce(operator.mul, shape, 1)
    if len(shape) != len(strides) or min((*shape, *strides, tensor.offset), default=0) < 0:
        raise WeightsError("a tensor's shape makes no sense.")
    last = tensor.offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if num_elements > values.size or (num_elements and last >= values.size):
        raise WeightsError("a tensor is larger than its storage.")
    step = values.dtype.itemsize
    return np.lib.stride_tricks.as_strided(
        values[tensor.offset :], shape, tuple(stride * step for stride in strides), writeable=False
    )
