"""AdamW with a smaller step the deeper a layer lies below the head.

What a network learnt first (edges, textures) holds for any picture and should hardly move: layer-wise learning-rate
decay, which Keras does not have. From ULMFiT (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146) and BEiT
(https://arxiv.org/abs/2106.08254). AdamW is of Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headstart.networks.backend import keras


@keras.saving.register_keras_serializable("headstart")
class LayerwiseAdamW(keras.optimizers.AdamW):  # type: ignore[misc]
    """AdamW with a factor for the learning rate of each layer.

    It is used in training alone; the model that is returned is compiled without it.
    """

    def __init__(self, factors: Mapping[str, float] | None = None, **choices: Any) -> None:
        """Take the factors by the names of layers; a layer without one learns at the full rate.

        Args:
            factors: what the learning rate is multiplied by.
            **choices: of ``keras.optimizers.AdamW``.
        """
        super().__init__(**choices)
        self.factors = dict(factors or {})
        self._factors: list[float] = []

    def build(self, variables: Any) -> None:
        """Make what is kept of each weight, and note its factor. Call it before the first step."""
        if not self._factors:
            self._factors = [self.factors.get(each.path.rpartition("/")[0], 1.0) for each in variables]
        super().build(variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Take one step with one weight, at the rate of its layer."""
        factor = self._factors[int(self._get_variable_index(variable))]
        super().update_step(gradient, variable, keras.ops.cast(learning_rate, variable.dtype) * factor)

    def _use_weight_decay(self, variable: Any) -> bool:
        """Kernels decay; offsets and scales do not."""
        return len(variable.shape) > 1

    def get_config(self) -> dict[str, Any]:
        """As plain values."""
        return {**super().get_config(), "factors": self.factors}
