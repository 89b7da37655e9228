"""Heads: what is put on a frozen backbone, as Keras layers on its own graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.features.pooling import pooled_features
from headstart.learning.logistic import LinearHead
from headstart.networks.backbone import Backbone
from headstart.networks.backend import keras
from headstart.progress import Progress, silent

_HIDDEN_UNITS = 256
_BATCH_SIZE = 32
_PATIENCE = 5


def grow_linear_head(backbone: Backbone, head: LinearHead) -> keras.Model:
    """Put a fitted linear head on a backbone: pixels (n, size, size, 3) -> probabilities (n, num_classes).

    Where the backbone was built for several views, their features are averaged.
    """
    features = pooled_features(backbone)
    num_views = len(backbone.views)
    if num_views > 1:
        by_view = keras.ops.reshape(features, (num_views, -1, features.shape[-1]))
        features = keras.ops.mean(by_view, axis=0)
    dense = keras.layers.Dense(len(head.bias), activation="softmax", name="probabilities")
    model = keras.Model(backbone.model.inputs[0], dense(features), name=f"{backbone.spec.name}_linear")
    dense.set_weights([head.kernel, head.bias])
    return model


def flatten_head(num_classes: int) -> Callable[[Any], Any]:
    """The usual recipe's head: Flatten, Dense 256 relu, Dense softmax. Returns a function from tensor to tensor."""
    layers = (
        keras.layers.Flatten(name="flatten"),
        keras.layers.Dense(_HIDDEN_UNITS, activation="relu", name="hidden"),
        keras.layers.Dense(num_classes, activation="softmax", name="probabilities"),
    )

    def grow(tensor: Any) -> Any:
        for layer in layers:
            tensor = layer(tensor)
        return tensor

    return grow


def compile_classifier(model: keras.Model) -> None:
    """Adam and categorical cross-entropy over one-hot labels, as in the usual recipe."""
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])


@dataclasses.dataclass(frozen=True)
class FlattenHead:
    """A trained flatten head.

    Attributes:
        grow: from the backbone's output tensor to probabilities; the layers carry the trained weights.
        model: activations (n, d) -> probabilities (n, num_classes).
        history: one row per epoch: epoch, loss, accuracy, val_loss, val_accuracy.
    """

    grow: Callable[[Any], Any]
    model: keras.Model
    history: tuple[dict[str, float], ...]

    def probabilities(self, features: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """(n, 1, d) activations to (n, num_classes) probabilities."""
        return np.asarray(self.model.predict(features[:, 0], batch_size=_BATCH_SIZE, verbose=0), np.float64)


@dataclasses.dataclass(frozen=True)
class LabelledFeatures:
    """Features (n, num_views, d) and class numbers (n,)."""

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


def fit_flatten_head(
    train: LabelledFeatures,
    val: LabelledFeatures,
    num_classes: int,
    *,
    epochs: int,
    seed: int,
    progress: Progress = silent,
) -> FlattenHead:
    """Train the flatten head on activations that were computed once, with early stopping on the validation loss.

    The backbone is not run again: it is frozen, so what it says of an image is the same in every epoch.
    """
    keras.utils.set_random_seed(seed)
    grow = flatten_head(num_classes)
    activations = keras.Input(train.features.shape[2:])
    model = keras.Model(activations, grow(activations))
    compile_classifier(model)
    report = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: progress("Training the head", epoch + 1, epochs)
    )
    stop = keras.callbacks.EarlyStopping(patience=_PATIENCE, restore_best_weights=True)
    history = model.fit(
        train.features[:, 0],
        np.eye(num_classes, dtype=np.float32)[train.labels],
        validation_data=(val.features[:, 0], np.eye(num_classes, dtype=np.float32)[val.labels]),
        batch_size=_BATCH_SIZE,
        epochs=epochs,
        callbacks=[stop, report],
        verbose=0,
    ).history
    rows = [dict(zip(history, values, strict=True)) for values in zip(*history.values(), strict=True)]
    return FlattenHead(grow, model, tuple({"epoch": number, **row} for number, row in enumerate(rows, 1)))


def grow_flatten_head(backbone: Backbone, head: FlattenHead) -> keras.Model:
    """Put a trained flatten head on its backbone: pixels -> probabilities."""
    return keras.Model(backbone.model.inputs[0], head.grow(backbone.model.output), name=f"{backbone.spec.name}_flatten")
