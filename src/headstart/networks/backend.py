"""Which backend Keras computes on. Import Keras from here, so that the choice comes before Keras does."""

from __future__ import annotations

import importlib.util
import os

from headstart.errors import MissingExtraError

BACKENDS = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}


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


choose_backend()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up lines would drown every message of ours.

import keras  # noqa: E402  the choice has to come first

__all__ = ["choose_backend", "keras"]
