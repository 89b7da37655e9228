"""What runs a frozen network: OpenVINO on a CPU where it is installed, else Keras itself.

Against Keras in float32, OpenVINO in float32 agrees to 1e-5 and is two to four times as fast on a CPU.
"""

from __future__ import annotations

import collections
import importlib.metadata
import importlib.util
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from headstart.errors import DataError
from headstart.networks.backend import backend_name, has_gpu, keras, keras_version
from headstart.networks.compiled import compile_for_here
from headstart.networks.precision import FP32, Precision

BATCH_SIZE = 16
"""The most images that `Engine.run` takes at once."""

_KERAS_BATCH = 16
_GPU_BATCH = 64  # A GPU is idle between small ones; of the largest images of the catalogue this is 1 GB of activations.
_WAITING_PER_STREAM = 2  # So that a stream always finds the next one ready.

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.float32]
Tag = TypeVar("Tag")


class Engine(Protocol):
    """Runs one frozen network.

    Attributes:
        name: engine, version and precision: part of what its results are stored under. How many images it takes at a
            time is not: every image gives the same bits whatever its company (a test holds it to that).
    """

    name: str

    def stream(self, items: Iterable[tuple[Tag, Pixels]]) -> Iterator[tuple[Tag, tuple[Rows, ...]]]:
        """Tagged pixels (h, w, 3) uint8 to float32 rows, one for each output, in order; some are taken ahead."""
        ...

    def run(self, pixels: Pixels) -> Rows:
        """Pixels (n, h, w, 3) uint8, n up to `BATCH_SIZE`, to the rows (n, ...) of the first output."""
        ...


class KerasEngine:
    """Keras on whatever backend and device it is set up for."""

    def __init__(self, build: Callable[[], keras.Model]) -> None:
        """Build a model of one input."""
        self.name = keras_engine_name()
        self._model = build()
        self._batch_size = _GPU_BATCH if has_gpu() else _KERAS_BATCH

    def stream(self, items: Iterable[tuple[Tag, Pixels]]) -> Iterator[tuple[Tag, tuple[Rows, ...]]]:
        """See `Engine.stream`."""
        waiting = iter(items)
        while batch := list(itertools.islice(waiting, self._batch_size)):
            outputs = self._run(np.stack([pixels for _, pixels in batch]))
            yield from zip((tag for tag, _ in batch), zip(*outputs, strict=True), strict=True)

    def run(self, pixels: Pixels) -> Rows:
        """See `Engine.run`."""
        return self._run(pixels)[0]

    def _run(self, pixels: Pixels) -> list[Rows]:
        padded = _padded(pixels, self._batch_size)  # One shape, so that JAX and TensorFlow compile once.
        outputs = self._model.predict_on_batch(padded)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        return [np.asarray(output, np.float32)[: len(pixels)] for output in outputs]


class OpenVinoEngine:
    """OpenVINO on the CPU: one stream for each core, and an image or a few at a time in each.

    On two cores that was 1.3 (ConvNeXtTiny) to 2.5 times (EfficientNetB0) as fast as one stream over both with a batch
    of 16: nothing waits for the other core, and what a small batch needs stays in the core's own cache.
    """

    def __init__(self, build: Callable[[], keras.Model], identity: str = "", precision: Precision = FP32) -> None:
        """Convert and compile a model of one input.

        Args:
            build: makes the network, where a compiled one is not kept already.
            identity: what tells it from every other, so that the compiled one can be kept on disk; "" keeps nothing.
            precision: what it computes in.
        """
        self.name = openvino_engine_name(precision)
        self._batch_size, self._compiled = compile_for_here(build, identity, precision)
        self._requests = [
            self._compiled.create_infer_request()
            for _ in range(_WAITING_PER_STREAM * int(self._compiled.get_property("NUM_STREAMS")))
        ]

    def stream(self, items: Iterable[tuple[Tag, Pixels]]) -> Iterator[tuple[Tag, tuple[Rows, ...]]]:
        """See `Engine.stream`."""
        waiting = iter(items)
        free = collections.deque(self._requests)
        running: collections.deque[tuple[list[Tag], Any]] = collections.deque()
        try:
            while batch := list(itertools.islice(waiting, self._batch_size)):
                if not free:
                    yield from self._finish(running, free)
                request = free.popleft()
                pixels = _padded(np.stack([each for _, each in batch]), self._batch_size)
                request.start_async({0: pixels})
                running.append(([tag for tag, _ in batch], request))
            while running:
                yield from self._finish(running, free)
        finally:
            for _, request in running:  # Interrupted: no request may be running when the next stream begins.
                request.wait()

    def _finish(
        self, running: collections.deque[tuple[list[Tag], Any]], free: Any
    ) -> Iterator[tuple[Tag, tuple[Rows, ...]]]:
        tags, request = running.popleft()
        request.wait()
        outputs = [np.array(tensor.data) for tensor in request.output_tensors]
        free.append(request)
        yield from zip(tags, zip(*outputs, strict=True), strict=False)  # What was padded has no tag.

    def run(self, pixels: Pixels) -> Rows:
        """See `Engine.run`."""
        return np.stack([rows[0] for _, rows in self.stream((None, each) for each in pixels)])


def engine_name(precision: Precision = FP32) -> str:
    """What `make_engine` would make, known without making it.

    Raises:
        DataError: only float32 can be had here.
    """
    if _use_openvino():
        return openvino_engine_name(precision)
    if precision.name != "fp32":
        raise DataError(f"Only OpenVINO on a CPU, beside TensorFlow, computes in {precision.name}; use fp32 here.")
    return keras_engine_name()


def keras_engine_name() -> str:
    """The name of the Keras engine on this backend and kind of device, which give other bits than others do."""
    on = " gpu" if has_gpu() else ""
    return f"keras {keras_version()} {backend_name()}{on} fp32"


def openvino_engine_name(precision: Precision = FP32) -> str:
    """The name of the OpenVINO engine of this version."""
    return f"openvino {importlib.metadata.version('openvino')} {precision}"


def make_engine(build: Callable[[], keras.Model], identity: str = "", precision: Precision = FP32) -> Engine:
    """The fastest engine here for a frozen model; see `OpenVinoEngine` for the arguments."""
    engine_name(precision)  # Raises where it cannot be had.
    return OpenVinoEngine(build, identity, precision) if _use_openvino() else KerasEngine(build)


def _use_openvino() -> bool:
    """OpenVINO reads Keras models through TensorFlow's tracing, and has no use beside a GPU."""
    return backend_name() == "tensorflow" and bool(importlib.util.find_spec("openvino")) and not has_gpu()


def _padded(pixels: Pixels, size: int) -> npt.NDArray[Any]:
    if len(pixels) == size:
        return pixels
    return np.concatenate([pixels, np.zeros((size - len(pixels), *pixels.shape[1:]), np.uint8)])
