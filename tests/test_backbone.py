"""The contract that every row of the catalogue keeps."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from headstart.errors import DataError, UnknownNameError
from headstart.features.extract import VIEWS
from headstart.networks.backbone import FLIPS, build_backbone, fingerprint, flip_views, preprocess
from headstart.networks.backend import keras
from headstart.networks.catalogue import CATALOGUE, SEED, find_backbone
from headstart.networks.weights import find_weights

MODULES = {"VGG16": "vgg16", "VGG19": "vgg19", "ResNet50": "resnet50", "ResNet101": "resnet",
           "InceptionV3": "inception_v3", "Xception": "xception", "MobileNet": "mobilenet",
           "MobileNetV2": "mobilenet_v2"}  # fmt: skip
SMALL = {"MobileNet", "MobileNetV2"}
EVERY = pytest.mark.parametrize(
    "spec", [pytest.param(spec, id=spec.name, marks=[pytest.mark.backend] * (spec.name in SMALL)) for spec in CATALOGUE]
)


def noise(size, number=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (number, size, size, 3), np.uint8)


def run(model, pixels):
    return np.asarray(model.predict(pixels, verbose=0))


@EVERY
def test_prepares_pixels_as_keras_does(spec, backbone_of):
    theirs = importlib.import_module(f"keras.applications.{MODULES[spec.name]}").preprocess_input
    pixels = noise(spec.smallest_size)
    model = backbone_of(spec.name).model
    inside = keras.Model(model.inputs[0], model.get_layer("preprocessing").output)
    np.testing.assert_allclose(run(inside, pixels), theirs(pixels.copy()), atol=2e-5)
    floats = pixels * np.float32(0.987)
    symbolic = keras.Input(floats.shape[1:], dtype="float32")
    alone = keras.Model(symbolic, preprocess(symbolic, spec.preprocessing))
    np.testing.assert_allclose(run(alone, floats), theirs(floats.copy()), atol=2e-5)


@pytest.mark.backend
def test_prepares_pixels_as_pytorch_does():
    pixels = noise(8)
    symbolic = keras.Input((8, 8, 3), dtype="uint8")
    alone = keras.Model(symbolic, preprocess(symbolic, "torch"))
    theirs = keras.applications.imagenet_utils.preprocess_input(pixels.copy(), mode="torch")
    np.testing.assert_allclose(run(alone, pixels), theirs, atol=1e-5)


@EVERY
def test_its_stages_are_clean_cuts(spec, backbone_of):
    backbone = backbone_of(spec.name)
    model = backbone.model
    assert tuple(stage.name for stage in backbone.stages) == spec.stages
    pixels = noise(spec.smallest_size, 1)
    cuts = [model.get_layer(stage.layer).output for stage in backbone.stages]
    *activations, whole = map(np.asarray, keras.Model(model.inputs[0], [*cuts, model.output])(pixels, training=False))
    scale = np.abs(whole).max()
    assert scale > 0
    for stage, cut, below in zip(backbone.stages, cuts, activations, strict=True):
        assert below.shape[-1] == stage.num_channels
        # Keras builds this only if nothing above the cut needs anything else from below it.
        above = keras.Model(cut, model.output) if cut is not model.output else None
        composed = np.asarray(above(below, training=False)) if above else below
        np.testing.assert_allclose(composed, whole, atol=1e-5 * scale, err_msg=stage.layer)


@EVERY
def test_is_frozen_flat_and_without_its_top(spec, backbone_of):
    model = backbone_of(spec.name).model
    assert model.trainable_weights == []
    assert not any(layer.trainable for layer in model.layers)
    assert not any(isinstance(layer, (keras.Model, keras.layers.Dense, keras.layers.Lambda)) for layer in model.layers)
    assert model.input_shape == (None, spec.smallest_size, spec.smallest_size, 3)
    assert model.inputs[0].dtype == "uint8"
    assert len(model.output_shape) == 4


@EVERY
def test_says_how_large_images_must_be(spec):
    with pytest.raises(DataError) as error:
        build_backbone(spec, find_weights(spec, "none"), spec.smallest_size - 1)
    assert str(error.value) == (
        f"{spec.name} needs images of at least {spec.smallest_size} pixels; got {spec.smallest_size - 1}."
    )


def test_the_smallest_size_is_keras_own():
    for spec in CATALOGUE:
        with pytest.raises(ValueError, match="must be at least"):
            getattr(keras.applications, spec.name)(
                include_top=False, weights=None, input_shape=(spec.smallest_size - 1, spec.smallest_size - 1, 3)
            )


def test_the_rows_are_the_eight_that_headstart_began_with():
    assert SEED == ("VGG16", "VGG19", "ResNet50", "ResNet101", "InceptionV3", "Xception", "MobileNet", "MobileNetV2")
    assert set(MODULES) == set(SEED)


def test_names_are_found_whatever_their_case():
    assert find_backbone("mobilenetv2").name == "MobileNetV2"
    with pytest.raises(UnknownNameError) as error:
        find_backbone("ResNet5")
    assert str(error.value).startswith("There is no backbone 'ResNet5'. Did you mean ResNet50")
    with pytest.raises(UnknownNameError, match=r"There is no backbone 'qqq'\. Known: VGG16, VGG19, .*MobileNetV2\."):
        find_backbone("qqq")


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
    np.testing.assert_allclose(np.asarray(four.model([pixels], training=False)), expected, atol=1e-5)


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
