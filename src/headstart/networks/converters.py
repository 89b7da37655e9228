"""PyTorch checkpoints onto Keras's networks: which tensor goes to which layer, and what has to change on the way.

Kernels: PyTorch's (out, in, height, width) become Keras's (height, width, in, out); depthwise ones, which PyTorch
keeps as (channels, 1, height, width), become (height, width, channels, 1). Batch normalisation adds its epsilon to the
variance, and Keras's MobileNetV2 uses 1e-3 where PyTorch uses 1e-5; scaling gamma makes the two the same function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import WeightsError
from headstart.networks.torch_checkpoint import Tensors

LayerWeights = dict[str, list[npt.NDArray[Any]]]
"""Keras layer name -> its weights in Keras's order."""

_TORCH_EPSILON = 1e-5
_MOBILENET_V2_EPSILON = 1e-3
_NUM_MOBILENET_V2_BLOCKS = 17


def convert_mobilenet_v2(tensors: Tensors) -> LayerWeights:
    """PyTorch's MobileNetV2 trunk (``features.*``) onto ``keras.applications.MobileNetV2``.

    The names may be torchvision's, which nests convolution and normalisation, or those of the older, flat blocks.
    Exact (to float32) where the image's side is 32 k + 1, since only there do the two pad alike. The tensors of the
    classifier are left aside.

    Raises:
        WeightsError: tensors are missing.
    """
    wanted = list(_mobilenet_v2_layers(nested="features.1.conv.0.0.weight" in tensors))
    missing = [name for _, kind, prefix in wanted for name in _tensor_names(kind, prefix) if name not in tensors]
    if missing:
        some = ", ".join(map(repr, list(tensors)[:3]))
        raise WeightsError(
            f"The checkpoint is not PyTorch's MobileNetV2: {len(missing)} tensors are missing, the first is "
            f"'{missing[0]}'. It holds {len(tensors)}, among them {some}."
        )
    return {
        layer: _to_keras(kind, [tensors[name] for name in _tensor_names(kind, prefix)], _MOBILENET_V2_EPSILON)
        for layer, kind, prefix in wanted
    }


def _mobilenet_v2_layers(*, nested: bool) -> Iterator[tuple[str, str, str]]:
    """(Keras layer, kind, torch prefix), in the order of the network."""
    yield from (("Conv1", "conv", "features.0.0"), ("bn_Conv1", "norm", "features.0.1"))
    for number in range(_NUM_MOBILENET_V2_BLOCKS):
        block = f"block_{number}" if number else "expanded_conv"
        prefix = f"features.{number + 1}.conv."
        # The first block does not expand.
        triples = [("expand", "conv"), ("depthwise", "depthwise")] if number else [("depthwise", "depthwise")]
        for group, (part, kind) in enumerate(triples):  # Convolution, normalisation and an activation without weights.
            first, second = (f"{group}.0", f"{group}.1") if nested else (str(3 * group), str(3 * group + 1))
            yield from ((f"{block}_{part}", kind, prefix + first), (f"{block}_{part}_BN", "norm", prefix + second))
        last = len(triples) if nested else 3 * len(triples)
        yield f"{block}_project", "conv", f"{prefix}{last}"
        yield f"{block}_project_BN", "norm", f"{prefix}{last + 1}"
    yield from (("Conv_1", "conv", "features.18.0"), ("Conv_1_bn", "norm", "features.18.1"))


def _tensor_names(kind: str, prefix: str) -> list[str]:
    parts = ("weight", "bias", "running_mean", "running_var") if kind == "norm" else ("weight",)
    return [f"{prefix}.{part}" for part in parts]


def _to_keras(kind: str, tensors: list[npt.NDArray[Any]], epsilon: float) -> list[npt.NDArray[Any]]:
    if kind == "norm":
        gamma, beta, mean, variance = tensors
        if gamma.shape != variance.shape:  # They fit no layer, and whoever loads them will say so.
            return tensors
        return [gamma * np.sqrt(variance + epsilon) / np.sqrt(variance + _TORCH_EPSILON), beta, mean, variance]
    axes = (2, 3, 0, 1) if kind == "depthwise" else (2, 3, 1, 0)
    return [np.transpose(tensors[0], axes) if tensors[0].ndim == 4 else tensors[0]]


CONVERTERS: dict[str, Callable[[Tensors], LayerWeights]] = {"mobilenet_v2": convert_mobilenet_v2}
