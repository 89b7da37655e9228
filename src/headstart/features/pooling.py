"""From the stages of a backbone to one row of features: the mean and the maximum of every channel of every stage.

Where a network ends in tokens, the first of them is added, since it is the one that sums up the image.

The last stage alone says what object it sees; the earlier ones say what its surface is like. All stages together close
most of the gap to fine-tuning (Evci et al. 2022, Head2Toe, https://arxiv.org/abs/2201.03529).
"""

from __future__ import annotations

from typing import Any

from headstart.networks.backbone import Backbone
from headstart.networks.backend import keras
from headstart.networks.stages import cut_tensor

POOLED = "mean and maximum of every stage"
ACTIVATIONS = "activations of the last stage"

_POOLINGS = {
    3: (keras.layers.GlobalAveragePooling1D, keras.layers.GlobalMaxPooling1D),
    4: (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D),
}


def pooled_features(backbone: Backbone) -> Any:
    """The symbolic tensor (n, d) of a backbone's pooled stages; d is twice the sum of their channels, or one more."""
    outputs = [cut_tensor(backbone.model, stage) for stage in backbone.stages]
    pooled = []
    for stage, output in zip(backbone.stages, outputs, strict=True):
        average, maximum = _POOLINGS[len(output.shape)]
        pooled.append(average(name=f"{stage.name}_mean")(output))
        pooled.append(maximum(name=f"{stage.name}_max")(output))
    if len(backbone.model.output.shape) == 3:
        pooled.append(backbone.model.output[:, 0])
    return keras.layers.Concatenate(name="features")(pooled)


def feature_model(backbone: Backbone, output: str = POOLED) -> keras.Model:
    """Pixels (n, size, size, 3) -> features (n, d), as a plain Keras model.

    Args:
        backbone: a frozen network.
        output: `POOLED`, or `ACTIVATIONS`: what the network ends in, flattened.
    """
    if output == POOLED:
        features = pooled_features(backbone)
    else:
        features = keras.layers.Flatten(name="flatten")(backbone.model.output)
    return keras.Model(backbone.model.inputs[0], features, name=f"{backbone.spec.name}_features")
