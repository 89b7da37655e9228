"""What runs a frozen network: OpenVINO on a CPU where it is installed, else Keras itself.

Against Keras in float32, OpenVINO in float32 agrees to 1e-5 and is two to four times as fast on a CPU. Half precision
is twice as fast again but moves features far enough to cost a head several points of accuracy, so it is never used.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import warnings
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from headstart.networks.backend import keras

BATCH_SIZE = 16  # On two cores larger batches are no faster, and smaller ones leave OpenVINO waiting.

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.float32]


class Engine(Protocol):
    """Runs one frozen network.

    Attributes:
        name: engine, version and precision: part of what its results are stored under.
    """

    name: str

    def run(self, pixels: Pixels) -> Rows:
        """Pixels (n, h, w, 3) uint8, n up to `BATCH_SIZE`, to rows (n, d) float32."""
        ...


class KerasEngine:
    """Keras on whatever backend and device it is set up for."""

    def __init__(self, model: keras.Model) -> None:
        """Take a model of one input and one output of shape (n, d)."""
        self.name = keras_engine_name()
        self._model = model

    def run(self, pixels: Pixels) -> Rows:
        """See `Engine.run`."""
        padded = _padded(pixels)  # One shape, so that JAX and TensorFlow compile once.
        return np.asarray(self._model.predict_on_batch(padded), np.float32)[: len(pixels)]


class OpenVinoEngine:
    """OpenVINO on the CPU, in float32."""

    def __init__(self, model: keras.Model) -> None:
        """Convert and compile a model of one input and one output of shape (n, d)."""
        import openvino

        self.name = openvino_engine_name()
        with warnings.catch_warnings():
            # The converter calls the model with a list of inputs, of which Keras warns.
            warnings.simplefilter("ignore", UserWarning)
            converted = openvino.convert_model(model)
        converted.reshape([BATCH_SIZE, *model.inputs[0].shape[1:]])
        # With the throughput hint one synchronous call would use one core; float32 must be said, since a CPU with
        # bfloat16 would choose that.
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        self._compiled = openvino.Core().compile_model(converted, "CPU", hints)

    def run(self, pixels: Pixels) -> Rows:
        """See `Engine.run`."""
        return np.array(self._compiled(_padded(pixels))[0][: len(pixels)])


def engine_name() -> str:
    """What `make_engine` would make, known without making it."""
    return openvino_engine_name() if _use_openvino() else keras_engine_name()


def keras_engine_name() -> str:
    """The name of the Keras engine on this backend."""
    return f"keras {keras.__version__} {keras.backend.backend()} fp32"


def openvino_engine_name() -> str:
    """The name of the OpenVINO engine of this version."""
    return f"openvino {importlib.metadata.version('openvino')} fp32"


def make_engine(model: keras.Model) -> Engine:
    """The fastest engine here for a frozen model."""
    if not _use_openvino():
        return KerasEngine(model)
    logging.getLogger("openvino").setLevel(logging.ERROR)
    return OpenVinoEngine(model)


def _use_openvino() -> bool:
    """OpenVINO reads Keras models through TensorFlow's tracing, and has no use beside a GPU."""
    if keras.backend.backend() != "tensorflow" or not importlib.util.find_spec("openvino"):
        return False
    import tensorflow

    return not tensorflow.config.list_physical_devices("GPU")


def _padded(pixels: Pixels) -> npt.NDArray[Any]:
    if len(pixels) == BATCH_SIZE:
        return pixels
    return np.concatenate([pixels, np.zeros((BATCH_SIZE - len(pixels), *pixels.shape[1:]), np.uint8)])
