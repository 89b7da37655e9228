from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from headstart.errors import DataError
from headstart.features.pooling import POOLED, feature_model, lower_model
from headstart.learning.material import FreshMaterial, PixelMaterial
from headstart.networks.backbone import build_backbone
from headstart.networks.backend import keras
from headstart.networks.catalogue import find_backbone
from headstart.networks.engine import make_engine
from headstart.networks.weights import find_weights
from headstart.pictures.scan import scan
from headstart.progress import silent
from tiny import tiny_backbone

pytestmark = pytest.mark.backend

VIEWS = ("as_is", "mirrored")
SIZE = 32


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noise")
    for label in ("a", "b"):
        (folder / label).mkdir()
        for number in range(3):
            noise = np.random.default_rng([ord(label), number]).integers(0, 256, (SIZE, SIZE, 3))
            Image.fromarray(noise.astype(np.uint8)).save(folder / label / f"{number}.png")
    return scan(folder).images


@pytest.fixture(scope="module")
def pixels(images):
    return PixelMaterial(images, SIZE, VIEWS, silent)


@pytest.fixture(scope="module")
def fresh(pixels):
    backbone = tiny_backbone()
    return FreshMaterial(pixels, make_engine(lambda: lower_model(backbone, "stage1")))


def test_pixels_are_those_of_the_pictures_in_their_views(images, pixels):
    shown = np.asarray(Image.open(images[4].path))
    np.testing.assert_array_equal(pixels.batch(np.array([4]), np.array([0]))[0], shown[None])
    np.testing.assert_array_equal(pixels.batch(np.array([4]), np.array([1]))[0], shown[None, :, ::-1])


def test_the_lower_part_of_fresh_pixels_is_what_the_whole_network_computes_there(pixels, fresh):
    numbers, views = np.arange(6), np.array([0, 1, 0, 1, 0, 1])
    (varied,) = pixels.batch(numbers, views, np.random.default_rng(7))
    backbone = tiny_backbone()
    whole = feature_model(backbone, backbone.stages[0].name, POOLED)(np.rint(varied).astype(np.uint8))
    activations, pooled = (keras.ops.convert_to_numpy(each) for each in whole)
    inputs = fresh.batch(numbers, views, np.random.default_rng(7))
    np.testing.assert_allclose(inputs[0], activations, atol=1e-4)
    np.testing.assert_allclose(inputs[1], pooled[:, : 2 * backbone.stages[0].num_channels], atol=1e-4)
    assert fresh.num_views == len(VIEWS)


def test_fresh_pixels_are_varied_anew_and_settled_by_their_numbers(fresh):
    numbers, views = np.arange(4), np.zeros(4, int)
    one, same, other = (fresh.batch(numbers, views, np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(fresh.batch(numbers, views)[0], fresh.batch(numbers, views)[0])


def test_a_picture_that_changed_is_named(images):
    (broken,) = [image for image in images if image.name == "a/0.png"]
    content = broken.path.read_bytes()
    try:
        broken.path.write_bytes(content[:60])
        with pytest.raises(DataError, match=r"a/0\.png cannot be used any more: it changed while"):
            PixelMaterial([broken], SIZE, VIEWS, silent)
    finally:
        broken.path.write_bytes(content)


def test_a_cut_is_found_in_another_build_whose_layers_have_other_names():
    """Keras numbers layers without a name on and on."""
    spec = find_backbone("ConvNeXtTiny")
    one, other = (build_backbone(spec, find_weights(spec, "none"), spec.smallest_size) for _ in range(2))
    assert one.stages[1].layer != other.stages[1].layer
    model = lower_model(other, one.stages[1].name)
    assert model.outputs[0].shape[-1] == one.stages[1].num_channels
    assert model.outputs[1].shape[-1] == 2 * sum(stage.num_channels for stage in one.stages[:2])
