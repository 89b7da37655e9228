"""Reads KerasHub's weight files (``model.weights.h5``) into the plain networks here, after checking every shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headstart.errors import WeightsError
from headstart.networks.architectures import Architecture
from headstart.networks.backend import keras
from headstart.networks.fitting import check_numbers, compare, refusal
from headstart.networks.hdf5 import UnreadableError, array, has, member, opened
from headstart.networks.hub_layouts import Source, marker_of, roots_of, sources_of, unused_of
from headstart.networks.keras_file import LayerWeights

_MAX_GROUPS = 20_000  # Links can lead back; the largest network has three thousand.
_SEED = "seed_generator"


def is_hub_file(path: Path, network: Architecture) -> bool:
    """Whether an HDF5 file holds the network as KerasHub writes it, by itself or in a larger model."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return _root(file, network) is not None
    except (OSError, KeyError, RuntimeError, ValueError):
        return False  # Who reads it next says what is wrong with it.


def read_hub_weights(path: Path, name: str, network: Architecture, model: keras.Model) -> LayerWeights:
    """The weights for every layer of ``model`` that has any.

    Args:
        path: the file.
        name: the backbone's, for messages.
        network: what it is built of.
        model: the network. It is not changed.

    Raises:
        WeightsError: the file is damaged, has other tensors or shapes (all are named), or numbers that make no sense.
    """
    sources = tuple(sources_of(network, model.inputs[0].shape[1]))
    expected = {tensor: shape for source in sources for tensor, shape in source.tensors.items()}
    with opened(path) as file:
        root = _root(file, network)
        if root is None:
            raise WeightsError(f"{path} does not hold {name} as KerasHub writes it.")
        found = _tensors(root)
        unused = unused_of(network)
        theirs = {tensor: tuple(dataset.shape) for tensor, dataset in found.items() if tensor not in unused}
        if mismatch := compare("tensor", expected, theirs):
            raise refusal(path, name, mismatch)
        return [(model.get_layer(source.layer), _read(path, source, found)) for source in sources]


def _read(path: Path, source: Source, found: dict[str, Any]) -> list[Any]:
    arrays = []
    for tensor in source.tensors:
        values = array(found[tensor], tensor)
        check_numbers(path, f"tensor '{tensor}'", values, variance=False)
        arrays.append(values)
    return source.combine(arrays)


def _root(file: Any, network: Architecture) -> Any:
    for root in roots_of(network):
        if _reaches(file, f"{root}/{marker_of(network)}"):
            return member(file, root)
    return None


def _reaches(group: Any, path: str) -> bool:
    for part in path.split("/"):
        if not has(group, part):
            return False
        group = member(group, part)
    return True


def _tensors(root: Any) -> dict[str, Any]:
    """Every dataset below a group by its path, less the seeds of random numbers."""
    import h5py

    found: dict[str, Any] = {}
    waiting: list[tuple[str, Any]] = [("", root)]
    num_groups = 0
    while waiting:
        path, group = waiting.pop()
        num_groups += 1
        if num_groups > _MAX_GROUPS:
            raise UnreadableError("its groups have no end.")
        for name in group:
            if name.startswith(_SEED):
                continue
            inside, below = member(group, name), f"{path}/{name}" if path else name
            if isinstance(inside, h5py.Group):
                waiting.append((below, inside))
            else:
                found[below] = inside
    return found
