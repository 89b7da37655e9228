"""AdamW whose steps are relative to what a network has learnt, and smaller the deeper a layer lies below the head.

Adam moves every weight by about the learning rate, however small the weight is. In a pretrained network with frozen
BatchNormalization that is ruin: MobileNetV2's last depthwise filters have weights of a hundredth that are multiplied by
fifty afterwards, and what is no more than dust elsewhere upsets every answer there. So the step of each filter is
multiplied by the root mean square of its weights as they were pretrained, as LARS (You et al. 2017,
https://arxiv.org/abs/1708.03888) and Adafactor (Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235) do for whole
layers: the learning rate is then the part of itself by which a weight changes in a step.

What a network learnt first (edges, textures) holds for any picture and should hardly move: layer-wise learning-rate
decay, which Keras does not have. From ULMFiT (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146) and BEiT
(https://arxiv.org/abs/2106.08254). AdamW is of Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.networks.backend import keras

BIAS = 20.0
_SMALLEST_SIZE = 1e-3  # Of the weights of a filter that has none to speak of, and of offsets that begin at zero.


@keras.saving.register_keras_serializable("headstart")
class LayerwiseAdamW(keras.optimizers.AdamW):  # type: ignore[misc]
    """AdamW with steps relative to the weights, and a factor for the learning rate of each layer.

    It is used in training alone; the model that is returned is compiled without it.
    """

    def __init__(
        self, factors: Mapping[str, float] | None = None, sizes: Mapping[str, float] | None = None, **choices: Any
    ) -> None:
        """Take the factors by the names of layers; a layer without one learns at the full rate.

        Args:
            factors: what the learning rate is multiplied by.
            sizes: of weights by their path, where they are not to be taken from the weights.
            **choices: of ``keras.optimizers.AdamW``; the learning rate is relative to the weights.
        """
        super().__init__(**choices)
        self.factors, self.sizes = dict(factors or {}), dict(sizes or {})
        self._factors: list[float] = []
        self._sizes: list[Any] = []

    def build(self, variables: Any) -> None:
        """Make what is kept of each weight, and note its factor and size. Call it before the first step."""
        if not self._sizes:
            self._factors = [self.factors.get(each.path.rpartition("/")[0], 1.0) for each in variables]
            self._sizes = [
                np.float32(self.sizes[each.path])
                if each.path in self.sizes
                else sizes_of(np.asarray(keras.ops.convert_to_numpy(each.value)))
                for each in variables
            ]
        super().build(variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Take one step with one weight, relative to its size and at the rate of its layer."""
        number = int(self._get_variable_index(variable))
        relative = keras.ops.convert_to_tensor(self._factors[number] * self._sizes[number], variable.dtype)
        super().update_step(gradient, variable, keras.ops.cast(learning_rate, variable.dtype) * relative)

    def _use_weight_decay(self, variable: Any) -> bool:
        """Kernels decay. Offsets and scales do not, and what hardly learns should not be pulled to zero either."""
        return len(variable.shape) > 1 and self._factors[int(self._get_variable_index(variable))] == 1.0

    def get_config(self) -> dict[str, Any]:
        """As plain values."""
        return {**super().get_config(), "factors": self.factors, "sizes": self.sizes}


def sizes_of(weights: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The root mean square of the weights of each filter, of a shape that multiplies them.

    Args:
        weights: of a convolution (h, w, c, filters): one size for each filter; where there is one filter, as in a
            depthwise convolution, for each channel; of a dense layer (inputs, units): for each input, since features
            differ more in size than answers do; of an offset: one.
    """
    if weights.ndim < 2:
        axes: tuple[int, ...] = tuple(range(weights.ndim))
    elif weights.ndim == 2:
        axes = (1,)
    else:
        axes = (0, 1) if weights.shape[-1] == 1 else tuple(range(weights.ndim - 1))
    size = np.sqrt(np.mean(np.square(weights, dtype=np.float64), axis=axes, keepdims=True))
    sizes: npt.NDArray[np.float32] = np.maximum(size, _SMALLEST_SIZE).astype(np.float32)
    return sizes
