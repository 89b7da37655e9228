"""What a backbone does beyond the contract of every row (test_contract.py): views, seeds, names."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.errors import DataError, UnknownNameError
from headstart.networks.backbone import FLIPS, build_backbone, fingerprint, flip_views, preprocess
from headstart.networks.backend import keras
from headstart.networks.catalogue import SEED, choose_backbones, find_backbone
from headstart.networks.weights import find_weights
from headstart.pictures.views import VIEWS


def noise(size, number=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (number, size, size, 3), np.uint8)


def run(model, pixels):
    return np.asarray(model.predict(pixels, verbose=0))


@pytest.mark.backend
def test_prepares_pixels_as_pytorch_does():
    pixels = noise(8)
    symbolic = keras.Input((8, 8, 3), dtype="uint8")
    alone = keras.Model(symbolic, preprocess(symbolic, "torch"))
    theirs = keras.applications.imagenet_utils.preprocess_input(pixels.copy(), mode="torch")
    np.testing.assert_allclose(run(alone, pixels), theirs, atol=1e-5)


def test_names_are_found_whatever_their_case():
    assert find_backbone("mobilenetv2").name == "MobileNetV2"
    with pytest.raises(UnknownNameError) as error:
        find_backbone("ResNet5")
    assert str(error.value).startswith("There is no backbone 'ResNet5'. Did you mean ResNet50")
    with pytest.raises(UnknownNameError) as error:
        find_backbone("qqq")
    assert str(error.value) == (
        "There is no backbone 'qqq'. Known: VGG16, VGG19, ResNet50, ResNet101, InceptionV3, Xception, MobileNet, "
        "MobileNetV2 and 62 more, which 'headstart models' lists."
    )


def test_groups_of_names_are_rows_each_once():
    assert SEED == ("VGG16", "VGG19", "ResNet50", "ResNet101", "InceptionV3", "Xception", "MobileNet", "MobileNetV2")
    assert tuple(spec.name for spec in choose_backbones(["seed"])) == SEED
    assert [spec.name for spec in choose_backbones(["xception", "Seed", "DenseNet121"])] == [
        "Xception",
        *(name for name in SEED if name != "Xception"),
        "DenseNet121",
    ]
    assert len(choose_backbones(["all", "seed"])) == 40 + len(choose_backbones(["hub"]))
    with pytest.raises(UnknownNameError, match="Did you mean Xception"):
        choose_backbones(["seed", "Xeption"])


@pytest.mark.backend
def test_views_inside_the_network_are_those_outside():
    pixels = noise(5)
    inside = np.asarray(flip_views(keras.ops.convert_to_tensor(pixels)))
    assert tuple(VIEWS) == FLIPS
    assert np.array_equal(inside, np.concatenate([VIEWS[view](pixels) for view in FLIPS]))


@pytest.mark.backend
def test_a_backbone_of_several_views_runs_each():
    spec = find_backbone("MobileNet")
    weights = find_weights(spec, "none")
    plain, four = (build_backbone(spec, weights, 32, seed=5, **more) for more in ({}, {"views": FLIPS}))
    assert plain.fingerprint == four.fingerprint
    pixels = noise(32, 3)
    expected = np.concatenate([run(plain.model, np.ascontiguousarray(VIEWS[view](pixels))) for view in FLIPS])
    np.testing.assert_allclose(np.asarray(four.model(pixels, training=False)), expected, atol=1e-5)


@pytest.mark.backend
def test_a_seed_repeats_random_weights_and_the_fingerprint_tells_networks_apart(backbone_of):
    spec = find_backbone("MobileNet")
    weights = find_weights(spec, "none")
    first = backbone_of("MobileNet")
    assert build_backbone(spec, weights, 32, seed=1).fingerprint == first.fingerprint
    other = build_backbone(spec, weights, 32, seed=2)
    assert other.fingerprint != first.fingerprint
    values = other.model.get_weights()
    values[0].flat[0] = np.nextafter(values[0].flat[0], 1)
    before = other.fingerprint
    other.model.set_weights(values)
    assert fingerprint(other.model) != before


def test_a_network_that_keras_does_not_build_is_named(monkeypatch):
    def refuse(**arguments):
        raise ValueError("not available here")

    monkeypatch.setattr(keras.applications, "NASNetMobile", refuse)
    spec = find_backbone("NASNetMobile")
    with pytest.raises(DataError, match=r"Keras does not build NASNetMobile on the backend '\w+': not available here"):
        build_backbone(spec, find_weights(spec, "none"), 32)
