"""Which backend Keras computes on. Import Keras from here, so that the choice comes before Keras does."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.util
import os
import re
import tempfile
from collections.abc import Iterator

from headstart.errors import MissingExtraError

BACKENDS = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}

_STARTUP_LINE = re.compile(rb"[IW]\d{4} |WARNING: All log messages before absl::InitializeLog")


def choose_backend() -> str:
    """Set ``KERAS_BACKEND`` to the first installed of tensorflow, jax and torch, unless it is set already.

    Raises:
        MissingExtraError: none of them is installed, or not the one that is asked for.
    """
    chosen = os.environ.get("KERAS_BACKEND", "")
    if not chosen:
        installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
        if not installed:
            raise MissingExtraError("Running a network", "a Keras backend (TensorFlow, JAX or PyTorch)", "tensorflow")
        chosen = os.environ["KERAS_BACKEND"] = installed[0]
    elif chosen in BACKENDS and not importlib.util.find_spec(chosen):
        raise MissingExtraError(f"KERAS_BACKEND={chosen}", chosen, chosen)
    return chosen


@functools.cache
def has_gpu() -> bool:
    """Whether Keras computes on an accelerator here: its backend has one, and takes it by itself."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return bool(jax.default_backend() != "cpu")
    if backend == "torch":
        import torch

        return bool(torch.cuda.is_available() or torch.backends.mps.is_available())
    import tensorflow

    return bool(tensorflow.config.list_physical_devices("GPU"))


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


choose_backend()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
with _without_startup_lines(), _without_collecting():
    import keras

__all__ = ["choose_backend", "has_gpu", "keras", "mixed_precision_on_gpu"]
