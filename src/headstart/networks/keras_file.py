"""Reads Keras's weight files of the older layout (``*_notop.h5``), layer by layer, checking names and shapes.

HDF5 holds numbers and names only; nothing in it is code. No array is read before its shape is known to be the one
the network has, so a file cannot claim more memory than the network needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import WeightsError
from headstart.networks.backend import keras


def read_keras_weights(path: Path, model: keras.Model) -> dict[str, list[npt.NDArray[Any]]]:
    """The weights for every layer of ``model`` that has any, matched in order, as Keras itself matches them.

    Raises:
        WeightsError: it is no such file, is damaged, or has other layers or shapes than the network: all are named.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            group = file.get("model_weights", file)  # A whole model in .h5 keeps its weights there.
            return _match(path, group, model)
    except WeightsError:
        raise
    except Exception as error:  # h5py raises OSError, KeyError, RuntimeError, ... for what is damaged.
        raise WeightsError(f"{path} is not a Keras weights file, or is damaged ({error}).") from error


def _match(path: Path, group: Any, model: keras.Model) -> dict[str, list[npt.NDArray[Any]]]:
    if "layer_names" not in group.attrs:
        raise WeightsError(
            f"{path} is not a Keras weights file of the older layout; name it .weights.h5 if Keras 3 saved it."
        )
    theirs = [(name, _datasets(group[name])) for name in map(_text, group.attrs["layer_names"])]
    theirs = [(name, datasets) for name, datasets in theirs if datasets]
    ours = [layer for layer in model.layers if layer.weights]
    if len(theirs) != len(ours):
        raise WeightsError(
            f"{path} has weights for {len(theirs)} layers; {model.name} has {len(ours)}. Missing from the file: "
            f"{_names({layer.name for layer in ours} - {name for name, _ in theirs})}. Unexpected in it: "
            f"{_names({name for name, _ in theirs} - {layer.name for layer in ours})}."
        )
    wrong = []
    for layer, (name, datasets) in zip(ours, theirs, strict=True):
        expected = [tuple(weight.shape) for weight in layer.weights]
        found = [tuple(dataset.shape) for dataset in datasets]
        if expected != found:
            wrong.append(f"layer '{layer.name}', from {expected} to {found} ('{name}' in the file)")
    if wrong:
        raise WeightsError(
            f"{path} does not fit {model.name}: {len(wrong)} layers have other shapes (from the network's to the "
            f"file's): {'; '.join(wrong[:5])}{'; ...' if len(wrong) > 5 else '.'}"
        )
    return {
        layer.name: [np.asarray(dataset) for dataset in datasets]
        for layer, (_, datasets) in zip(ours, theirs, strict=True)
    }


def _datasets(group: Any) -> list[Any]:
    return [group[name] for name in map(_text, group.attrs.get("weight_names", ()))]


def _text(name: Any) -> str:
    return name.decode("utf-8") if isinstance(name, bytes) else str(name)


def _names(names: set[str]) -> str:
    shown = sorted(names)[:8]
    return (", ".join(shown) or "none") + (", ..." if len(names) > len(shown) else "")
