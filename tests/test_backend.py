"""How Keras is imported."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from journey import paint


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


@pytest.mark.backend
def test_no_module_imports_keras_before_it_is_needed():
    script = """
import importlib, pkgutil, sys
import headstart
theirs = ("keras", "tensorflow", "jax", "torch", "openvino")
for module in pkgutil.walk_packages(headstart.__path__, "headstart."):
    if module.name not in ("headstart.__main__", "headstart.learning.optimizer"):  # Its classes are Keras's.
        importlib.import_module(module.name)
        found = [name for name in theirs if name in sys.modules]
        assert not found, (module.name, found)
from headstart.networks.backend import keras
assert "keras" not in sys.modules
assert keras.layers.Dense
import keras as theirs
assert keras.layers is theirs.layers and keras.Model is theirs.Model and set(dir(theirs)) <= set(dir(keras))
try:
    keras.no_such_thing
except AttributeError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "no_such_thing" in ran.stdout


@pytest.mark.backend
def test_backend_and_version_are_known_before_and_after():
    script = """
import sys
from headstart.networks.backend import backend_name, backend_version, keras, keras_version
before = backend_name(), keras_version()
assert "keras" not in sys.modules
print(before == (keras.backend.backend(), keras.__version__) == (backend_name(), keras_version()))
backend = __import__(backend_name())
print(backend_version().partition("+")[0] == backend.__version__.partition("+")[0])
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "True\nTrue\n"), ran.stderr


def test_a_keras_that_somebody_imported_has_chosen(monkeypatch):
    from headstart.networks import backend

    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace(backend=SimpleNamespace(backend=lambda: "theirs")))
    assert backend.backend_name() == "theirs"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere TensorFlow is asked")
def test_tensorflow_is_asked_about_a_gpu_where_there_may_be_one(monkeypatch, tmp_path):
    from headstart.networks import backend

    monkeypatch.setattr(backend, "_SIGNS_OF_A_GPU", ("dev/no such device*",))
    assert backend._surely_without_gpu()
    monkeypatch.setattr(backend, "_SIGNS_OF_A_GPU", ("dev/no such device*", "dev/nul*"))
    assert not backend._surely_without_gpu()
    monkeypatch.setattr(backend, "_SIGNS_OF_A_GPU", ())
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "tensorflow-plugins").mkdir()
    assert backend._surely_without_gpu()
    (tmp_path / "tensorflow-plugins" / "libmetal.so").touch()
    assert not backend._surely_without_gpu()
    (tmp_path / "tensorflow-plugins" / "libmetal.so").unlink()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not backend._surely_without_gpu()


def test_a_backend_that_is_none_is_one_message_and_no_run(tmp_path):
    for seed in range(12):
        paint(tmp_path / "photos" / "ab"[seed % 2] / f"{seed}.png", (200, 0, 0), seed)
    command = [sys.executable, "-m", "headstart", "fit", str(tmp_path / "photos"), "--out", str(tmp_path / "run")]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflwo"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "'tensorflwo'" in ran.stderr
    assert "tensorflow" in ran.stderr.replace("tensorflwo", "")
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "run").exists()


def test_a_backend_that_goes_by_another_name_has_the_time_it_came(monkeypatch):
    from headstart.networks import backend

    assert backend.backend_version()
    monkeypatch.setattr(backend, "_DISTRIBUTIONS", {backend.backend_name(): ("no such distribution",)})
    assert int(backend.backend_version()) > 0


def test_threads_that_ask_at_once_wait_for_one_import(tmp_path):
    """With a Keras that is slow to come: none of them sees half of it, and what stderr was it is again."""
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "__init__.py").write_text(
        "import time\ntime.sleep(0.5)\n"
        "from types import SimpleNamespace\nbackend = SimpleNamespace(backend=lambda: 'jax')\nlayers = 'layers'\n"
    )
    script = f"""
import os, sys, threading
sys.path.insert(0, {str(tmp_path)!r})
from headstart.networks import backend
before = os.fstat(2)
said, asking = [], (lambda: backend.keras.layers, backend.load_keras, backend.backend_name) * 4
def ask(one):
    try:
        said.append(one())
    except Exception as error:
        said.append(error)
threads = [threading.Thread(target=ask, args=(one,)) for one in asking]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert os.fstat(2) == before or (os.fstat(2).st_ino == before.st_ino)
print(sorted(set(map(str, said))))
"""
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    command = [sys.executable, "-c", script]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.stdout == "['None', 'jax', 'layers']\n", ran.stderr
