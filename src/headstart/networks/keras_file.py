"""Reads Keras's weight files, checking names and shapes before any array is read.

Both layouts are read: the older one of Keras's downloads (``*_notop.h5``) and of whole models in ``.h5``, which lists
layers in order; and that of Keras 3 (``.weights.h5``), which keeps them by class, in order, and notes their names.
HDF5 holds numbers and names only; nothing in it is code. Links to other files are not followed, and no array is read
before its shape is known to be the one the network has, so a file cannot claim more memory than the network needs.

Keras goes by order alone, which swaps layers of the same shape where the order differs. Here a layer goes by its name
where it has one of its own. A name that Keras made up, such as "conv2d_94", depends on what else the process has built;
those go by order among themselves, as in Keras, and so do layers that were renamed.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt

from headstart.errors import WeightsError
from headstart.networks.backend import keras
from headstart.networks.catalogue import CATALOGUE
from headstart.networks.fitting import Mismatch, check_numbers, refusal
from headstart.networks.hdf5 import UnreadableError, array, has, member, opened, text, texts

LayerWeights = list[tuple[Any, list[npt.NDArray[Any]]]]

_TOPS = {"fc1", "fc2", "predictions", "logits", "conv_preds"}
_ATTENTION = ("query_dense", "key_dense", "value_dense", "output_dense")
_MAX_GROUPS = 10_000  # Links can lead back; a network has a few thousand.


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A layer that has weights, in the network or in the file.

    Attributes:
        name: of the layer.
        kind: what it is ordered among.
        weights: Keras's variables, or HDF5's datasets.
        layer: Keras's, if it is the network's.
    """

    name: str
    kind: str
    weights: list[Any]
    layer: Any = None

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(weight.shape) for weight in self.weights)


def read_keras_weights(path: Path, network: str, model: keras.Model) -> LayerWeights:
    """The weights for every layer of ``model`` that has any, in the order of `variables_of`.

    Args:
        path: the file.
        network: the backbone's name, for messages.
        model: the network. It is not changed.

    Raises:
        WeightsError: it is no such file, is damaged, has other layers or shapes than the network (all are named), or
            numbers that no trained network has.
    """
    with opened(path) as file:
        # A whole model in .h5 keeps its weights apart.
        group = member(file, "model_weights") if has(file, "model_weights") else file
        ours, theirs = _both_sides(path, group, model)
        theirs = [entry for entry in theirs if entry.name not in _TOPS]
        pairs, mismatch = _pair(ours, theirs)
        if mismatch:
            raise refusal(path, network, mismatch, _resembled(path, network))
        return [(our.layer, _read(path, our, their)) for our, their in pairs]


def variables_of(layer: Any) -> list[Any]:
    """A layer's weights in the order of both layouts."""
    return [*layer.trainable_weights, *layer.non_trainable_weights]


def _both_sides(path: Path, group: Any, model: keras.Model) -> tuple[list[_Entry], list[_Entry]]:
    if {"layer_names", "layer_names0"} & set(group.attrs):
        ours = [_Entry(layer.name, "", variables_of(layer), layer) for layer in model.layers if layer.weights]
        theirs = [_Entry(name, "", _listed(member(group, name))) for name in texts(group, "layer_names")]
        return ours, [entry for entry in theirs if entry.weights]
    if has(group, "layers"):
        return list(_network_by_class(model.layers)), _file_by_class(member(group, "layers"))
    raise WeightsError(f"{path} is an HDF5 file, but holds no weights as Keras writes them.")


# --- the layout of Keras 3 --------------------------------------------------------------------------------------------


def _network_by_class(layers: Iterable[Any], outer: str = "") -> Iterator[_Entry]:
    for layer in layers:
        kind = f"{outer}{_snake_case(layer)}"
        if isinstance(layer, keras.Sequential):
            yield from _network_by_class(layer.layers, f"{kind}/layers/")
        elif isinstance(layer, keras.layers.MultiHeadAttention):
            for part in _ATTENTION:
                inner = getattr(layer, part)
                yield _Entry(inner.name, f"{kind}/{part}", variables_of(inner), inner)
        elif layer.weights:
            yield _Entry(layer.name, kind, variables_of(layer), layer)


def _file_by_class(layers: Any) -> list[_Entry]:
    """Every group of ``vars``: "sequential_1/layers/conv2d" is the first Conv2D in the second Sequential."""
    import h5py

    found = []
    waiting: list[tuple[str, Any]] = [("", layers)]
    num_groups = 0
    while waiting:
        path, group = waiting.pop()
        num_groups += len(group)
        if num_groups > _MAX_GROUPS:
            raise UnreadableError("its groups have no end.")
        for name in group:
            inside = member(group, name)
            # A seed of random numbers, as Dropout has, is no weight.
            if name == "seed_generator" or not isinstance(inside, h5py.Group):
                continue
            if name != "vars":
                waiting.append((f"{path}/{name}" if path else name, inside))
            elif len(inside):
                found.append((_place(path), path, inside))
    found.sort(key=lambda each: each[0])
    return [
        _Entry(text(inside.attrs.get("name", path)), kind, [member(inside, key) for key in sorted(inside, key=int)])
        for (kind, _), path, inside in found
    ]


def _place(path: str) -> tuple[str, tuple[int, ...]]:
    """ "conv2d_12" -> what it is ordered among, "conv2d", and its number, 12, at every level."""
    parts = [re.fullmatch(r"(.*?)(?:_(\d+))?", part, re.DOTALL) for part in path.split("/")]
    return "/".join(part[1] for part in parts if part), tuple(int(part[2] or 0) for part in parts if part)


def _snake_case(layer: Any) -> str:
    """What Keras calls a layer that was given no name, before it counts."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


# --- what goes where --------------------------------------------------------------------------------------------------


def _pair(ours: list[_Entry], theirs: list[_Entry]) -> tuple[list[tuple[_Entry, _Entry]], Mismatch]:
    """Each layer of the network with that of the file, and what is left over or has other shapes."""
    counts = Counter(_key(entry) for entry in theirs)
    by_name = {_key(entry): entry for entry in theirs if counts[_key(entry)] == 1}
    named = {_key(entry) for entry in ours if not _is_made_up(entry)} & by_name.keys()
    pairs = [(entry, by_name[_key(entry)]) for entry in ours if _key(entry) in named]
    missing: list[_Entry] = []
    unexpected: list[_Entry] = []
    for kind in dict.fromkeys(entry.kind for entry in (*ours, *theirs)):
        left, right = (
            [entry for entry in side if entry.kind == kind and _key(entry) not in named] for side in (ours, theirs)
        )
        if len(left) == len(right):
            pairs += zip(left, right, strict=True)
        else:
            missing, unexpected = missing + left, unexpected + right
    reshaped = tuple(
        (our.name if our.name == their.name else f"{our.name} ({their.name} in the file)", our.shapes, their.shapes)
        for our, their in pairs
        if our.shapes != their.shapes
    )
    lacks, extra = (tuple(entry.name for entry in side) for side in (missing, unexpected))
    return pairs, Mismatch("layer", lacks, extra, reshaped)


def _key(entry: _Entry) -> tuple[str, str]:
    """Keras 3 allows no slash in a name: what was "conv1/bn" is "conv1_bn"."""
    return entry.kind, entry.name.replace("/", "_")


def _is_made_up(entry: _Entry) -> bool:
    return re.fullmatch(rf"{_snake_case(entry.layer)}(_\d+)?", entry.name) is not None


def _resembled(path: Path, network: str) -> str:
    for spec in CATALOGUE:
        if path.name in {spec.weights.name, spec.weights.published_name} and spec.name != network:
            return f"Its name is that of {spec.name}'s: use --backbone {spec.name}, or give weights of {network}."
    return ""


def _read(path: Path, our: _Entry, their: _Entry) -> list[npt.NDArray[Any]]:
    arrays = []
    for variable, dataset in zip(our.weights, their.weights, strict=True):
        values = array(dataset, our.name)
        check_numbers(path, f"layer '{our.name}'", values, variance=variable.path.endswith("variance"))
        arrays.append(values)
    return arrays


def _listed(group: Any) -> list[Any]:
    return [member(group, name) for name in texts(group, "weight_names")]
