"""What must not move while a model learns, and what must: held against the weights themselves, before and after.

Keras says of a layer that it is trainable, and of a model what it trains; neither is what a step does. Statistics of
BatchNormalization move in a network that was called with ``training=False``, a model that was not compiled again trains
what it trained before, and nothing says so. So every weight is hashed before a phase and after it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from headstart.errors import GuardError
from headstart.networks.backend import keras


@dataclasses.dataclass(frozen=True)
class Guard:
    """The weights of a model before it learns.

    Attributes:
        digests: of each weight, in the model's order.
        may_move: whether each weight is announced to learn.
    """

    digests: tuple[bytes, ...]
    may_move: tuple[bool, ...]

    @staticmethod
    def before(model: keras.Model) -> Guard:
        """Hash every weight, and note which of them are announced to learn.

        Raises:
            GuardError: a statistic of BatchNormalization is among those, or would be moved by `fit`.
        """
        for layer in _layers(model):
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
                raise GuardError(
                    f"Layer '{layer.name}' is a BatchNormalization that is not frozen: training would overwrite the "
                    "statistics it was pretrained with. Open layers with headstart.unfreeze, which keeps it frozen."
                )
        learns = {id(weight) for weight in model.trainable_weights}
        weights = model.weights
        return Guard(tuple(map(_digest, weights)), tuple(id(weight) in learns for weight in weights))

    def after(self, model: keras.Model) -> None:
        """Hold the weights against what they were.

        Raises:
            GuardError: something moved that was frozen, or a layer that was to learn did not.
        """
        weights = model.weights
        moved = [digest != _digest(weight) for digest, weight in zip(self.digests, weights, strict=True)]
        for weight, did, may in zip(weights, moved, self.may_move, strict=True):
            if did and not may:
                raise GuardError(
                    f"Layer '{layer_of(weight)}' is frozen, yet its weight '{weight.name}' changed in training. The "
                    "training was stopped and nothing of it is kept. Compile the model again after freezing layers."
                )
        learnt = {layer_of(weight) for weight, did in zip(weights, moved, strict=True) if did}
        for weight, may in zip(weights, self.may_move, strict=True):
            if may and layer_of(weight) not in learnt:
                raise GuardError(
                    f"Layer '{layer_of(weight)}' was to learn, yet none of its weights changed. Compile the model "
                    "again after opening layers, and see that the learning rate is not 0."
                )


def check_preprocessing(model: keras.Model) -> None:
    """See that raw pixels, 0 to 255, go in, and that the network's own preprocessing comes before everything else.

    Raises:
        GuardError: it is not there.
    """
    names = {operation.name for operation in model.operations}
    if "pixels" not in names or "preprocessing" not in names:
        raise GuardError(
            f"The model '{model.name}' has no preprocessing inside: it would be trained on other numbers than its "
            "network was. Expected layers 'pixels' and 'preprocessing', as headstart builds them."
        )


def check_epochs_differ(first: Sequence[int], second: Sequence[int], num_views: int) -> None:
    """See that two epochs do not show every image in the same view: an augmentation that was cached is none.

    Args:
        first: the number of the view of each image in one epoch.
        second: likewise in the next.
        num_views: how many there are.

    Raises:
        GuardError: they are the same.
    """
    if num_views > 1 and len(first) > _FEW and list(first) == list(second):
        raise GuardError(
            f"Two epochs showed all {len(first):,} images in the same views: the augmentation does nothing."
        )


_FEW = 16  # So many images have the same of two views by chance, once in 65,536.


def layer_of(weight: keras.Variable) -> str:
    """The name of the layer that a weight belongs to."""
    return str(weight.path).rpartition("/")[0] or str(weight.path)


def _digest(weight: keras.Variable) -> bytes:
    value = np.ascontiguousarray(keras.ops.convert_to_numpy(weight.value))
    return hashlib.sha256(value.data if value.ndim else value.tobytes()).digest()


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    return (layer for layer in model._flatten_layers(include_self=False))
