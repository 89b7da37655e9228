"""Which backend Keras computes on, and Keras itself: it is imported when it is first asked for anything.

Take Keras from here, so that the choice comes before Keras does, and so that work whose results are all in the cache
does not wait for it: the import takes two to five seconds.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from headstart.errors import MissingExtraError, UnknownNameError

BACKENDS = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}

_FOR_INFERENCE = ("openvino", "numpy")  # Keras has these too; nothing can be trained with them.
_DISTRIBUTIONS = {"tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tensorflow-macos", "tf-nightly")}
_SIGNS_OF_A_GPU = (
    *("dev/nvidia*", "proc/driver/nvidia", "sys/module/nvidia"),  # The files in dev come with the first who asks.
    *("dev/nvhost*", "dev/nvgpu*", "dev/nvmap"),  # Jetson.
    *("dev/kfd", "dev/dxg"),  # AMD; Windows, seen from WSL.
)
_IMPORTING = threading.RLock()
_STARTUP_LINE = re.compile(rb"[IW]\d{4} |WARNING: All log messages before absl::InitializeLog")


def choose_backend() -> str:
    """Set ``KERAS_BACKEND`` to the first installed of tensorflow, jax and torch, unless it is set already.

    Raises:
        MissingExtraError: none of them is installed, or not the one that is asked for.
        UnknownNameError: another one is asked for.
    """
    chosen = os.environ.get("KERAS_BACKEND", "")
    if not chosen:
        installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
        if not installed:
            raise MissingExtraError("Running a network", "a Keras backend (TensorFlow, JAX or PyTorch)", "tensorflow")
        chosen = os.environ["KERAS_BACKEND"] = installed[0]
    elif chosen not in {*BACKENDS, *_FOR_INFERENCE}:
        raise UnknownNameError("KERAS_BACKEND", chosen, BACKENDS)
    elif chosen in BACKENDS and not importlib.util.find_spec(chosen):
        raise MissingExtraError(f"KERAS_BACKEND={chosen}", chosen, chosen)
    return chosen


def backend_name() -> str:
    """Which backend Keras computes on, or will once it is imported."""
    if "keras" in sys.modules:  # Somebody else imported it, perhaps, and before the choice; or another thread does now.
        return str(importlib.import_module("keras").backend.backend())
    return choose_backend()


def backend_version() -> str:
    """The version of the backend, without importing it; of one that goes by a name of its own, when it came."""
    name = backend_name()
    for distribution in _DISTRIBUTIONS.get(name, (name,)):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    found = importlib.util.find_spec(name)
    return str(Path(found.origin).stat().st_mtime_ns) if found and found.origin else ""


def keras_version() -> str:
    """The version of Keras, without importing it."""
    return importlib.metadata.version("keras")


@functools.cache
def has_gpu() -> bool:
    """Whether Keras computes on an accelerator here: its backend has one, and takes it by itself."""
    backend = backend_name()
    if backend == "tensorflow" and _surely_without_gpu():
        return False
    if backend == "jax":
        import jax

        return bool(jax.default_backend() != "cpu")
    if backend == "torch":
        import torch

        return bool(torch.cuda.is_available() or torch.backends.mps.is_available())
    load_keras()  # TensorFlow imports it, and would do so without what is seen to here.
    import tensorflow

    return bool(tensorflow.config.list_physical_devices("GPU"))


def _surely_without_gpu() -> bool:
    """Whether the system shows no device that TensorFlow could compute on, which is known without importing it."""
    if sys.platform != "linux":
        return False
    devices = (each for pattern in _SIGNS_OF_A_GPU for each in Path("/").glob(pattern))
    plugins = (each for folder in sys.path for each in Path(folder, "tensorflow-plugins").glob("*"))
    return not any(devices) and not any(plugins)


@contextlib.contextmanager
def mixed_precision_on_gpu() -> Iterator[None]:
    """Layers that are made inside compute in bfloat16 on a GPU, from float32 weights; on a CPU, where that is no
    faster, in float32 as ever.

    Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740. The range of bfloat16 is that of float32, so no loss has
    to be scaled.
    """
    before = keras.config.dtype_policy()
    if has_gpu():
        keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def _without_startup_lines() -> Iterator[None]:
    """Drop what TensorFlow says of itself when it is imported; all else that is written to stderr comes after it.

    Its C++ writes some lines before it reads TF_CPP_MIN_LOG_LEVEL, straight to the file descriptor.
    """
    try:
        stderr = os.dup(2)
    except OSError:  # It is closed.
        yield
        return
    with tempfile.TemporaryFile() as kept, os.fdopen(stderr, "wb") as stream:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stream.fileno(), 2)
            kept.seek(0)
            with contextlib.suppress(OSError):
                stream.writelines(line for line in kept if not _STARTUP_LINE.match(line))
                stream.flush()


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """An import makes a million objects and no garbage: looking for some in TensorFlow's takes 0.7 of 3 seconds.

    Afterwards they are old at once, instead of being looked through twice on their way there.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # Else somebody else's would thaw, or Python 3.12's own.
            gc.freeze()
            gc.unfreeze()  # What was frozen thaws into the oldest generation.
        if was_on:
            gc.enable()


class _Lazy(ModuleType):
    """Keras, imported when it is first asked for anything."""

    def __getattr__(self, name: str) -> Any:
        """What Keras has by that name; it is remembered here."""
        found = getattr(_imported(), name)
        setattr(self, name, found)
        return found

    def __dir__(self) -> list[str]:
        """What Keras has."""
        return dir(_imported())


def load_keras() -> None:
    """Import Keras now, so that nobody's clock counts it."""
    _imported()


def _imported() -> ModuleType:
    with _IMPORTING:
        if "keras" in sys.modules:
            return importlib.import_module("keras")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        with _without_startup_lines(), _without_collecting():
            return importlib.import_module("keras")


choose_backend()
if TYPE_CHECKING:
    import keras
else:
    keras = _Lazy("keras")

__all__ = [
    "backend_name",
    "backend_version",
    "choose_backend",
    "has_gpu",
    "keras",
    "keras_version",
    "load_keras",
    "mixed_precision_on_gpu",
]
