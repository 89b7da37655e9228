"""Two scales: the same network sees the image and the image made smaller, and what is saved says the same."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.features.extract import Extractor
from headstart.features.pooling import (
    POOLED,
    POOLED_TWICE,
    at_one_scale,
    feature_model,
    has_two_scales,
    pooled_blocks,
    smaller_side,
)
from headstart.learning.heads import grow_linear_head
from headstart.learning.held_out import HeldOut
from headstart.learning.logistic import LinearHead
from headstart.networks.backbone import AS_IS, FLIPS, build_backbone
from headstart.networks.backend import keras
from headstart.networks.catalogue import KERAS_ROWS, SEED, find_backbone
from headstart.networks.weights import find_weights
from headstart.pictures.decode import decode
from tiny import drawn_pixels, tiny_backbone, write_images


@pytest.mark.parametrize(("size", "smaller"), [(224, 160), (225, 161), (299, 203), (331, 235), (64, 32), (385, 289)])
def test_the_smaller_side_pads_like_the_larger(size, smaller):
    assert smaller_side(size) == smaller
    assert smaller % 32 == size % 32


def test_networks_with_one_size_have_one_scale():
    assert has_two_scales(find_backbone("MobileNetV2"), 225)
    assert not has_two_scales(find_backbone("MobileNetV2"), 33), "the smaller image would be below its smallest"
    assert not has_two_scales(find_backbone("dinov2_small"), 224)
    assert not has_two_scales(find_backbone("ConvNeXtTiny"), 224)
    assert sum(not has_two_scales(spec, spec.image_size) for spec in KERAS_ROWS) == 5


def by_hand(backbone, smaller, pixels):
    """The features at either scale from two networks of their own, the pixels made smaller by Keras's operation."""
    side = smaller.image_size
    made_smaller = np.asarray(keras.ops.image.resize(pixels.astype("float32"), (side, side)))
    parts = []
    for network, seen in ((backbone, pixels), (smaller, made_smaller)):
        stages = [stage.name for stage in network.stages]
        for each in feature_model(network, *stages).predict(seen, verbose=0):
            activations = np.asarray(each, np.float64)
            deviation = np.sqrt(activations.var(axis=(1, 2)) + 1e-6)
            parts += [activations.mean(axis=(1, 2)), activations.max(axis=(1, 2)), deviation]
    return np.concatenate(parts, axis=-1)


@pytest.mark.backend
def test_the_second_half_is_what_the_smaller_network_says():
    spec = find_backbone("MobileNetV2")
    weights = find_weights(spec, "none")
    backbone, smaller = (build_backbone(spec, weights, size, seed=1, dtype="float32") for size in (96, 64))
    pixels = drawn_pixels(96, 3).astype("float32")
    both = feature_model(backbone, POOLED_TWICE)
    rows = np.asarray(both.predict(pixels, verbose=0))
    np.testing.assert_allclose(rows, by_hand(backbone, smaller, pixels), rtol=1e-4, atol=1e-4)
    assert both.count_params() == backbone.model.count_params(), "the layers are there once"
    assert rows.shape[-1] == sum(pooled_blocks(backbone.stages, POOLED_TWICE, has_token=False))


def test_the_features_of_one_scale_are_among_those_of_two():
    spec = find_backbone("MobileNetV2")
    backbone = build_backbone(spec, find_weights(spec, "none"), 96, seed=1, dtype="float32")
    pixels = drawn_pixels(96, 3).astype("float32")
    one, two = (np.asarray(feature_model(backbone, each).predict(pixels, verbose=0)) for each in (POOLED, POOLED_TWICE))
    np.testing.assert_array_equal(two[:, at_one_scale(backbone.stages)], one)


@pytest.mark.slow
@pytest.mark.parametrize("name", [spec.name for spec in KERAS_ROWS if has_two_scales(spec, spec.image_size)])
def test_every_network_of_keras_has_two_scales(name):
    spec = find_backbone(name)
    size = next(size for size in range(spec.smallest_size, 400) if has_two_scales(spec, size))
    weights = find_weights(spec, "none")
    backbone, smaller = (
        build_backbone(spec, weights, side, seed=1, dtype="float32") for side in (size, smaller_side(size))
    )
    pixels = drawn_pixels(size, 1).astype("float32")
    rows = np.asarray(feature_model(backbone, POOLED_TWICE).predict(pixels, verbose=0))
    expected = by_hand(backbone, smaller, pixels)
    assert np.abs(rows - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("name", [name for name in SEED if not name.startswith(("VGG", "ResNet101"))])
def test_the_networks_we_began_with_have_two_scales(name):
    spec = find_backbone(name)
    size = next(size for size in range(spec.smallest_size, 400) if has_two_scales(spec, size))
    backbone = build_backbone(spec, find_weights(spec, "none"), size, seed=1)
    twice = feature_model(backbone, POOLED_TWICE)
    assert twice.output.shape[-1] == 3 * feature_model(backbone, POOLED).output.shape[-1]
    assert np.isfinite(np.asarray(twice.predict(drawn_pixels(size, 1), verbose=0))).all()


def test_the_engine_and_the_saved_model_agree(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    images = write_images(tmp_path / "images", 5, side=64)
    features = Extractor(tiny_backbone(64), POOLED_TWICE).extract(images, FLIPS)
    random = np.random.default_rng(0)
    head = LinearHead(
        random.normal(size=(features.values.shape[-1], 3)).astype(np.float32) / 9, np.zeros(3, np.float32), 1.0,
        HeldOut.nothing(),
    )  # fmt: skip
    for views in (AS_IS, FLIPS):
        model = grow_linear_head(tiny_backbone(64, views=views), head, POOLED_TWICE)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        pixels = np.stack([decode(each.path.read_bytes(), (64, 64)) for each in images])
        answers = np.asarray(loaded.predict(pixels, verbose=0))
        np.testing.assert_allclose(answers, head.probabilities(features.values[:, : len(views)]), atol=1e-4)
