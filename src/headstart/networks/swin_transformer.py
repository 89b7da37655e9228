"""Swin transformers as plain Keras layers in a flat graph; why, says `vision_transformer`.

How far two tokens of a window are apart has a weight for each head. KerasHub keeps one for each distance; here there is
one for each pair of tokens, since a plain layer can hold no other table: the same numbers, repeated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.networks.architectures import SwinTransformer
from headstart.networks.backend import keras
from headstart.networks.vision_transformer import numbers_of

_APART = -100.0
"""What is added to the logits of two tokens that a shifted window brings together, though they are not neighbours."""


def build_swin_transformer(network: SwinTransformer, prepared: Any) -> Any:
    """Prepared pixels (n, size, size, 3) -> activations (n, size / 32, size / 32, 8 width)."""
    patches = keras.layers.Conv2D(network.width, network.patch_size, network.patch_size, name="patches")
    grid = _norm(network, "patches_norm")(patches(prepared))
    for stage, depth in enumerate(network.depths, 1):
        for number in range(1, depth + 1):
            grid = _block(network, grid, stage, number)
        if stage < len(network.depths):
            grid = _merge(network, grid, stage)
    return _norm(network, "norm")(grid)


def window_of(network: SwinTransformer, side: int) -> int:
    """The side of a window in a grid: smaller where the grid is."""
    return min(network.window, side)


def _block(network: SwinTransformer, grid: Any, stage: int, number: int) -> Any:
    name = f"stage{stage}_block{number}"
    side, width = grid.shape[1], grid.shape[-1]
    window = window_of(network, side)
    shift = window // 2 if number % 2 == 0 and side > window else 0
    normed = _norm(network, f"{name}_norm1")(grid)
    if shift:
        normed = keras.ops.roll(normed, (-shift, -shift), axis=(1, 2))
    mixed = _windows_to_grid(_attention(network, _grid_to_windows(normed, window), stage, name, shift, side), side)
    if shift:
        mixed = keras.ops.roll(mixed, (shift, shift), axis=(1, 2))
    grid = keras.layers.Add(name=f"{name}_add")([grid, mixed])
    inner = keras.layers.Dense(4 * width, activation="gelu", name=f"{name}_mlp1")(_norm(network, f"{name}_norm2")(grid))
    return keras.layers.Add(name=name)([grid, keras.layers.Dense(width, name=f"{name}_mlp2")(inner)])


def _attention(network: SwinTransformer, windows: Any, stage: int, name: str, shift: int, side: int) -> Any:
    """Attention among the tokens of each window: (n, windows, tokens, width), the same shape again."""
    _, num_windows, num_tokens, width = windows.shape
    heads = network.num_heads[stage - 1]
    joined = keras.layers.Dense(3 * width, name=f"{name}_qkv")(windows)
    joined = keras.ops.reshape(joined, (-1, num_windows, num_tokens, 3, heads, width // heads))
    query, key, value = (joined[:, :, :, part] for part in range(3))
    logits = keras.ops.einsum("nwqhd,nwkhd->nwhqk", query * (width // heads) ** -0.5, key)
    tokens = numbers_of(keras.ops.reshape(windows[:1, :1, :, 0], (1, num_tokens)))
    # Not (1, t, 1) + (1, 1, t): Keras takes the second for a bias on TensorFlow, and gives (1, t, 1).
    pairs = keras.ops.repeat(tokens, num_tokens, axis=1) * num_tokens + keras.ops.tile(tokens, (1, num_tokens))
    distances = keras.layers.Embedding(num_tokens**2, heads, name=f"{name}_distances")(pairs)
    distances = keras.ops.reshape(distances, (1, 1, num_tokens, num_tokens, heads))
    logits = logits + keras.ops.transpose(distances, (0, 1, 4, 2, 3))
    if shift:
        logits = logits + _apart(_regions(side, num_tokens, shift), logits)
    mixed = keras.ops.einsum("nwhqk,nwkhd->nwqhd", keras.ops.softmax(logits, axis=-1), value)
    mixed = keras.ops.reshape(mixed, (-1, num_windows, num_tokens, width))
    return keras.layers.Dense(width, name=f"{name}_projection")(mixed)


def _apart(regions: npt.NDArray[np.int32], logits: Any) -> Any:
    """(1, windows, 1, tokens, tokens): `_APART` for two tokens of different regions, else 0."""
    # Taken from the logits' own zeros, the constant stays small in the saved graph: the regions, not their pairs.
    number = keras.ops.zeros_like(logits[:1, :, :1, :, :1], dtype="int32") + regions[None, :, None, :, None]
    differ = keras.ops.not_equal(number, keras.ops.transpose(number, (0, 1, 2, 4, 3)))
    return keras.ops.cast(differ, "float32") * _APART


def _regions(side: int, num_tokens: int, shift: int) -> npt.NDArray[np.int32]:
    """Which tokens of a shifted grid were neighbours before: a number for each, (windows, tokens)."""
    window = int(num_tokens**0.5)
    bands = np.zeros(side, np.int32)
    bands[side - window : side - shift], bands[side - shift :] = 1, 2
    grid = 3 * bands[:, None] + bands[None, :]
    cut = grid.reshape(side // window, window, side // window, window).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(cut.reshape(-1, num_tokens))


def _grid_to_windows(grid: Any, window: int) -> Any:
    """(n, side, side, width) -> (n, windows, tokens, width)."""
    _, side, _, width = grid.shape
    cut = keras.ops.reshape(grid, (-1, side // window, window, side // window, window, width))
    cut = keras.ops.transpose(cut, (0, 1, 3, 2, 4, 5))
    return keras.ops.reshape(cut, (-1, (side // window) ** 2, window * window, width))


def _windows_to_grid(windows: Any, side: int) -> Any:
    """(n, windows, tokens, width) -> (n, side, side, width)."""
    window, width = int(windows.shape[2] ** 0.5), windows.shape[-1]
    cut = keras.ops.reshape(windows, (-1, side // window, side // window, window, window, width))
    return keras.ops.reshape(keras.ops.transpose(cut, (0, 1, 3, 2, 4, 5)), (-1, side, side, width))


def _merge(network: SwinTransformer, grid: Any, stage: int) -> Any:
    """Four neighbours become one token of twice the width."""
    corners = [grid[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
    joined = keras.layers.Concatenate(name=f"stage{stage}_merge_join")(corners)
    normed = _norm(network, f"stage{stage}_merge_norm")(joined)
    return keras.layers.Dense(2 * grid.shape[-1], use_bias=False, name=f"stage{stage}_merge")(normed)


def _norm(network: SwinTransformer, name: str) -> Any:
    return keras.layers.LayerNormalization(epsilon=network.epsilon, name=name)
