"""OpenVINO networks compiled for this machine, and kept: converting and compiling takes seconds, reading back tenths.

How many streams there are and how many images each takes at once decides the speed, and what is best depends on the
machine. It is measured once, with the first network that comes, and written down beside the networks.

A converter may be wrong, and nobody would see it in the features. So each network that is converted is asked about one
image, and Keras too.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import json
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headstart.cache import cache_folder, read_kept, write_atomically, write_sealed
from headstart.errors import DataError, GuardError
from headstart.machine import num_cores
from headstart.networks.backend import keras, keras_version
from headstart.networks.intel import import_openvino, quantise
from headstart.networks.precision import FP32, Precision

_KIND = "outputs in order"  # Of what is kept; what was kept before is compiled again.
_ROUNDS = 3
_SECONDS_PER_ROUND = 0.15
_LEAST_GAIN = 1.1  # Another process's burst must not decide for ever.
_LARGEST_DIFFERENCE = 1e-3  # Relative; 1e-5 is usual, and the least fault that was ever seen is 3e-3.
_SQUARE = 16  # Pixels, of the image that is asked about: edges and even places.


class Setting(NamedTuple):
    """How a network is run.

    Attributes:
        batch_size: images at a time in each stream.
        streams: how many run beside each other.
        threads: of all streams together.
    """

    batch_size: int
    streams: int
    threads: int


def compile_for_here(build: Callable[[], keras.Model], identity: str, precision: Precision = FP32) -> tuple[int, Any]:
    """A model of one input (n, h, w, 3) as ``openvino.CompiledModel``, and how many images it takes at a time.

    Args:
        build: makes the network, where it is not kept yet.
        identity: what tells it from every other, its precision included; "" means that nothing is kept or measured.
        precision: what it computes in.

    Raises:
        DataError: the processor has no bfloat16, or there are no samples to quantise with.
        GuardError: in float32 it gives other numbers than Keras.
        MissingExtraError: NNCF is not installed, which quantises.
    """
    openvino = import_openvino()
    core = openvino.Core()
    _check_precision(core, precision)
    machine = f"{core.get_property('CPU', 'FULL_DEVICE_NAME')}, {num_cores()} cores, openvino {openvino.get_version()}"
    machine += "" if precision.name == "fp32" else f", {precision.name}"
    setting = _remembered(machine) if identity else default_setting()
    if setting and (kept := _read(core, _path(identity, machine, setting), _hints(setting, precision))):
        return setting.batch_size, kept
    model = build()
    with _ctrl_c_heard():
        traced = _traced(model)
        converted = _converted(traced, model.name)
    if precision.name == "int8":
        converted = quantise(converted, precision.samples(), half_range=precision.half_range)
    shape = model.inputs[0].shape[1:]

    def compiled_as(setting: Setting) -> Any:
        network = converted.clone()
        network.reshape([setting.batch_size, *shape])
        return core.compile_model(network, "CPU", _hints(setting, precision))

    if setting is None:
        setting = _fastest(compiled_as, shape)
        _remember(machine, setting)
    compiled = compiled_as(setting)
    if precision.name == "fp32":
        _check_against_keras(traced, compiled, setting, model.name)
    if identity:
        _keep(compiled, _path(identity, machine, setting))
    return setting.batch_size, compiled


def _traced(model: keras.Model) -> Any:
    """The model as a TensorFlow function of pixels, its outputs by `_output_name`.

    Of a Keras model OpenVINO looks up each variable among all others, again for each node that reads it, which is half
    of its time. So it is given a function of values instead.
    """
    import tensorflow

    weights = [
        [tensorflow.convert_to_tensor(variable.value) for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]

    def outputs_by_name(pixels: Any) -> dict[str, Any]:
        outputs, _ = model.stateless_call(*weights, pixels, training=False)
        return {_output_name(number): output for number, output in enumerate(keras.tree.flatten(outputs))}

    (pixels,) = model.inputs
    taken = tensorflow.TensorSpec(pixels.shape, pixels.dtype)
    return tensorflow.function(outputs_by_name, autograph=False).get_concrete_function(taken)


def _output_name(number: int) -> str:
    return f"output {number}"


def _converted(traced: Any, name: str) -> Any:
    """The function as ``openvino.Model``, its outputs in the model's order: the converter sorts them by name.

    It copies the weights, since they are gone with the function.
    """
    openvino = import_openvino()
    converted = openvino.convert_model(traced, share_weights=False)
    results = [converted.output(_output_name(number)).get_node() for number in range(len(converted.outputs))]
    return openvino.Model(results, converted.get_parameters(), name)


def _check_against_keras(traced: Any, compiled: Any, setting: Setting, name: str) -> None:
    """Ask all streams about one image at once, and Keras."""
    _, height, width, channels = traced.inputs[0].shape
    squares = -(-height // _SQUARE), -(-width // _SQUARE), channels
    colours = np.random.default_rng(0).integers(0, 256, squares, np.uint8)
    pixels = colours.repeat(_SQUARE, 0).repeat(_SQUARE, 1)[None, :height, :width]
    answers = traced(keras.ops.convert_to_tensor(pixels))
    expected = [answers[_output_name(number)].numpy()[0] for number in range(len(answers))]
    requests = [compiled.create_infer_request() for _ in range(setting.streams)]
    for request in requests:
        request.start_async({0: pixels.repeat(setting.batch_size, 0)})
    for request in requests:
        request.wait()
    for request in requests:
        for output, tensor in zip(expected, request.output_tensors, strict=True):
            difference = np.linalg.norm((tensor.data - output).reshape(setting.batch_size, -1), axis=1).max()
            length = np.linalg.norm(output)
            if not difference <= _LARGEST_DIFFERENCE * length:  # Nor if it is no number.
                raise GuardError(
                    f"OpenVINO {importlib.metadata.version('openvino')} gives other features of {name} than Keras: on "
                    f"an image made up to test it they differ by {difference / length:.1g} of their length, where "
                    f"{_LARGEST_DIFFERENCE} is allowed. Nothing of it is kept. Without it Keras computes them, more "
                    "slowly: pip uninstall openvino. Please report it."
                )


@contextlib.contextmanager
def _ctrl_c_heard() -> Iterator[None]:
    """OpenVINO's converter swallows Ctrl-C, and then fails with an error of its own; here it is Ctrl-C again."""
    before = signal.getsignal(signal.SIGINT)
    ours = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if not ours:  # It is ignored, as behind nohup, or somebody else's.
        yield
        return
    pressed = threading.Event()

    def press(*_: object) -> None:
        pressed.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, press)
    try:
        yield
    except Exception as error:
        if pressed.is_set():
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed.is_set():
        raise KeyboardInterrupt


def default_setting() -> Setting:
    """One image at a time on every core."""
    return Setting(1, num_cores(), num_cores())


def _candidates() -> tuple[Setting, ...]:
    cores = num_cores()
    return tuple(dict.fromkeys((default_setting(), Setting(4, cores, cores), Setting(16, 1, cores))))


def has_bfloat16(core: Any) -> bool:
    """Whether the processor computes in bfloat16 by itself."""
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _check_precision(core: Any, precision: Precision) -> None:
    if precision.name == "bf16" and not has_bfloat16(core):
        name = core.get_property("CPU", "FULL_DEVICE_NAME")
        raise DataError(f"This processor ({name}) has no bfloat16, so it would only be slower. Use fp32 or int8.")
    if precision.name == "int8" and not precision.calibrated_on:
        raise DataError("8 bits need images to take their ranges from; there are none.")


def _hints(setting: Setting, precision: Precision) -> dict[str, Any]:
    # float32 must be said, since a CPU with bfloat16 would choose that.
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if precision.name == "bf16" else "f32",
        "NUM_STREAMS": setting.streams,
        "INFERENCE_NUM_THREADS": setting.threads,
    }


# --- what is fastest here ---------------------------------------------------------------------------------------------


def _fastest(compiled_as: Callable[[Setting], Any], shape: tuple[int, ...]) -> Setting:
    """The default, unless another setting is clearly faster; no faster in most of the rounds, it is not timed again."""
    default = default_setting()
    networks = {setting: compiled_as(setting) for setting in _candidates()}
    for setting, network in networks.items():
        _images_per_second(network, shape, setting, seconds=0.0)  # The first time is slower.
    rates: dict[Setting, list[float]] = {setting: [] for setting in networks}
    for _ in range(_ROUNDS):
        for setting, measured in rates.items():
            measured.append(_images_per_second(networks[setting], shape, setting, seconds=_SECONDS_PER_ROUND))
        least = rates[default]
        rates = {setting: each for setting, each in rates.items() if setting == default or not _is_behind(each, least)}
        if len(rates) == 1:
            return default
    speeds = {setting: statistics.median(each) for setting, each in rates.items()}
    best = max(speeds, key=lambda setting: speeds[setting])
    return best if speeds[best] > _LEAST_GAIN * speeds[default] else default


def _is_behind(rates: list[float], others: list[float]) -> bool:
    return sum(rate <= other for rate, other in zip(rates, others, strict=True)) > _ROUNDS // 2


def _images_per_second(network: Any, shape: tuple[int, ...], setting: Setting, *, seconds: float) -> float:
    """Over so many seconds, or over one turn of all streams where that takes longer."""
    requests = [network.create_infer_request() for _ in range(setting.streams)]
    pixels = np.zeros((setting.batch_size, *shape), np.uint8)
    start, done = time.perf_counter(), 0
    while not done or time.perf_counter() - start < seconds:
        for request in requests:
            request.start_async({0: pixels})
        for request in requests:
            request.wait()
        done += setting.batch_size * setting.streams
    return done / (time.perf_counter() - start)


# --- on disk ----------------------------------------------------------------------------------------------------------


def _folder() -> Path:
    return cache_folder("engines")


def _remembered(machine: str) -> Setting | None:
    try:
        setting = Setting(**json.loads(_settings_path(machine).read_bytes())["setting"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return setting if setting in _candidates() else None


def _remember(machine: str, setting: Setting) -> None:
    with contextlib.suppress(OSError), write_atomically(_settings_path(machine)) as file:
        file.write(json.dumps({"machine": machine, "setting": setting._asdict()}).encode())


def _settings_path(machine: str) -> Path:
    return _folder() / f"setting-{_digest(machine)}.json"


def _path(identity: str, machine: str, setting: Setting) -> Path:
    return _folder() / f"{_digest(identity, machine, keras_version(), str(setting), _KIND)}.blob"


def _digest(*texts: str) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:32]


def _keep(compiled: Any, path: Path) -> None:
    """A cache that cannot be written costs time at the next start, nothing else."""
    with contextlib.suppress(OSError):
        stream = io.BytesIO()
        compiled.export_model(stream)
        write_sealed(path, stream.getbuffer())


def _read(core: Any, path: Path, hints: dict[str, Any]) -> Any:
    data = read_kept(path)
    if data is None:
        return None
    try:
        return core.import_model(io.BytesIO(data), "CPU", hints)
    except RuntimeError:  # OpenVINO does not read what another build of it wrote.
        return None
