"""How Keras is imported."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest


def test_only_the_lines_of_tensorflow_starting_up_are_dropped():
    script = """
import os
from headstart.networks import backend
os.write(2, b"I0000 00:00:1795531245.133649 1 port.cc:153] oneDNN is on.\\n")
with backend._without_startup_lines():
    os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n")
    os.write(2, b"I0000 00:00:1795531245.133649 1 port.cc:153] oneDNN is on.\\n")
    os.write(2, b"a real problem\\n")
try:
    with backend._without_startup_lines():
        os.write(2, b"before it failed\\n")
        raise ImportError("no such library")
except ImportError as error:
    os.write(2, str(error).encode())
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    first, *rest = ran.stderr.splitlines()
    assert first.startswith("I0000")  # Only while something is imported.
    assert rest == ["a real problem", "before it failed", "no such library"]


def test_what_an_import_makes_is_old_at_once_and_no_longer_frozen():
    from headstart.networks.backend import _without_collecting

    frozen = gc.get_freeze_count()  # Python 3.12 starts with some of its own, and they stay.
    with _without_collecting():
        assert not gc.isenabled()
        made = [[] for _ in range(3)]
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen
    assert frozen or any(each is made for each in gc.get_objects(generation=2))
    gc.disable()
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with _without_collecting():
            pass
        assert not gc.isenabled()  # As somebody else had it.
        assert gc.get_freeze_count() == frozen
    finally:
        gc.unfreeze()
        gc.enable()


@pytest.mark.backend
def test_no_gpu_is_seen_where_none_may_be_used():
    hidden = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    script = "from headstart.networks.backend import has_gpu; print(has_gpu())"
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, env={**os.environ, **hidden}, capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


@pytest.mark.backend
def test_half_precision_on_a_gpu_alone(monkeypatch):
    from headstart.networks import backend

    keras = backend.keras
    with backend.mixed_precision_on_gpu():
        assert keras.layers.Dense(1).compute_dtype == "float32"
    monkeypatch.setattr(backend, "has_gpu", lambda: True)
    with backend.mixed_precision_on_gpu():
        layer = keras.layers.Dense(1)
    assert (layer.compute_dtype, layer.variable_dtype) == ("bfloat16", "float32")
    assert keras.layers.Dense(1).compute_dtype == "float32"
