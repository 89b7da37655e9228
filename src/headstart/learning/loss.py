"""Cross-entropy whose slope does not push all answers the same way.

A pretrained network with frozen BatchNormalization has features that are positive throughout, so nearly every weight
moves the mean of the logits, and all of them at once where a batch holds more of one class than it should. Adam takes
such a push for a signal in a million weights: on the solar cells, steps of a ten-thousandth of each weight moved the
logits by 0.33 on average, nearly all of it alike for every image (docs/decisions.md). So the error of each class is
centred over the batch before it goes down into the network. What is common to all images is left to the one weight that
is there for it: the bias of the head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headstart.networks.backend import keras

_SMALLEST = 1e-12


def centred_crossentropy(bias: Any, label_smoothing: float = 0.0) -> Callable[[Any, Any], Any]:
    """A loss for `compile`, of one-hot labels (n, k) and probabilities (n, k): the cross-entropy of each image (n,).

    Its value is the cross-entropy; its slope is that of cross-entropy with the batch's mean error taken away, but for
    the bias, which gets that mean.

    Args:
        bias: of the head (k,), added to the logits.
        label_smoothing: the part of each label that is spread over all classes.
    """
    ops = keras.ops

    def loss(labels: Any, probabilities: Any) -> Any:
        wanted = labels * (1 - label_smoothing) + label_smoothing / labels.shape[-1]
        logs = ops.log(probabilities + _SMALLEST)
        crossentropy = -ops.sum(wanted * logs, axis=-1)
        error = ops.stop_gradient(probabilities - wanted)  # The slope of cross-entropy along the logits.
        common = ops.mean(error, axis=0, keepdims=True)
        # Both sum to nothing over the classes, so along the logits the slope of the first is its factor itself.
        pull = ops.sum((error - common) * logs, axis=-1) + ops.sum(common * bias, axis=-1)
        return ops.stop_gradient(crossentropy - pull) + pull

    return loss
