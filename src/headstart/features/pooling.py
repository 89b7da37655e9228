"""From the stages of a backbone to one row of features: the mean and the maximum of every channel of every stage.

Where a network ends in tokens, the first of them is added, since it is the one that sums up the image.

The last stage alone says what object it sees; the earlier ones say what its surface is like. All stages together close
most of the gap to fine-tuning (Evci et al. 2022, Head2Toe, https://arxiv.org/abs/2201.03529).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headstart.errors import UnknownNameError
from headstart.networks.backbone import Backbone
from headstart.networks.backend import keras
from headstart.networks.stages import Stage, cut_tensor

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
    if backbone.ends_in_tokens:
        pooled.append(backbone.model.output[:, 0])
    return keras.layers.Concatenate(name="features")(pooled)


def pooled_blocks(stages: Sequence[Stage], *, has_token: bool) -> tuple[int, ...]:
    """How many of the pooled features each mean and each maximum is, in order, and at last the token."""
    blocks = [stage.num_channels for stage in stages for _ in ("mean", "maximum")]
    return (*blocks, stages[-1].num_channels) if has_token else tuple(blocks)


def feature_model(backbone: Backbone, *outputs: str) -> keras.Model:
    """Pixels (n, size, size, 3) -> one tensor for each output, as a plain Keras model.

    Args:
        backbone: a frozen network.
        outputs: `POOLED`, (n, d); `ACTIVATIONS`, what the network ends in, flattened; or the name of a stage: the
            activations at its cut, as they are. `POOLED` if there is none.
    """
    tensors = [_output(backbone, output) for output in outputs or (POOLED,)]
    name = f"{backbone.spec.name}_features"
    return keras.Model(backbone.model.inputs[0], tensors[0] if len(tensors) == 1 else tensors, name=name)


def _output(backbone: Backbone, output: str) -> Any:
    if output == POOLED:
        return pooled_features(backbone)
    if output == ACTIVATIONS:
        return keras.layers.Flatten(name="flatten")(backbone.model.output)
    stages = {stage.name: stage for stage in backbone.stages}
    if output not in stages:
        raise UnknownNameError("stage", output, stages)
    return cut_tensor(backbone.model, stages[output])
