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

_GPU_DEVICES = ("nvidia*", "nvhost*", "nvgpu*", "nvmap", "kfd", "dxg")  # NVIDIA's, Jetson's, AMD's, Windows's in WSL.
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
    elif chosen not in BACKENDS:
        raise UnknownNameError("KERAS_BACKEND", chosen, BACKENDS)
    elif not importlib.util.find_spec(chosen):
        raise MissingExtraError(f"KERAS_BACKEND={chosen}", chosen, chosen)
    return chosen


def backend_name() -> str:
    """Which backend Keras computes on, or will once it is imported."""
    imported = sys.modules.get("keras")  # By somebody else, perhaps, and before the choice.
    return str(imported.backend.backend()) if imported else choose_backend()


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
    import tensorflow

    return bool(tensorflow.config.list_physical_devices("GPU"))


def _surely_without_gpu() -> bool:
    """Whether the system shows no device that TensorFlow could compute on, which is known without importing it."""
    if sys.platform != "linux":
        return False
    devices = (each for pattern in _GPU_DEVICES for each in Path("/dev").glob(pattern))
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

    _lock = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        """What Keras has by that name; it is remembered here."""
        with self._lock:
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
    "choose_backend",
    "has_gpu",
    "keras",
    "keras_version",
    "load_keras",
    "mixed_precision_on_gpu",
]
