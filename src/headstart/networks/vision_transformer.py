"""Vision transformers as plain Keras layers in a flat graph.

KerasHub builds the same networks of layers of its own: its encoder is one layer, so nothing inside it can be cut,
frozen by block or read in ``summary()``; most of its blocks cannot be saved by themselves; and whoever loads the model
needs KerasHub. These need Keras alone. What differs is how a few weights are kept, not what is computed: the class
token, the registers and the positions are one table, and DINOv2's scales are multiplied into the layers before them
(see `hub_file`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from headstart.networks.architectures import VisionTransformer
from headstart.networks.backend import keras


def build_vision_transformer(network: VisionTransformer, prepared: Any) -> Any:
    """Prepared pixels (n, size, size, 3) -> tokens (n, t, width).

    The first sums up the image: the class token or, where the network pools by attention, what that gives.
    """
    tokens = _embed(network, prepared)
    if network.norm_before:
        tokens = _norm(network, "norm_before")(tokens)
    for number in range(1, network.depth + 1):
        tokens = _block(network, tokens, f"block{number}")
    tokens = _norm(network, "norm")(tokens)
    if network.attention_pool:
        tokens = keras.layers.Concatenate(axis=1, name="tokens")([_attention_pool(network, tokens), tokens])
    return tokens


def _embed(network: VisionTransformer, prepared: Any) -> Any:
    """Patches as tokens, after those that stand for none; a table adds to each its position, or is the token itself."""
    patches = keras.layers.Conv2D(
        network.width, network.patch_size, network.patch_size, use_bias=network.patch_bias, name="patches"
    )(prepared)
    num_patches = patches.shape[1] * patches.shape[2]
    tokens = keras.layers.Reshape((num_patches, network.width), name="patch_tokens")(patches)
    if network.num_extra:
        tokens = keras.layers.ZeroPadding1D((network.num_extra, 0), name="extra_tokens")(tokens)
    table = keras.layers.Embedding(num_patches + network.num_extra, network.width, name="positions")
    return tokens + table(numbers_of(tokens[:1, :, 0]))


def numbers_of(row: Any) -> Any:
    """0, 1, 2, ... in the shape (1, t) of what is given: a way to read a whole table that any backend can trace.

    Not by `cumsum`: OpenVINO does not fold it, computes such a constant once in each stream, in the same place, and now
    and then subtracts the 1 twice.
    """
    return keras.ops.zeros_like(row, dtype="int32") + np.arange(row.shape[1], dtype="int32")


def _block(network: VisionTransformer, tokens: Any, name: str) -> Any:
    normed = _norm(network, f"{name}_norm1")(tokens)
    tokens = keras.layers.Add(name=f"{name}_add")([tokens, _attention(network, f"{name}_attention")(normed, normed)])
    normed = _norm(network, f"{name}_norm2")(tokens)
    return keras.layers.Add(name=name)([tokens, _mlp(network, normed, name)])


def _attention_pool(network: VisionTransformer, tokens: Any) -> Any:
    """One learnt query over all tokens: (n, t, width) -> (n, 1, width)."""
    numbers = keras.ops.zeros_like(tokens[:, :1, 0], dtype="int32")
    query = keras.layers.Embedding(1, network.width, name="pool_query")(numbers)
    pooled = _attention(network, "pool_attention")(query, tokens)
    mixed = _mlp(network, _norm(network, "pool_norm")(pooled), "pool")
    return keras.layers.Add(name="pool")([pooled, mixed])


def _mlp(network: VisionTransformer, tokens: Any, name: str) -> Any:
    inner = keras.layers.Dense(network.hidden, name=f"{name}_mlp1")(tokens)
    return keras.layers.Dense(network.width, name=f"{name}_mlp2")(_activate(network, inner))


def _activate(network: VisionTransformer, values: Any) -> Any:
    if network.activation == "quick_gelu":
        return values * keras.ops.sigmoid(1.702 * values)
    return keras.ops.gelu(values, approximate=network.activation == "gelu_tanh")


def _attention(network: VisionTransformer, name: str) -> Any:
    return keras.layers.MultiHeadAttention(network.num_heads, network.width // network.num_heads, name=name)


def _norm(network: VisionTransformer, name: str) -> Any:
    return keras.layers.LayerNormalization(epsilon=network.epsilon, name=name)
