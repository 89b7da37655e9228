"""The part of a classifier that learns, on what the frozen part below it says.

What lies below a cut is frozen: what it says of a picture is the same in every epoch, so it comes from the feature
store, or from an engine that is faster than a trainer; see `material`. Above it lies the *tail*. A head that reads
several stages has those below the cut from there, too. The tail's layers are the classifier's own, so what they learn
need not be carried back.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from headstart.features.pooling import pool, pooled_features
from headstart.networks.backbone import Backbone
from headstart.networks.backend import keras
from headstart.networks.freezing import WHOLE, cut_below, freeze, thaw
from headstart.networks.stages import Stage, cut_tensor, layers_below


@dataclasses.dataclass(frozen=True)
class Tail:
    """A classifier of which the upper part learns.

    Attributes:
        model: what is trained: [activations at the cut (n, h, w, c), constants (n, num_constants)] -> probabilities; or
            the whole, where everything learns.
        whole: pixels (n, size, size, 3) -> probabilities, on the same layers.
        cut: the stage that the activations are of; None where pixels go in.
        num_constants: how many of the pooled features lie at or below the cut: the first so many.
    """

    model: keras.Model
    whole: keras.Model
    cut: Stage | None
    num_constants: int


def open_tail(backbone: Backbone, head: Any, first: str) -> Tail:
    """Open a stage and all above it, with the head.

    Args:
        backbone: for one view; its layers are frozen and opened here.
        head: a layer from pooled features (n, d) to probabilities; see `heads.linear_layer`.
        first: the lowest stage that learns, or "all".

    Raises:
        UnknownNameError: there is no such stage.
    """
    freeze(backbone.model)
    thaw(backbone.model, backbone.stages, first)
    whole = keras.Model(
        backbone.model.inputs[0], head(pooled_features(backbone)), name=f"{backbone.spec.name}_open_from_{first}"
    )
    head.trainable = True
    cut = cut_below(backbone.stages, first)
    if cut is None:
        return Tail(whole, whole, None, 0)
    below = backbone.stages[: backbone.stages.index(cut) + 1]
    above = backbone.stages[len(below) :]
    num_constants = 2 * sum(stage.num_channels for stage in below)
    at_cut = cut_tensor(backbone.model, cut)
    activations = keras.Input(at_cut.shape[1:], dtype="float32", name="activations")
    constants = keras.Input((num_constants,), dtype="float32", name="constants")
    wanted = [cut_tensor(backbone.model, stage) for stage in above]
    outputs = _listed(keras.Model(at_cut, wanted, name="upper")(activations))
    pooled = [constants, *pool(above, outputs)]
    if backbone.ends_in_tokens:
        pooled.append(outputs[-1][:, 0])
    probabilities = head(keras.layers.Concatenate(name="features")(pooled))
    model = keras.Model([activations, constants], probabilities, name=f"{backbone.spec.name}_above_{cut.name}")
    return Tail(model, whole, cut, num_constants)


def stages_that_learn(backbone: Backbone) -> tuple[str, ...]:
    """The stages that have weights of their own which can learn, from the top down; "all" is the last.

    VGG16 ends in a stage that only pools; to open that alone would train nothing but the head.
    """
    names, known = [], 0
    for stage in reversed(backbone.stages[1:]):
        freeze(backbone.model)
        thaw(backbone.model, backbone.stages, stage.name)
        num = len(backbone.model.trainable_weights)
        if num > known:
            names.append(stage.name)
        known = num
    freeze(backbone.model)
    return (*names, WHOLE)


def _listed(tensors: Any) -> list[Any]:
    return list(tensors) if isinstance(tensors, (list, tuple)) else [tensors]


def rates(backbone: Backbone, first: str, decay: float) -> dict[str, float]:
    """What the learning rate of each open layer is multiplied by: one factor less from a stage to the one below.

    Args:
        backbone: with the layers.
        first: the lowest stage that is open.
        decay: the factor.
    """
    below = [layers_below(backbone.model, stage.layer) for stage in backbone.stages]
    cut = cut_below(backbone.stages, first)
    number = backbone.stages.index(cut) + 1 if cut else 0
    frozen = layers_below(backbone.model, cut.layer) if cut else set()
    factors: dict[str, float] = {}
    for depth, names in enumerate(below[number:]):
        power = decay ** (len(below) - 1 - number - depth)
        factors.update({name: power for name in names - frozen if name not in factors})
    return factors
