"""Puts weights that were found into a network, after checking that every one of them fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.networks.backend import keras
from headstart.networks.converters import CONVERTERS, convert, move_strides
from headstart.networks.hub_file import is_hub_file, read_hub_weights
from headstart.networks.keras_file import read_keras_weights, variables_of
from headstart.networks.rows import BackboneSpec
from headstart.networks.safetensors_file import read_safetensors
from headstart.networks.torch_checkpoint import read_torch_checkpoint
from headstart.networks.weights import Weights

# ImageNet's standard deviation, as in keras.src.applications.efficientnet.
_IMAGENET_STD = np.array([0.229, 0.224, 0.225])


def load_weights(model: keras.Model, spec: BackboneSpec, weights: Weights) -> keras.Model:
    """The network with those weights in it: the same model, or one rebuilt where the weights ask for another graph.

    Args:
        model: the network of the row, freshly built; nothing is loaded into it if anything does not fit.
        spec: the row.
        weights: from `find_weights`.

    Raises:
        WeightsError: they do not fit; what is missing, unexpected or of another shape is named.
    """
    path = weights.path
    if path is None:
        return model
    if weights.layout:
        layout = CONVERTERS[weights.layout]
        read = read_safetensors if path.suffix == ".safetensors" else read_torch_checkpoint
        if layout.strides_in_3x3:
            model = move_strides(model)
        values = convert(path, read(path), layout, model)
    elif spec.architecture and is_hub_file(path, spec.architecture):
        values = read_hub_weights(path, spec.name, spec.architecture, model)
    else:
        values = read_keras_weights(path, spec.name, model)
        if spec.family == "EfficientNet":
            values = [(layer, _for_published(layer, arrays)) for layer, arrays in values]
    for layer, arrays in values:
        _assign(layer, arrays)
    return model


def _assign(layer: Any, arrays: list[npt.NDArray[Any]]) -> None:
    for variable, values in zip(variables_of(layer), arrays, strict=True):
        variable.assign(values)
    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()  # It computes with copies of its weights.


def _for_published(layer: Any, arrays: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """EfficientNet's normalisation as it has to be for weights that descend from Keras's.

    Keras's files hold the standard deviation where the layer takes a variance. Keras makes up for it with one more
    layer, a Rescaling by 1 / sqrt(std) after the normalisation, but only where it loads ImageNet's weights itself
    (https://github.com/tensorflow/tensorflow/issues/49930). The network here has no such layer; multiplying the
    variance by the standard deviation is the same. That holds for Keras's downloads and for what was trained from
    them. A network that was trained from nothing has a variance of 1 and keeps it, and one that was saved from here has
    the square already.
    """
    if not isinstance(layer, keras.layers.Normalization):
        return arrays
    mean, variance, *count = arrays
    untouched = not mean.any() and (variance == 1).all()
    if untouched or np.allclose(variance, _IMAGENET_STD**2, rtol=0.01):
        return arrays
    return [mean, (variance * _IMAGENET_STD).astype(np.float32), *count]
