"""How long a network takes for an image on this machine, through the very engine that computes features."""

from __future__ import annotations

import dataclasses
import functools
import gc
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from headstart.errors import HeadstartError
from headstart.features.pooling import feature_model
from headstart.networks.backbone import build_backbone
from headstart.networks.engine import BATCH_SIZE, Engine, make_engine
from headstart.networks.rows import BackboneSpec
from headstart.networks.weights import find_weights
from headstart.progress import Progress, silent

NUM_BATCHES = 5  # At least; the first is not counted, since it makes and compiles things.
_GLANCES, _SMALL_BATCH = 3, 4
_LEAST_SECONDS_OF_A_GLANCE = 0.3
_LEAST_SECONDS = 2.0  # Small networks run for so long, lest another process's burst be all that is seen.


@dataclasses.dataclass(frozen=True)
class Latency:
    """How long one network takes.

    Attributes:
        spec: its row of the catalogue.
        milliseconds: per image, from the median batch; None where it could not be measured.
        problem: why it could not, or "".
    """

    spec: BackboneSpec
    milliseconds: float | None
    problem: str = ""


def measure_latencies(specs: Sequence[BackboneSpec], *, progress: Progress = silent) -> Iterator[Latency]:
    """Measure networks one after another, each at its own image size; where one fails, the others go on.

    Their weights are random, so nothing is fetched: how long a network takes does not depend on them.

    Args:
        specs: rows of the catalogue.
        progress: told how many percent of the work are done.
    """
    work = [_work(spec) for spec in specs]
    for number, spec in enumerate(specs):
        tell = functools.partial(_tell, progress, before=sum(work[:number]), this=work[number], total=sum(work))
        tell(0.0)
        try:
            latency = Latency(spec, _measure(spec, tell))
        except Exception as error:  # Keras, its backend and OpenVINO each have errors of their own.
            latency = Latency(spec, None, _reason(error))
        tell(1.0)
        gc.collect()  # A Keras model is a ring of references, and the next network may need its gigabytes.
        yield latency


def _measure(spec: BackboneSpec, tell: Callable[[float], None]) -> float:
    """Milliseconds per image."""
    engine = _engine(spec)
    _seconds_of_a_batch(engine, spec.image_size, BATCH_SIZE)
    seconds: list[float] = []
    while len(seconds) < NUM_BATCHES or sum(seconds) < _LEAST_SECONDS:
        tell(min(1 + len(seconds), NUM_BATCHES) / (1 + NUM_BATCHES))
        seconds.append(_seconds_of_a_batch(engine, spec.image_size, BATCH_SIZE))
    return float(np.median(seconds)) / BATCH_SIZE * 1000


def glance(engine: Engine, image_size: int) -> float:
    """Milliseconds per image of an engine that has been running: from three small batches, or more of a fast one."""
    seconds: list[float] = []
    while len(seconds) < _GLANCES or sum(seconds) < _LEAST_SECONDS_OF_A_GLANCE:
        seconds.append(_seconds_of_a_batch(engine, image_size, _SMALL_BATCH))
    return float(np.median(seconds)) / _SMALL_BATCH * 1000


def _seconds_of_a_batch(engine: Engine, image_size: int, num_images: int) -> float:
    shape = (num_images, image_size, image_size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    start = time.perf_counter()
    engine.run(pixels)
    return time.perf_counter() - start


def _engine(spec: BackboneSpec) -> Engine:
    """The engine that would compute its features. The Keras model is let go, unless the engine keeps it."""
    return make_engine(lambda: feature_model(build_backbone(spec, find_weights(spec, "none"), spec.image_size)))


def _work(spec: BackboneSpec) -> float:
    """About how long it takes, in no unit: building, and parameters times pixels."""
    return 2.0 + spec.num_params * spec.image_size**2 / 5e11


def _tell(progress: Progress, share: float, *, before: float, this: float, total: float) -> None:
    progress("Measuring (percent)", int(100 * (before + share * this) / total), 100)


def _reason(error: Exception) -> str:
    if isinstance(error, HeadstartError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
