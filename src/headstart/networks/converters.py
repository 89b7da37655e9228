"""PyTorch checkpoints onto Keras's networks: what has to change on the way.

Kernels: PyTorch's (out, in, height, width) become Keras's (height, width, in, out); depthwise ones, which PyTorch
keeps as (channels, 1, height, width), become (height, width, channels, 1). Batch normalisation adds its epsilon to the
variance, and Keras's networks use another (1e-3 in MobileNetV2, 1.001e-5 in ResNet) than PyTorch's (1e-5); scaling
gamma makes the two the same function. Keras's ResNets have biases that PyTorch's lack: they are 0.

A block of PyTorch's ResNets halves the image in its 3x3 convolution, one of Keras's in the 1x1 before it
(https://github.com/pytorch/vision/blob/v0.24.0/torchvision/models/resnet.py calls its own v1.5). The shapes of the
weights are the same, and so the wrong one would run without complaint; `move_strides` builds the right one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from headstart.errors import WeightsError
from headstart.networks.backend import keras
from headstart.networks.fitting import Shapes, check_numbers, compare, refusal
from headstart.networks.torch_checkpoint import Tensors
from headstart.networks.torch_layouts import LAYOUTS, Layout, Part, find_layout, is_left_aside, tensor_names

Array = npt.NDArray[Any]
LayerWeights: TypeAlias = "list[tuple[keras.Layer, list[Array]]]"
"""Layers of the network, each with its weights in Keras's order."""

_TORCH_EPSILON = 1e-5
_KERNEL_AXES = {"conv": (2, 3, 1, 0), "biased_conv": (2, 3, 1, 0), "depthwise": (2, 3, 0, 1)}
_HALVING = re.compile(r"conv[345]_block1_([12])_conv")

CONVERTERS = LAYOUTS
"""What can be converted, by `TorchLayout.converter`."""


def convert(path: Path, tensors: Tensors, layout: Layout, model: keras.Model) -> LayerWeights:
    """The tensors of a checkpoint as weights for the layers of a network.

    Exact to float32. Where the layout pads symmetrically (`TorchLayout.odd_size`) that holds for images of 32 k + 1
    pixels, since only there do Keras's networks pad alike. Tensors of the classifier are left aside.

    Args:
        path: where they come from, for messages.
        tensors: by name.
        layout: of `CONVERTERS`.
        model: the network, from `move_strides`.

    Raises:
        WeightsError: tensors are missing, unexpected or of another shape, or hold what no trained network has.
    """
    found = {name: values for name, values in tensors.items() if not is_left_aside(name)}
    parts = max(layout.namings, key=lambda parts: len(tensor_names(parts) & found.keys()))
    mismatch = compare(
        "tensor",
        {name: shape for part in parts for name, shape in _torch_shapes(part, model.get_layer(part.layer)).items()},
        {name: values.shape for name, values in found.items()},
    )
    if mismatch:
        raise refusal(path, layout.network, mismatch, _resembled(layout, found))
    for name, values in found.items():
        if values.dtype.kind != "f":
            raise WeightsError(
                f"{path}: tensor '{name}' holds {values.dtype} numbers; weights are floats. A quantised checkpoint "
                "cannot be read: give the one it was made from."
            )
        check_numbers(path, f"tensor '{name}'", values, variance=name.endswith(".running_var"))
    layers = ((model.get_layer(part.layer), part) for part in parts)
    return [(layer, _to_keras(part, [found[name] for name in part.tensors], layer)) for layer, part in layers]


def move_strides(model: keras.Model) -> keras.Model:
    """A ResNet of Keras's with the strides of its blocks in the 3x3 convolution, with the same names of layers.

    The weights of the given network are not taken over.
    """

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        halving = _HALVING.fullmatch(layer.name)
        if halving:
            config["strides"] = (2, 2) if halving[1] == "2" else (1, 1)
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=clone)


def _torch_shapes(part: Part, layer: keras.Layer) -> dict[str, Shapes]:
    """The shapes that PyTorch's tensors have where they fit a layer of Keras."""
    if part.kind == "norm":
        return dict.fromkeys(part.tensors, tuple(layer.gamma.shape))
    kernel = tuple(layer.kernel.shape)
    axes = _KERNEL_AXES[part.kind]
    shapes = [tuple(kernel[axes.index(axis)] for axis in range(4)), (kernel[-1],)]
    return dict(zip(part.tensors, shapes, strict=False))  # A convolution without a bias has one tensor.


def _to_keras(part: Part, tensors: list[Array], layer: keras.Layer) -> list[Array]:
    """In float64, since a half-precision checkpoint cannot hold a sum with epsilon."""
    if part.kind == "norm":
        gamma, beta, mean, variance = (values.astype(np.float64) for values in tensors)
        gamma = gamma * np.sqrt(variance + layer.epsilon) / np.sqrt(variance + _TORCH_EPSILON)
        return [values.astype(np.float32) for values in (gamma, beta, mean, variance)]
    kernel, *bias = (values.astype(np.float32) for values in tensors)
    if layer.use_bias and not bias:
        bias = [np.zeros(layer.filters, np.float32)]
    return [np.transpose(kernel, _KERNEL_AXES[part.kind]), *bias]


def _resembled(layout: Layout, found: Tensors) -> str:
    other = find_layout(found)
    if other is None or other is layout:
        return ""
    begins = f"It looks like a checkpoint of {other.network}"
    if other in LAYOUTS.values():
        return f"{begins}: use --backbone {other.network}, or give weights of {layout.network}."
    return f"{begins}, which is not read: give weights of {layout.network}."
