"""OpenVINO networks compiled for this machine, and kept: converting and compiling takes seconds, reading back tenths.

How many streams there are and how many images each takes at once decides the speed, and what is best depends on the
machine. It is measured once, with the first network that comes, and written down beside the networks.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import signal
import statistics
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headstart.cache import cache_folder, write_atomically
from headstart.machine import num_cores
from headstart.networks.backend import keras

_ROUNDS = 3
_SECONDS_PER_ROUND = 0.15
_LEAST_GAIN = 1.1  # Another process's burst must not decide for ever.


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


def compile_for_here(build: Callable[[], keras.Model], identity: str) -> tuple[int, Any]:
    """A model of one input (n, h, w, 3) as ``openvino.CompiledModel``, and how many images it takes at a time.

    Args:
        build: makes the network, where it is not kept yet.
        identity: what tells it from every other; "" means that nothing is kept and nothing measured.
    """
    import openvino

    logging.getLogger("openvino").setLevel(logging.ERROR)
    core = openvino.Core()
    machine = f"{core.get_property('CPU', 'FULL_DEVICE_NAME')}, {num_cores()} cores, openvino {openvino.get_version()}"
    setting = _remembered(machine) if identity else default_setting()
    if setting and (kept := _read(core, _path(identity, machine, setting), setting)):
        return setting.batch_size, kept
    model = build()
    with warnings.catch_warnings(), _ctrl_c_heard():
        # The converter calls the model with a list of inputs, of which Keras warns.
        warnings.simplefilter("ignore", UserWarning)
        converted = openvino.convert_model(model)
    if setting is None:
        setting = _fastest(core, converted, model.inputs[0].shape[1:])
        _remember(machine, setting)
    compiled = _compile(core, converted, model.inputs[0].shape[1:], setting)
    if identity:
        _keep(compiled, _path(identity, machine, setting))
    return setting.batch_size, compiled


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


def _compile(core: Any, converted: Any, shape: tuple[int, ...], setting: Setting) -> Any:
    converted = converted.clone()
    converted.reshape([setting.batch_size, *shape])
    return core.compile_model(converted, "CPU", _hints(setting))


def _hints(setting: Setting) -> dict[str, Any]:
    # float32 must be said, since a CPU with bfloat16 would choose that.
    return {
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": setting.streams,
        "INFERENCE_NUM_THREADS": setting.threads,
    }


# --- what is fastest here ---------------------------------------------------------------------------------------------


def _fastest(core: Any, converted: Any, shape: tuple[int, ...]) -> Setting:
    """The default, unless another setting is clearly faster."""
    compiled = {setting: _compile(core, converted, shape, setting) for setting in _candidates()}
    rates: dict[Setting, list[float]] = {setting: [] for setting in compiled}
    for number in range(_ROUNDS + 1):
        for setting, network in compiled.items():
            rate = _images_per_second(network, shape, setting)
            if number:  # The first round warms up.
                rates[setting].append(rate)
    speeds = {setting: statistics.median(each) for setting, each in rates.items()}
    best = max(speeds, key=lambda setting: speeds[setting])
    return best if speeds[best] > _LEAST_GAIN * speeds[default_setting()] else default_setting()


def _images_per_second(network: Any, shape: tuple[int, ...], setting: Setting) -> float:
    requests = [network.create_infer_request() for _ in range(setting.streams)]
    pixels = np.zeros((setting.batch_size, *shape), np.uint8)
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < _SECONDS_PER_ROUND:
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
    return _folder() / f"{_digest(identity, machine, keras.__version__, str(setting))}.blob"


def _digest(*texts: str) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:32]


def _keep(compiled: Any, path: Path) -> None:
    """A hash of its own stands before it. A cache that cannot be written costs time at the next start, nothing else."""
    with contextlib.suppress(OSError):
        stream = io.BytesIO()
        compiled.export_model(stream)
        data = stream.getvalue()
        with write_atomically(path) as file:
            file.write(hashlib.sha256(data).digest())
            file.write(data)


def _read(core: Any, path: Path, setting: Setting) -> Any:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # `headstart cache prune` removes what was not used for longest.
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        return None
    try:
        return core.import_model(io.BytesIO(data[32:]), "CPU", _hints(setting))
    except RuntimeError:  # OpenVINO does not read what another build of it wrote.
        return None
