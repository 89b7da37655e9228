"""From the stages of a backbone to one row of features: the mean and the maximum of every channel of every stage.

Where a network ends in tokens, the first of them is added, since it is the one that sums up the image.

Richer features, at a price: the same network also looks at the image made smaller, since what is small at one scale is
large at the other, and the standard deviation of every channel is added.

The last stage alone says what object it sees; the earlier ones say what its surface is like. All stages together close
most of the gap to fine-tuning (Evci et al. 2022, Head2Toe, https://arxiv.org/abs/2201.03529).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headstart.errors import UnknownNameError
from headstart.features.blocks import Unheard
from headstart.networks.backbone import Backbone
from headstart.networks.backend import keras
from headstart.networks.rows import BackboneSpec
from headstart.networks.stages import Stage, cut_tensor

POOLED = "mean and maximum of every stage"
POOLED_TWICE = "mean, maximum and deviation of every stage, at two scales"
ACTIVATIONS = "activations of the last stage"

_SMALLER = 5 / 7  # 224 -> 160, the step between the sizes that MobileNet was published at.
_COARSEST = 32  # Pixels to one of the last stage.
_WITH_INNER_MODELS = ("ConvNeXt",)
_SMALLEST_VARIANCE = 1e-6  # So that its root has a slope where nothing varies.


def pooled_features(backbone: Backbone, output: str = POOLED) -> Any:
    """The symbolic tensor (n, d) of a backbone's pooled stages; d is twice the sum of their channels, or one more.

    `POOLED_TWICE` is that with the standard deviations, of the image and then of the image made smaller.
    """
    stages = backbone.stages
    outputs = [cut_tensor(backbone.model, stage) for stage in stages]
    if output == POOLED_TWICE:
        pooled = pool(stages, outputs, deviation=True)
        pooled += pool(stages, _seen_smaller(backbone, outputs), "_smaller", deviation=True)
    else:
        pooled = pool(stages, outputs)
    if backbone.ends_in_tokens:
        pooled.append(backbone.model.output[:, 0])
    return keras.layers.Concatenate(name="features")(pooled)


def pool(stages: Sequence[Stage], outputs: Sequence[Any], suffix: str = "", *, deviation: bool = False) -> list[Any]:
    """Mean, maximum and, if wanted, deviation of every channel: symbolic (n, c) of (n, ..., c), stage by stage."""
    layers = keras.layers
    poolings = {
        3: (layers.GlobalAveragePooling1D, layers.GlobalMaxPooling1D),
        4: (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D),
    }
    pooled = []
    for stage, output in zip(stages, outputs, strict=True):
        average, maximum = poolings[len(output.shape)]
        pooled.append(average(name=f"{stage.name}_mean{suffix}")(output))
        pooled.append(maximum(name=f"{stage.name}_max{suffix}")(output))
        if deviation:
            pooled.append(keras.ops.sqrt(keras.ops.var(output, axis=(1, 2)) + _SMALLEST_VARIANCE))
    return pooled


def _seen_smaller(backbone: Backbone, outputs: Sequence[Any]) -> list[Any]:
    """The same cuts for the image made smaller: the layers are called again, so their weights are there once."""
    pixels = backbone.model.inputs[0]
    side = smaller_side(backbone.image_size)
    floats = keras.layers.Rescaling(1.0, name="pixels_float")(pixels)
    smaller = keras.layers.Resizing(side, side, name="pixels_smaller")(floats)
    # What `keras.models.clone_model` does with layers that are kept, but for tensors that are no inputs.
    return list(keras.Model(pixels, list(outputs))._run_through_graph(smaller, operation_fn=lambda layer: layer))


def smaller_side(image_size: int) -> int:
    """The side of the smaller image: as far from a multiple of 32 as the larger, so that padding falls alike."""
    rest = image_size % _COARSEST
    return round((image_size - rest) * _SMALLER / _COARSEST) * _COARSEST + rest


def has_two_scales(spec: BackboneSpec, image_size: int) -> bool:
    """Whether a network can look at images of this size at two scales.

    Not where it ends in tokens, whose number is fixed; nor where models lie in its graph that were built for one size.
    """
    flexible = spec.architecture is None and spec.family not in _WITH_INNER_MODELS
    return flexible and spec.smallest_size <= smaller_side(image_size) < image_size


def pooled_blocks(
    stages: Sequence[Stage], output: str = POOLED, *, has_token: bool, without: str = ""
) -> tuple[int, ...]:
    """How many of the pooled features each mean, maximum and deviation is, in order, and at last the token.

    Args:
        stages: of the backbone.
        output: `POOLED` or `POOLED_TWICE`.
        has_token: whether it ends in tokens.
        without: the name of a stage whose parts shall not be heard, or "".
    """
    poolings = ("mean", "maximum", "deviation") if output == POOLED_TWICE else ("mean", "maximum")
    blocks = [_width(stage, without) for stage in stages for _ in poolings]
    if output == POOLED_TWICE:
        return tuple(blocks) * 2
    return (*blocks, _width(stages[-1], without)) if has_token else tuple(blocks)


def at_one_scale(stages: Sequence[Stage]) -> list[int]:
    """Which of the features of `POOLED_TWICE` are those of `POOLED`, in order."""
    columns: list[int] = []
    start = 0
    for stage in stages:
        columns += range(start, start + 2 * stage.num_channels)
        start += 3 * stage.num_channels  # The deviation comes third.
    return columns


def _width(stage: Stage, without: str) -> int:
    return Unheard(stage.num_channels) if stage.name == without else stage.num_channels


def feature_model(backbone: Backbone, *outputs: str) -> keras.Model:
    """Pixels (n, size, size, 3) -> one tensor for each output, as a plain Keras model.

    Args:
        backbone: a frozen network.
        outputs: `POOLED` or `POOLED_TWICE`, (n, d); `ACTIVATIONS`, what the network ends in, flattened; or the name of
            a stage: the activations at its cut, as they are. `POOLED` if there is none.
    """
    tensors = [_output(backbone, output) for output in outputs or (POOLED,)]
    name = f"{backbone.spec.name}_features"
    return keras.Model(backbone.model.inputs[0], tensors[0] if len(tensors) == 1 else tensors, name=name)


def lower_model(backbone: Backbone, cut: str) -> keras.Model:
    """Pixels (n, size, size, 3) -> [activations at the cut of a stage, by its name, what is pooled up to it (n, d)]."""
    number = [stage.name for stage in backbone.stages].index(cut)  # Layers may have other names in each build.
    below = backbone.stages[: number + 1]
    outputs = [cut_tensor(backbone.model, stage) for stage in below]
    pooled = keras.layers.Concatenate(name="constants")(pool(below, outputs))
    return keras.Model(backbone.model.inputs[0], [outputs[-1], pooled], name=f"{backbone.spec.name}_to_{cut}")


def _output(backbone: Backbone, output: str) -> Any:
    if output in (POOLED, POOLED_TWICE):
        return pooled_features(backbone, output)
    if output == ACTIVATIONS:
        return keras.layers.Flatten(name="flatten")(backbone.model.output)
    stages = {stage.name: stage for stage in backbone.stages}
    if output not in stages:
        raise UnknownNameError("stage", output, stages)
    return cut_tensor(backbone.model, stages[output])
