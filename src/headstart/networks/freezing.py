"""Which layers of a backbone learn. Frozen means frozen, on every backend, whatever `fit` is told afterwards.

Three things move in a network that Keras calls frozen or that was built with ``training=False``: the statistics of
BatchNormalization, which `fit` updates whenever the layer is trainable; the Dropout inside EfficientNet and its like,
which stays on; and the layers of a model that was not compiled again. So every layer is frozen one by one,
BatchNormalization stays frozen even where its neighbours learn, and inner dropouts are turned off.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headstart.errors import UnknownNameError
from headstart.networks.backend import keras
from headstart.networks.stages import Stage, layers_below

WHOLE = "all"
"""What stands for the whole network where the name of a stage is asked for."""

_DROP_RATES = ("rate", "drop_path_rate", "drop_prob")
"""What Keras's Dropout, ConvNeXt's StochasticDepth and KerasHub's DropPath call their rate."""


def freeze(model: keras.Model) -> None:
    """Freeze every layer and turn off the dropouts between them.

    The layers are frozen one by one, not only the model, since they outlive it: a head grown on them makes a new
    model. Compile after it; a model that was compiled before keeps training what it trained.
    """
    model.trainable = False
    for layer in _every_layer(model):
        layer.trainable = False
        for name in _DROP_RATES:
            if isinstance(getattr(layer, name, None), float):
                setattr(layer, name, 0.0)


def thaw(model: keras.Model, stages: tuple[Stage, ...], first: str) -> None:
    """Let a stage and all above it learn, but for BatchNormalization, whose statistics would be lost. Compile after it.

    Args:
        model: a frozen network.
        stages: its stages.
        first: the name of the lowest stage that learns; "all" lets every layer learn.

    Raises:
        UnknownNameError: there is no such stage.
    """
    cut = cut_below(stages, first)
    frozen = layers_below(model, cut.layer) if cut else set()
    model.trainable = True
    for layer in model.layers:
        layer.trainable = layer.name not in frozen
    for layer in _every_layer(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def cut_below(stages: tuple[Stage, ...], first: str) -> Stage | None:
    """The stage whose end is the cut if a stage and all above it learn, or None if every layer does.

    Raises:
        UnknownNameError: there is no such stage.
    """
    names = [stage.name for stage in stages]
    if first not in (*names, WHOLE):
        raise UnknownNameError("stage", first, [*names, WHOLE])
    number = names.index(first) if first != WHOLE else 0
    return stages[number - 1] if number else None


def _every_layer(model: keras.Model) -> Iterator[Any]:
    """The layers of a model, and the layers inside those, but not the model itself."""
    return (layer for layer in model._flatten_layers(include_self=False))
