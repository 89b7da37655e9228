"""Puts weights that were found into a network, after checking that every one of them fits."""

from __future__ import annotations

from headstart.errors import WeightsError
from headstart.networks.backend import keras
from headstart.networks.catalogue import BackboneSpec
from headstart.networks.converters import CONVERTERS
from headstart.networks.keras_file import read_keras_weights
from headstart.networks.torch_checkpoint import read_torch_checkpoint
from headstart.networks.weights import Weights


def load_weights(model: keras.Model, spec: BackboneSpec, weights: Weights) -> keras.Model:
    """The network with those weights in it: the same model, or one rebuilt where the weights ask for another graph.

    Raises:
        WeightsError: they do not fit; what is missing, unexpected or of another shape is named.
    """
    if weights.path is None:
        return model
    if weights.layout:
        values = CONVERTERS[weights.layout](read_torch_checkpoint(weights.path))
    elif weights.path.name.endswith(".weights.h5"):
        _load_keras_3(model, spec, weights)
        return model
    else:
        values = read_keras_weights(weights.path, model)
    wrong = [
        f"layer '{name}', from {tuple(ours.shape)} to {tuple(theirs.shape)}"
        for name, arrays in values.items()
        for ours, theirs in zip(model.get_layer(name).weights, arrays, strict=True)
        if tuple(ours.shape) != tuple(theirs.shape)
    ]
    if wrong:
        raise WeightsError(
            f"{weights.path} does not fit {spec.name}: {len(wrong)} shapes differ (from the network's to the file's): "
            f"{'; '.join(wrong[:5])}{'; ...' if len(wrong) > 5 else '.'}"
        )
    for name, arrays in values.items():
        model.get_layer(name).set_weights(arrays)
    return model


def _load_keras_3(model: keras.Model, spec: BackboneSpec, weights: Weights) -> None:
    try:
        model.load_weights(weights.path)
    except Exception as error:  # Keras and h5py raise many kinds for a file that does not fit or is damaged.
        raise WeightsError(f"{weights.path} does not fit {spec.name}: {error}") from error
