"""Where KerasHub keeps each weight of its networks, and how those become the weights of the plain ones here.

Paths and order: what ``Backbone.save_weights`` of keras-hub 0.32.0 writes. In KerasHub, the class token, the registers
and the positions are weights apart; here they are one table. Its scales (DINOv2) are multiplied into the layers before
them, and its table of distances (Swin) is spread over all pairs of tokens. All of it computes the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from headstart.networks.architectures import Architecture, SwinTransformer, VisionTransformer
from headstart.networks.backend import keras

Arrays = list[npt.NDArray[np.float32]]
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Source:
    """The tensors of a file that become the weights of one layer.

    Attributes:
        layer: its name in the network here.
        tensors: path -> shape, in order.
        combine: from those arrays to the layer's weights.
    """

    layer: str
    tensors: dict[str, Shape]
    combine: Callable[[Arrays], Arrays] = list


@dataclasses.dataclass(frozen=True)
class _Names:
    """What KerasHub calls the parts of a vision transformer."""

    root: str
    embedding: str
    patches: str
    block: str
    attention: str
    norms: tuple[str, str]
    mlps: tuple[str, str]
    norm: str


_NAMES = {
    "vit": _Names(
        "vi_t_backbone", "vi_t_patching_and_embedding", "patch_embedding",
        "vi_t_encoder/encoder_layers/vi_t_encoder_block", "mha", ("layer_norm_1", "layer_norm_2"),
        ("mlp/dense_1", "mlp/dense_2"), "vi_t_encoder/layer_norm",
    ),
    "clip": _Names(
        "clip_vision_encoder", "clip_vision_embedding", "patch_embedding", "clip_encoder_layer",
        "attention", ("layer_norm_1", "layer_norm_2"), ("dense_1", "dense_2"), "layer_normalization_1",
    ),
    "dinov2": _Names(
        "dinov2_backbone", "dinov2_embedding", "patch_embeddings/projection", "dinov2_encoder/layers/dinov2_layer",
        "attention/attention", ("norm1", "norm2"), ("mlp/fc1", "mlp/fc2"), "layer_normalization",
    ),
    "siglip": _Names(
        "sig_lip_vision_encoder", "sig_lip_vision_embedding", "patch_embedding", "sig_lip_encoder_layer",
        "self_attn", ("layer_norm1", "layer_norm2"), ("mlp/fc1", "mlp/fc2"), "layer_normalization",
    ),
}  # fmt: skip
_POOL = "sig_lip_multi_head_attention_pooling"


def roots_of(network: Architecture) -> tuple[str, ...]:
    """Groups that may hold the network: inside a larger model, or the file itself."""
    inside = "swin_transformer_backbone" if isinstance(network, SwinTransformer) else _NAMES[network.layout].root
    return f"layers/{inside}/layers", "layers"


def marker_of(network: Architecture) -> str:
    """A group below its root that tells KerasHub's file from others."""
    return "swin_transformer_stage" if isinstance(network, SwinTransformer) else _NAMES[network.layout].embedding


def unused_of(network: Architecture) -> frozenset[str]:
    """Tensors of the file that a frozen network has no use for: counters, masks for training, what is derived."""
    if isinstance(network, SwinTransformer) or network.layout == "vit":
        return frozenset()
    own = f"{_NAMES[network.layout].embedding}/vars"
    last = 2 + bool(network.num_registers)
    unused = {"clip": {f"{own}/1"}, "siglip": {f"{own}/0"}, "dinov2": {f"{own}/1", f"{own}/{last}"}}
    return frozenset(unused[network.layout])


def sources_of(network: Architecture, image_size: int) -> Iterator[Source]:
    """Every layer of a network that has weights, and the tensors that they come from.

    Args:
        network: which one.
        image_size: the side of the images that it is built for, to which positions are interpolated.
    """
    if isinstance(network, SwinTransformer):
        yield from _swin_sources(network, image_size)
    else:
        yield from _vit_sources(network, image_size)


# --- vision transformers ----------------------------------------------------------------------------------------------


def _vit_sources(network: VisionTransformer, image_size: int) -> Iterator[Source]:
    names, width = _NAMES[network.layout], network.width
    kernel = (network.patch_size, network.patch_size, 3, width)
    yield Source("patches", _pair(f"{names.embedding}/{names.patches}", kernel, bias=network.patch_bias))
    yield _positions(network, names, image_size)
    if network.norm_before:
        yield Source("norm_before", _norm("layer_normalization", width))
    for number in range(1, network.depth + 1):
        there = _numbered(names.block, number)
        scales = [_scale(network, f"{there}/layer_scale{part}") for part in (1, 2)]
        yield Source(f"block{number}_norm1", _norm(f"{there}/{names.norms[0]}", width))
        attention = _attention(network, f"{there}/{names.attention}")
        yield Source(f"block{number}_attention", attention | scales[0], _scaled(scales[0]))
        yield Source(f"block{number}_norm2", _norm(f"{there}/{names.norms[1]}", width))
        yield Source(f"block{number}_mlp1", _pair(f"{there}/{names.mlps[0]}", (width, network.hidden)))
        second = _pair(f"{there}/{names.mlps[1]}", (network.hidden, width))
        yield Source(f"block{number}_mlp2", second | scales[1], _scaled(scales[1]))
    yield Source("norm", _norm(names.norm, width))
    if network.attention_pool:
        yield Source("pool_query", {f"{_POOL}/vars/0": (1, 1, width)}, lambda arrays: [arrays[0][0]])
        yield Source("pool_attention", _attention(network, f"{_POOL}/attention"))
        yield Source("pool_norm", _norm(f"{_POOL}/layer_norm", width))
        yield Source("pool_mlp1", _pair(f"{_POOL}/mlp/fc1", (width, network.hidden)))
        yield Source("pool_mlp2", _pair(f"{_POOL}/mlp/fc2", (network.hidden, width)))


def _positions(network: VisionTransformer, names: _Names, image_size: int) -> Source:
    """The table of the tokens before the patches, and of where each patch lies."""
    own, width = f"{names.embedding}/vars", network.width
    num_patches = (network.trained_size // network.patch_size) ** 2
    shape: Shape = (num_patches + network.class_token, width)
    tensors = {f"{names.embedding}/position_embedding/vars/0": shape}
    if network.layout == "dinov2":
        tensors = {f"{own}/{3 + bool(network.num_registers)}": (1, *shape)}
    if network.class_token:
        tensors[f"{own}/0"] = (width,) if network.layout == "clip" else (1, 1, width)
    if network.num_registers:
        tensors[f"{own}/2"] = (1, network.num_registers, width)

    def combine(arrays: Arrays) -> Arrays:
        positions, *extra = (array.reshape(-1, width) for array in arrays)
        if not extra:
            return [_interpolated(network, positions, image_size)]
        first = extra[0] + positions[:1]
        return [np.concatenate([first, *extra[1:], _interpolated(network, positions[1:], image_size)])]

    return Source("positions", tensors, combine)


def _interpolated(
    network: VisionTransformer, positions: npt.NDArray[np.float32], image_size: int
) -> npt.NDArray[np.float32]:
    """Positions (patches, width) of the images it was trained on, for images of another size."""
    if image_size == network.trained_size:
        return positions
    side, wanted = network.trained_size // network.patch_size, image_size // network.patch_size
    grid = keras.ops.convert_to_tensor(positions.reshape(1, side, side, -1))
    # As KerasHub does it for DINOv2. https://arxiv.org/abs/2010.11929, section 3.2, for all of them.
    resized = keras.ops.image.resize(grid, (wanted, wanted), interpolation="bicubic", antialias=network.antialias)
    return np.asarray(keras.ops.convert_to_numpy(resized)).reshape(wanted * wanted, -1)


def _scale(network: VisionTransformer, path: str) -> dict[str, Shape]:
    return {f"{path}/vars/0": (network.width,)} if network.layer_scale else {}


def _scaled(scale: dict[str, Shape]) -> Callable[[Arrays], Arrays]:
    """Multiplies what a layer adds, its last kernel and its last bias, by the scale that follows it in the file."""
    if not scale:
        return list
    return lambda arrays: [*arrays[:-3], arrays[-3] * arrays[-1], arrays[-2] * arrays[-1]]


def _attention(network: VisionTransformer, path: str) -> dict[str, Shape]:
    """In the order of ``keras.layers.MultiHeadAttention``."""
    heads, size = network.num_heads, network.width // network.num_heads
    tensors: dict[str, Shape] = {}
    for part in ("query_dense", "key_dense", "value_dense"):
        tensors |= {f"{path}/{part}/vars/0": (network.width, heads, size), f"{path}/{part}/vars/1": (heads, size)}
    return tensors | _pair(f"{path}/output_dense", (heads, size, network.width))


# --- Swin -------------------------------------------------------------------------------------------------------------


def _swin_sources(network: SwinTransformer, image_size: int) -> Iterator[Source]:
    yield Source("patches", _pair("patch_embedding/proj", (4, 4, 3, network.width)))
    yield Source("patches_norm", _norm("patch_embedding/norm", network.width))
    for stage, depth in enumerate(network.depths, 1):
        there, width = _numbered("swin_transformer_stage", stage), network.width << (stage - 1)
        for number in range(1, depth + 1):
            block = f"{there}/blocks/{_numbered('swin_transformer_block', number)}"
            yield from _swin_block(network, stage, number, block)
        if stage < len(network.depths):
            yield Source(f"stage{stage}_merge_norm", _norm(f"{there}/downsample/norm", 4 * width))
            yield Source(
                f"stage{stage}_merge", _pair(f"{there}/downsample/reduction", (4 * width, 2 * width), bias=False)
            )
    yield Source("norm", _norm("layer_normalization", network.width << (len(network.depths) - 1)))


def _swin_block(network: SwinTransformer, stage: int, number: int, there: str) -> Iterator[Source]:
    name, width = f"stage{stage}_block{number}", network.width << (stage - 1)
    heads, window = network.num_heads[stage - 1], network.window
    yield Source(f"{name}_norm1", _norm(f"{there}/norm1", width))
    yield Source(f"{name}_qkv", _pair(f"{there}/attn/qkv", (width, 3 * width)))
    yield Source(
        f"{name}_distances",
        {f"{there}/attn/vars/0": ((2 * window - 1) ** 2, heads)},
        lambda arrays: [arrays[0][_distances(window)]],
    )
    yield Source(f"{name}_projection", _pair(f"{there}/attn/proj", (width, width)))
    yield Source(f"{name}_norm2", _norm(f"{there}/norm2", width))
    yield Source(f"{name}_mlp1", _pair(f"{there}/mlp/fc1", (width, 4 * width)))
    yield Source(f"{name}_mlp2", _pair(f"{there}/mlp/fc2", (4 * width, width)))


def _distances(window: int) -> npt.NDArray[np.intp]:
    """For each pair of tokens of a window, row by row, the number of the distance between them."""
    rows, columns = np.divmod(np.arange(window * window), window)
    down = rows[:, None] - rows[None, :] + window - 1
    right = columns[:, None] - columns[None, :] + window - 1
    return np.asarray(down * (2 * window - 1) + right, np.intp).ravel()


# --- both -------------------------------------------------------------------------------------------------------------


def _pair(path: str, kernel: Shape, *, bias: bool = True) -> dict[str, Shape]:
    """A kernel and its bias, which has the shape of the kernel's end."""
    return {f"{path}/vars/0": kernel} | ({f"{path}/vars/1": kernel[-1:]} if bias else {})


def _norm(path: str, width: int) -> dict[str, Shape]:
    return {f"{path}/vars/0": (width,), f"{path}/vars/1": (width,)}


def _numbered(name: str, number: int) -> str:
    """Keras counts "block", "block_1", "block_2"."""
    return name if number == 1 else f"{name}_{number - 1}"
