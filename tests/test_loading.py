"""A file of Keras's does in headstart's network what it does in Keras's own, for every family."""

from __future__ import annotations

import sys
import warnings

import h5py
import numpy as np
import pytest

from headstart.networks.backbone import build_backbone
from headstart.networks.backend import keras
from headstart.networks.catalogue import KERAS_ROWS, find_backbone
from headstart.networks.weights import find_weights

EFFICIENTNET = find_backbone("EfficientNetB0")
SMALL = {"MobileNet", "EfficientNet"}
SLOW = {"InceptionResNet"}  # 24 s, and built as InceptionV3 is.
STD = np.array([0.229, 0.224, 0.225])


def smallest_of_each_family():
    for family in dict.fromkeys(spec.family for spec in KERAS_ROWS):
        spec = min((each for each in KERAS_ROWS if each.family == family), key=lambda each: each.num_params)
        marks = [pytest.mark.backend] * (family in SMALL) + [pytest.mark.slow] * (family in SLOW)
        yield pytest.param(spec, id=spec.name, marks=marks)


def randomise(model, seed=0):
    """Kernels stay as they were drawn; statistics, scales and shifts are drawn anew, so that mistaking them shows."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        shape, name = tuple(weight.shape), weight.name
        if name.endswith("variance") or name == "gamma":
            weight.assign(random.uniform(0.2, 1.2, shape))
        elif name.endswith("mean") or name in {"beta", "bias"}:
            weight.assign(random.normal(0, 0.2, shape))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def write_as_keras_did(path, model):
    """The older layout, from Keras's own writer."""
    writer = sys.modules["keras.src.legacy.saving.legacy_h5_format"]
    with h5py.File(path, "w") as file:
        writer.save_weights_to_hdf5_group(file, model)
    return path


def keras_own(spec, size, path, monkeypatch):
    """What Keras builds with ImageNet's weights, were this file the one it downloads."""
    monkeypatch.setattr(sys.modules["keras.src.utils.file_utils"], "get_file", lambda *_, **__: str(path))
    builder = getattr(keras.applications, spec.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # That the MobileNets were trained at 224.
        model = builder(weights="imagenet", include_top=False, input_shape=(size, size, 3))
    return model, sys.modules[builder.__module__].preprocess_input


def run(model, pixels):
    # Eager: a deep network takes longer to be traced than to run.
    return keras.ops.convert_to_numpy(model(pixels, training=False))


def noise(size, number=2):
    return np.random.default_rng(0).integers(0, 256, (number, size, size, 3), np.uint8)


def load(spec, path, size):
    return build_backbone(spec, find_weights(spec, str(path)), size)


@pytest.mark.parametrize("spec", list(smallest_of_each_family()))
def test_computes_what_keras_computes_with_its_own_file(spec, tmp_path, monkeypatch):
    size = spec.smallest_size
    drawn = getattr(keras.applications, spec.name)(weights=None, include_top=False, input_shape=(size, size, 3))
    randomise(drawn)
    path = write_as_keras_did(tmp_path / "notop.h5", drawn)
    theirs, preprocess_input = keras_own(spec, size, path, monkeypatch)
    pixels = noise(size)
    expected = run(theirs, preprocess_input(pixels.astype(np.float32)))
    ours = load(spec, path, size)
    scale = np.abs(expected).max()
    assert expected.std() > 1e-3 * scale > 0
    assert np.abs(run(ours.model, pixels) - expected).max() < 1e-4 * scale
    theirs.save_weights(tmp_path / "w.weights.h5")  # As after training it further.
    assert load(spec, tmp_path / "w.weights.h5", size).fingerprint == ours.fingerprint
    keras.utils.clear_session(free_memory=False)


# --- EfficientNet's normalisation -------------------------------------------------------------------------------------


def normalisation(model):
    (layer,) = (layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))
    return layer


@pytest.mark.parametrize(("mean", "variance", "expected"), [
    (0.5, STD, STD**2),  # Keras's download: the standard deviation, where the layer takes a variance.
    (0.5, STD**2, STD**2),  # Saved from headstart's network.
    (0.0, [1, 1, 1], [1, 1, 1]),  # Trained from nothing.
    (0.5, [1, 1, 1], STD),
])  # fmt: skip
@pytest.mark.parametrize("layout", ["w.h5", "w.weights.h5"])
def test_the_variance_of_efficientnet_is_put_right_once(tmp_path, layout, mean, variance, expected):
    model = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(32, 32, 3))
    normalisation(model).set_weights([np.full(3, mean), np.array(variance), np.array(9)])
    if layout == "w.h5":
        write_as_keras_did(tmp_path / layout, model)
    else:
        model.save_weights(tmp_path / layout)
    loaded = normalisation(load(EFFICIENTNET, tmp_path / layout, 32).model)
    np.testing.assert_allclose(loaded.get_weights()[1], expected, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(loaded.variance).ravel(), expected, rtol=1e-6)
    assert loaded.get_weights()[2] == 9
