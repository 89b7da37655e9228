"""AdamW and SGD with a smaller step the deeper a layer lies below the head.

What a network learnt first (edges, textures) holds for any picture and should hardly move: layer-wise learning-rate
decay, which Keras does not have. From ULMFiT (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146) and BEiT
(https://arxiv.org/abs/2106.08254). AdamW is of Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101.

They are used in training alone; the model that is returned is compiled without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headstart.learning.schedule import SGD
from headstart.networks.backend import keras


class _Layerwise:
    """What makes an optimizer of Keras take a factor for the learning rate of each layer."""

    def __init__(self, factors: Mapping[str, float] | None = None, **choices: Any) -> None:
        """Take the factors by the names of layers; a layer without one learns at the full rate.

        Args:
            factors: what the learning rate is multiplied by.
            **choices: of the optimizer of Keras.
        """
        super().__init__(**choices)
        self.factors = dict(factors or {})
        self._factors: list[float] = []

    def build(self, variables: Any) -> None:
        """Make what is kept of each weight, and note its factor. Call it before the first step."""
        if not self._factors:
            self._factors = [self.factors.get(each.path.rpartition("/")[0], 1.0) for each in variables]
        super().build(variables)  # type: ignore[misc]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Take one step with one weight, at the rate of its layer."""
        factor = self._factors[int(self._get_variable_index(variable))]  # type: ignore[attr-defined]
        rate = keras.ops.cast(learning_rate, variable.dtype) * factor
        super().update_step(gradient, variable, rate)  # type: ignore[misc]

    def _use_weight_decay(self, variable: Any) -> bool:
        """Kernels decay; offsets and scales do not."""
        return len(variable.shape) > 1

    def get_config(self) -> dict[str, Any]:
        """As plain values."""
        return {**super().get_config(), "factors": self.factors}  # type: ignore[misc]


@keras.saving.register_keras_serializable("headstart")
class LayerwiseAdamW(_Layerwise, keras.optimizers.AdamW):  # type: ignore[misc]
    """AdamW with a factor for the learning rate of each layer."""


@keras.saving.register_keras_serializable("headstart")
class LayerwiseSGD(_Layerwise, keras.optimizers.SGD):  # type: ignore[misc]
    """SGD with a factor for the learning rate of each layer."""


def make_optimizer(name: str, factors: Mapping[str, float], **choices: Any) -> Any:
    """One of the two by its name, "adamw" or "sgd".

    SGD has Nesterov's momentum of 0.9, as in BiT, and no step is longer than a gradient of length 1 makes it: the first
    gradients of a fitted head are large.
    """
    if name == SGD:
        return LayerwiseSGD(factors, momentum=0.9, nesterov=True, global_clipnorm=1.0, **choices)
    return LayerwiseAdamW(factors, **choices)
