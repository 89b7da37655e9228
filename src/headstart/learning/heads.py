"""Heads: what is put on a frozen backbone, as Keras layers on its own graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from headstart.features.pooling import ACTIVATIONS, POOLED, pooled_features
from headstart.learning.basis import standardising
from headstart.learning.class_weights import ClassWeights
from headstart.learning.logistic import LinearHead
from headstart.networks.backbone import Backbone
from headstart.networks.backend import keras
from headstart.progress import Progress, silent

_HIDDEN_UNITS = 256
_BATCH_SIZE = 32
_PATIENCE = 5
SMALLEST_PROBABILITY = 1e-12
"""What is added to a probability before its logarithm is taken."""


def grow_linear_head(backbone: Backbone, head: LinearHead, output: str = POOLED) -> keras.Model:
    """Put a fitted linear head on a backbone: pixels (n, size, size, 3) -> probabilities (n, num_classes).

    Where the backbone was built for several views, their features are averaged.
    """
    return grow_linear_layer(backbone, linear_layer(head), output)


def linear_layer(head: LinearHead) -> keras.layers.Layer:
    """The fitted head as a layer of Keras, from features (n, d) to probabilities (n, num_classes)."""
    activation = "sigmoid" if head.is_multi_label else "softmax"
    dense = keras.layers.Dense(len(head.bias), activation=activation, name="probabilities")
    dense.build((None, len(head.kernel)))
    dense.set_weights([head.kernel, head.bias])
    return dense


def grow_linear_layer(backbone: Backbone, layer: keras.layers.Layer, output: str = POOLED) -> keras.Model:
    """`grow_linear_head` with a layer that is there already; the model shares it."""
    probabilities = layer(_averaged_over_views(pooled_features(backbone, output), backbone))
    return keras.Model(backbone.model.inputs[0], probabilities, name=f"{backbone.spec.name}_linear")


def sharpen(layer: keras.layers.Layer, sharpness: float) -> None:
    """Multiply the logits of a linear layer by a number."""
    layer.set_weights([value * np.float32(sharpness) for value in layer.get_weights()])


def grow_together(*classifiers: keras.Model, sharpness: float = 1.0) -> keras.Model:
    """Several classifiers of the same pixels -> one, by the mean of their logits; they lie in it as they are.

    Args:
        *classifiers: pixels -> probabilities.
        sharpness: by what the mean is multiplied.
    """
    pixels = classifiers[0].inputs[0]
    parts = [
        keras.Model(each.inputs[0], each.outputs[0], name=f"classifier_{number}")
        for number, each in enumerate(classifiers, 1)
    ]
    logits = [keras.ops.log(part(pixels) + SMALLEST_PROBABILITY) for part in parts]
    mean = keras.layers.Average(name="mean_of_logits")(logits)
    sharp = keras.layers.Rescaling(sharpness, name="sharpness")(mean)
    probabilities = keras.layers.Activation("softmax", name="probabilities")(sharp)
    return keras.Model(pixels, probabilities, name=f"{classifiers[0].name}_together")


def mean_of_logits(*several: npt.NDArray[np.float64], sharpness: float = 1.0) -> npt.NDArray[np.float64]:
    """What `grow_together` makes of probabilities (n, num_classes)."""
    logits = np.mean([np.log(each + SMALLEST_PROBABILITY) for each in several], axis=0)
    return np.asarray(softmax(sharpness * logits, axis=1))


def _averaged_over_views(tensor: Any, backbone: Backbone) -> Any:
    """(num_views n, d), view after view, to (n, d)."""
    num_views = len(backbone.views)
    if num_views == 1:
        return tensor
    return keras.ops.mean(keras.ops.reshape(tensor, (num_views, -1, tensor.shape[-1])), axis=0)


def flatten_head(num_classes: int, *, is_multi_label: bool = False) -> Callable[[Any], Any]:
    """The usual recipe's head: Flatten, Dense 256 relu, Dense softmax. Returns a function from tensor to tensor."""
    flatten = keras.layers.Flatten(name="flatten")
    dense = DenseLayers.of(num_classes, is_multi_label=is_multi_label)
    return lambda tensor: dense.grow(flatten(tensor))


@dataclasses.dataclass(frozen=True)
class DenseLayers:
    """Dense 256 relu, Dense softmax; or sigmoid, where images may be of several classes."""

    hidden: Any
    last: Any

    @staticmethod
    def of(num_classes: int, *, is_multi_label: bool = False) -> DenseLayers:
        """New ones."""
        activation = "sigmoid" if is_multi_label else "softmax"
        return DenseLayers(
            keras.layers.Dense(_HIDDEN_UNITS, activation="relu", name="hidden"),
            keras.layers.Dense(num_classes, activation=activation, name="probabilities"),
        )

    def grow(self, tensor: Any) -> Any:
        """From (n, d) to (n, num_classes) probabilities."""
        return self.last(self.hidden(tensor))

    def fold_in(self, mean: npt.NDArray[np.float32], scale: npt.NDArray[np.float32]) -> None:
        """Trained on ``(features - mean) * scale``, they take the features themselves from now on."""
        kernel, bias = self.hidden.get_weights()
        kernel = scale[:, None] * kernel
        self.hidden.set_weights([kernel, bias - mean @ kernel])


def compile_classifier(model: keras.Model, *, is_multi_label: bool = False) -> None:
    """Adam and categorical cross-entropy over one-hot labels, as in the usual recipe; or binary, over 0 and 1."""
    if is_multi_label:  # Keras would take "accuracy" for that of one class of several.
        metric = keras.metrics.BinaryAccuracy(name="accuracy")
        model.compile(optimizer="adam", loss="binary_crossentropy", metrics=[metric])
        return
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])


@dataclasses.dataclass(frozen=True)
class TrainedHead:
    """A head that was trained in epochs.

    Attributes:
        grow: from a tensor of features (n, d) to probabilities; the layers carry the trained weights.
        model: features (n, d) -> probabilities (n, num_classes).
        history: one row per epoch: epoch, loss, accuracy, val_loss, val_accuracy.
    """

    grow: Callable[[Any], Any]
    model: keras.Model
    history: tuple[dict[str, float], ...]

    def probabilities(self, features: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """(n, num_views, d) features to (n, num_classes) probabilities, averaged over the views."""
        rows = features.reshape(-1, features.shape[-1])
        each = np.asarray(self.model.predict(rows, batch_size=_BATCH_SIZE, verbose=0), np.float64)
        return np.asarray(each.reshape(*features.shape[:2], -1).mean(axis=1))


@dataclasses.dataclass(frozen=True)
class LabelledFeatures:
    """Features (n, num_views, d) and class numbers (n,); or (n, k) of 0 and 1, where images may have several names."""

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    @property
    def is_multi_label(self) -> bool:
        """Whether an image may be of several classes."""
        return self.labels.ndim == 2

    def rows(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Every view as a row of its own: (n * num_views, d) and the class of each."""
        num_views = self.features.shape[1]
        return self.features.reshape(-1, self.features.shape[2]), np.repeat(self.labels, num_views, axis=0)


def fit_flatten_head(
    train: LabelledFeatures,
    val: LabelledFeatures,
    num_classes: int,
    *,
    epochs: int,
    seed: int,
    class_weights: ClassWeights | None = None,
    progress: Progress = silent,
) -> TrainedHead:
    """Train the flatten head on activations that were computed once, with early stopping on the validation loss.

    The backbone is not run again: it is frozen, so what it says of an image is the same in every epoch.
    """
    keras.utils.set_random_seed(seed)
    grow = flatten_head(num_classes, is_multi_label=train.is_multi_label)
    model, history = _train(grow, train.rows(), val.rows(), num_classes, epochs, class_weights, progress)
    return TrainedHead(grow, model, history)


def fit_mlp_head(
    train: LabelledFeatures,
    val: LabelledFeatures,
    num_classes: int,
    *,
    epochs: int,
    seed: int,
    class_weights: ClassWeights | None = None,
    progress: Progress = silent,
) -> TrainedHead:
    """Train Dense 256 relu, Dense softmax on pooled features, every view a row, with early stopping.

    It learns from standardised features; the standardisation is then folded into its first layer.
    """
    keras.utils.set_random_seed(seed)
    layers = DenseLayers.of(num_classes, is_multi_label=train.is_multi_label)
    (features, labels), (val_features, val_labels) = train.rows(), val.rows()
    mean, scale = features.mean(axis=0), standardising(features.std(axis=0))
    rows, val_rows = ((features - mean) * scale, labels), ((val_features - mean) * scale, val_labels)
    model, history = _train(layers.grow, rows, val_rows, num_classes, epochs, class_weights, progress)
    layers.fold_in(mean, scale)
    return TrainedHead(layers.grow, model, history)


def _train(
    grow: Callable[[Any], Any],
    train: Any,
    val: Any,
    num_classes: int,
    epochs: int,
    class_weights: ClassWeights | None,
    progress: Progress,
) -> tuple[keras.Model, tuple[dict[str, float], ...]]:
    """Rows and labels -> a trained model from rows to probabilities, and its history."""
    activations = keras.Input(train[0].shape[1:])
    model = keras.Model(activations, grow(activations))
    several = train[1].ndim == 2
    compile_classifier(model, is_multi_label=several)
    report = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: progress("Training the head", epoch + 1, epochs)
    )
    stop = keras.callbacks.EarlyStopping(patience=_PATIENCE, restore_best_weights=True)
    targets, val_targets = (
        labels.astype(np.float32) if several else np.eye(num_classes, dtype=np.float32)[labels]
        for labels in (train[1], val[1])
    )
    # Keras weighs its training images by class, but validation images only one by one.
    judged_by = (class_weights.judging(val[1]),) if class_weights else ()
    history = model.fit(
        train[0],
        targets,
        validation_data=(val[0], val_targets, *judged_by),
        class_weight=dict(enumerate(class_weights.weights.tolist())) if class_weights else None,
        batch_size=_BATCH_SIZE,
        epochs=epochs,
        callbacks=[stop, report],
        verbose=0,
    ).history
    rows = [dict(zip(history, values, strict=True)) for values in zip(*history.values(), strict=True)]
    return model, tuple({"epoch": number, **row} for number, row in enumerate(rows, 1))


def grow_flatten_head(backbone: Backbone, head: TrainedHead, output: str = ACTIVATIONS) -> keras.Model:
    """Put a trained flatten head on its backbone: pixels -> probabilities."""
    return keras.Model(backbone.model.inputs[0], head.grow(backbone.model.output), name=f"{backbone.spec.name}_flatten")


def grow_mlp_head(backbone: Backbone, head: TrainedHead, output: str = POOLED) -> keras.Model:
    """Put a trained head on the pooled features of its backbone: pixels -> probabilities, averaged over views."""
    probabilities = _averaged_over_views(head.grow(pooled_features(backbone, output)), backbone)
    return keras.Model(backbone.model.inputs[0], probabilities, name=f"{backbone.spec.name}_mlp")
