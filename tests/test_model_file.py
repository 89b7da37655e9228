from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest

from headstart.errors import RunError
from headstart.learning.model_file import load_model, save_model
from headstart.networks.backend import keras
from tiny import tiny_backbone


def small_model():
    pixels = keras.Input((4, 4, 3), name="pixels")
    return keras.Model(pixels, keras.layers.Dense(2)(keras.layers.Flatten()(pixels)))


@pytest.fixture
def saved(tmp_path):
    save_model(small_model(), tmp_path / "model.keras")
    return tmp_path / "model.keras"


def rewrite(path, change):
    """Change the description inside a ``.keras`` file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    changed = change(config)
    members["config.json"] = json.dumps(config if changed is None else changed).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.mark.backend
def test_gives_back_the_same_model(tmp_path):
    model = tiny_backbone().model
    save_model(model, tmp_path / "deep" / "model.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    loaded = load_model(tmp_path / "deep" / "model.keras")
    assert np.array_equal(np.asarray(loaded.predict(pixels, verbose=0)), np.asarray(model.predict(pixels, verbose=0)))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model.keras"]


def test_a_failed_save_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()
    model = small_model()

    def fail(path, *_, **__):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(model, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        save_model(model, saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_refuses_a_lambda(tmp_path):
    pixels = keras.Input((4, 4, 3))
    model = keras.Model(pixels, keras.layers.Lambda(lambda tensor: tensor * 2)(pixels))
    model.save(tmp_path / "model.keras")
    with pytest.raises(RunError) as error:
        load_model(tmp_path / "model.keras")
    assert str(error.value) == (
        f"{tmp_path / 'model.keras'} was refused: it holds keras.layers.Lambda, which could run code."
    )


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("subprocess", "Popen"), ("keras.layers", "TFSMLayer"), ("keras.src.layers", "Lambda"),
     ("headstart.cli", "main"), ("kerasx", "Dense"), ("builtins", "exec"), ("keras.utils", "get_file"),
     ("__main__", "Dense"), ("keras.layers", "TorchModuleWrapper"), ("keras.layers", "JaxLayer"),
     ("builtins", "function")],
)  # fmt: skip
def test_refuses_what_is_no_layer_of_keras(saved, module, name):
    def change(config):
        config["config"]["layers"][1] |= {"module": module, "class_name": name}

    rewrite(saved, change)
    with pytest.raises(RunError):
        load_model(saved)


def test_refuses_foreign_classes_however_deep(saved):
    def change(config):
        config["config"]["layers"][2]["config"]["kernel_initializer"] = {
            "module": "os", "class_name": "system", "config": {"command": "touch ran"}
        }  # fmt: skip

    rewrite(saved, change)
    with pytest.raises(RunError, match=r"it holds os\.system, which could run code"):
        load_model(saved)


@pytest.mark.parametrize("description", [[], None, 3, {}, {"class_name": "Functional"}, {"class_name": 3}])
def test_refuses_other_descriptions(saved, description):
    rewrite(saved, lambda _: description if description is not None else "null")
    with pytest.raises(RunError, match=r"model\.keras"):
        load_model(saved)


def test_refuses_a_description_without_end(saved):
    def deepen(config):
        nest = []
        for _ in range(900):
            nest = [nest]
        config["config"]["layers"] = nest

    rewrite(saved, deepen)
    with pytest.raises(RunError):
        load_model(saved)


def test_refuses_what_is_no_zip_and_what_is_cut_short(saved):
    whole = saved.read_bytes()
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme.txt", "no model")
    cases = [b"", b"not a zip", other.getvalue(), *(whole[: len(whole) * part // 10] for part in range(1, 10))]
    for data in cases:
        saved.write_bytes(data)
        with pytest.raises(RunError, match=r"model\.keras cannot be loaded: it is damaged, or no Keras 3 model"):
            load_model(saved)


def test_flipped_bytes_raise_nothing_else(saved):
    whole = saved.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(30):
        broken = bytearray(whole)
        for place in random.integers(0, len(whole), 3):
            broken[place] ^= int(random.integers(1, 256))
        saved.write_bytes(bytes(broken))
        try:
            load_model(saved)
        except RunError as error:
            assert "model.keras" in str(error)


def test_says_that_there_is_no_file(tmp_path):
    with pytest.raises(RunError) as error:
        load_model(tmp_path / "model.keras")
    assert str(error.value) == f"{tmp_path / 'model.keras'} does not exist."
