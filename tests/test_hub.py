"""KerasHub's networks: what is built here computes what KerasHub computes, and its files are read or refused whole."""

from __future__ import annotations

import dataclasses
import importlib

import h5py
import numpy as np
import pytest

from headstart.errors import DataError, WeightsError
from headstart.learning.transfer import transfer_model
from headstart.networks.architectures import SwinTransformer, VisionTransformer
from headstart.networks.backbone import build_backbone
from headstart.networks.backend import keras
from headstart.networks.catalogue import KERAS_ROWS, choose_backbones, find_backbone
from headstart.networks.hub_rows import HUB_ROWS
from headstart.networks.mirror import MIRROR, download_addresses
from headstart.networks.weights import find_weights

hub = pytest.importorskip("keras_hub", reason="KerasHub is what the networks are held against")

SMALL = {"num_layers": 3, "hidden_dim": 8, "num_heads": 2}
TEXT = {"vocabulary_size": 20, "embedding_dim": 8, "hidden_dim": 8, "num_layers": 1, "num_heads": 2,
        "intermediate_dim": 8, "max_sequence_length": 5}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Pair:
    """A small network of KerasHub, the row that should be the same, and the model whose weights are saved."""

    theirs: keras.Model
    spec: object
    size: int
    saved: keras.Model


def row(name, **numbers):
    spec = find_backbone(name)
    return dataclasses.replace(spec, architecture=dataclasses.replace(spec.architecture, **numbers))


def vit():
    theirs = hub.models.ViTBackbone(image_shape=(64, 64, 3), patch_size=16, mlp_dim=16, **SMALL)
    return Pair(theirs, row("vit_base_patch16_224_imagenet", **narrow(64)), 64, theirs)


def dinov2(name, size, registers):
    theirs = hub.models.DINOV2Backbone(
        patch_size=14, intermediate_dim=16, num_register_tokens=registers, image_shape=(size, size, 3),
        position_embedding_shape=(70, 70, 3), antialias_in_interpolation=bool(registers), **SMALL,
    )  # fmt: skip
    return Pair(theirs, row(name, **narrow(70)), size, theirs)


def clip(*, whole):
    vision = hub.models.CLIPVisionEncoder(
        patch_size=16, intermediate_dim=16, image_shape=(64, 64, 3), name="clip_vision_encoder", **SMALL
    )
    both = hub.models.CLIPBackbone(vision, hub.models.CLIPTextEncoder(**TEXT, name="text"), 8) if whole else vision
    return Pair(vision, row("clip_vit_base_patch16", **narrow(64)), 64, both)


def siglip(*, whole):
    vision = hub.models.SigLIPVisionEncoder(
        patch_size=16, intermediate_dim=16, image_shape=(64, 64, 3), name="siglip_vision_encoder", **SMALL
    )
    both = hub.models.SigLIPBackbone(vision, hub.models.SigLIPTextEncoder(**TEXT, name="text")) if whole else vision
    return Pair(vision, row("siglip2_base_patch16_224", **narrow(64)), 64, both)


def swin(window, size, depths):
    theirs = hub.models.SwinTransformerBackbone(
        image_shape=(size, size, 3), embed_dim=8, depths=depths, num_heads=(2, 2, 4, 4), window_size=window
    )
    numbers = {"width": 8, "depths": depths, "num_heads": (2, 2, 4, 4), "window": window, "trained_size": size}
    spec = dataclasses.replace(row("swin_tiny_patch4_window7_224", **numbers), smallest_size=size)
    return Pair(theirs, spec, size, theirs)


def narrow(trained_size):
    return {"width": 8, "depth": 3, "num_heads": 2, "hidden": 16, "trained_size": trained_size}


PAIRS = {
    "vit": vit,
    "dinov2 at its own size": lambda: dinov2("dinov2_small", 70, 0),
    "dinov2 at a smaller size": lambda: dinov2("dinov2_small", 42, 0),
    "dinov2 with registers at a smaller size": lambda: dinov2("dinov2_with_registers_small", 56, 4),
    "dinov2 with registers at a larger size": lambda: dinov2("dinov2_with_registers_small", 84, 4),
    "clip": lambda: clip(whole=False),
    "clip with its text encoder": lambda: clip(whole=True),
    "siglip": lambda: siglip(whole=False),
    "siglip with its text encoder": lambda: siglip(whole=True),
    "swin": lambda: swin(7, 224, (2, 2, 2, 2)),
    "swin with shifted windows in three stages": lambda: swin(2, 128, (2, 4, 2, 2)),
}


def saved(pair, folder):
    """Random numbers in every weight, in a file as KerasHub writes it."""
    rng = np.random.default_rng(0)
    for weight in pair.saved.weights:
        if "position_ids" in weight.path:  # KerasHub leaves CLIP's at 0 until a file is loaded.
            weight.assign(np.arange(weight.shape[1])[None])
        elif "seed" not in weight.path:
            weight.assign(rng.normal("gamma" in weight.path, 0.3, weight.shape).astype("float32"))
    path = folder / "model.weights.h5"
    pair.saved.save_weights(path)
    pair.saved.load_weights(path)  # DINOv2 interpolates its positions only here.
    return path


@pytest.fixture
def vit_file(tmp_path):
    pair = vit()
    return pair.spec, saved(pair, tmp_path)


@pytest.mark.filterwarnings("ignore:Layer 'attn'")  # KerasHub's own.
@pytest.mark.parametrize("make", PAIRS.values(), ids=PAIRS)
def test_computes_what_kerashub_computes(make, tmp_path):
    pair = make()
    path = saved(pair, tmp_path)
    ours = build_backbone(pair.spec, find_weights(pair.spec, str(path)), pair.size)
    pixels = np.random.default_rng(1).integers(0, 256, (2, pair.size, pair.size, 3), np.uint8)
    prepared = keras.Model(ours.model.inputs[0], ours.model.get_layer("preprocessing").output)(pixels)
    theirs = pair.theirs({"images": prepared} if isinstance(pair.theirs.input, dict) else prepared)
    theirs, answer = (keras.ops.convert_to_numpy(each) for each in (theirs, ours.model(pixels)))
    if isinstance(pair.spec.architecture, SwinTransformer):
        answer = answer.reshape(theirs.shape)
    elif pair.spec.architecture.attention_pool:
        answer = answer[:, 0]
    np.testing.assert_allclose(answer, theirs, atol=1e-5 * np.abs(theirs).max())
    assert np.abs(theirs).max() > 0.1


@pytest.mark.parametrize("spec", HUB_ROWS, ids=lambda spec: spec.name)
def test_the_row_is_kerashubs_preset(spec):
    family = {"ViT": "vit", "DINOv2": "dinov2", "SigLIP2": "siglip", "CLIP": "clip", "Swin": "swin_transformer"}
    module = importlib.import_module(f"keras_hub.src.models.{family[spec.family]}.{family[spec.family]}_presets")
    preset = module.backbone_presets[spec.name]
    handle = preset["kaggle_handle"].removeprefix("kaggle://")
    assert spec.weights.address == f"https://www.kaggle.com/api/v1/models/{handle}/download/model.weights.h5"
    assert preset["metadata"]["params"] == WRONG.get(spec.name, published_params(spec))


WRONG = {"siglip2_base_patch16_384": 376_856_194}
"""KerasHub states for it the number of siglip2_base_patch32_256."""


def published_params(spec):
    """What KerasHub counts, from what is built here: it keeps apart what is one here, and counts what it derives."""
    net = spec.architecture
    if isinstance(net, SwinTransformer):
        pairs, distances = net.window**4, (2 * net.window - 1) ** 2
        return spec.num_params - sum(
            d * h * (pairs - distances) for d, h in zip(net.depths, net.num_heads, strict=True)
        )
    width = net.width
    num_patches = (net.trained_size // net.patch_size) ** 2
    if spec.family == "ViT":
        return spec.num_params + width
    if spec.family == "DINOv2":
        return spec.num_params + 2 * net.depth * width + (num_patches + 1 + 2) * width
    if spec.family == "SigLIP2":  # Vocabulary, 64 positions, as many blocks, norm and head; scale, bias and counters.
        text = (256_000 + 64) * width + net.depth * block(width, net.hidden) + 3 * width + width**2
        return spec.num_params + text + 2 + num_patches + 64
    width = 768 if net.width == 1024 else 512
    text = (49_408 + 77) * width + 12 * block(width, 4 * width) + 2 * width
    return spec.num_params + net.width + text + (net.width + width) * width + 1 + num_patches + 1


def block(width, hidden):
    return 4 * width**2 + 2 * width * hidden + 9 * width + hidden


@pytest.mark.parametrize(
    "name", ["dinov2_with_registers_small", "siglip2_base_patch16_224", "swin_tiny_patch4_window7_224"]
)
def test_builds_as_many_parameters_as_it_says(name):
    spec = find_backbone(name)
    built = build_backbone(spec, find_weights(spec, "none"), spec.architecture.trained_size)
    assert built.model.count_params() == spec.num_params
    keras.utils.clear_session(free_memory=True)


def test_a_file_saved_from_here_is_read_too(vit_file, tmp_path):
    spec, path = vit_file
    built = build_backbone(spec, find_weights(spec, str(path)), 64)
    built.model.save_weights(tmp_path / "own.weights.h5")
    again = build_backbone(spec, find_weights(spec, str(tmp_path / "own.weights.h5")), 64)
    assert again.fingerprint == built.fingerprint


def test_positions_are_interpolated_for_another_size(vit_file):
    spec, path = vit_file
    small, large = (build_backbone(spec, find_weights(spec, str(path)), size).model for size in (64, 128))
    one, two = (model.get_layer("positions").get_weights()[0] for model in (small, large))
    assert (one.shape, two.shape) == ((17, 8), (65, 8))
    np.testing.assert_array_equal(one[0], two[0])
    kernels = [model.get_layer("block1_mlp1").get_weights()[0] for model in (small, large)]
    np.testing.assert_array_equal(*kernels)


def test_says_which_tensors_do_not_fit(vit_file):
    spec, path = vit_file
    root = "layers/vi_t_encoder/"
    with h5py.File(path, "r+") as file:
        del file[f"{root}layer_norm/vars/1"]
        file.create_dataset(f"{root}extra/vars/0", data=np.zeros(3))
        del file[f"{root}encoder_layers/vi_t_encoder_block/mlp/dense_1/vars/1"]
        file.create_dataset(f"{root}encoder_layers/vi_t_encoder_block/mlp/dense_1/vars/1", data=np.zeros(5))
    with pytest.raises(WeightsError) as error:
        build_backbone(spec, find_weights(spec, str(path)), 64)
    message = str(error.value)
    assert "1 tensor is missing ('vi_t_encoder/layer_norm/vars/1')" in message
    assert "1 tensor is unexpected ('vi_t_encoder/extra/vars/0')" in message
    assert "1 tensor has another shape" in message
    assert "dense_1/vars/1' from (16,) to (5,)" in message
    assert "Nothing was loaded" in message


def test_refuses_links_to_other_files_and_groups_without_end(vit_file, tmp_path):
    spec, path = vit_file
    broken = tmp_path / "linked.weights.h5"
    broken.write_bytes(path.read_bytes())
    with h5py.File(broken, "r+") as file:
        del file["layers/vi_t_encoder/layer_norm"]
        file["layers/vi_t_encoder/layer_norm"] = h5py.ExternalLink(str(path), "layers/vi_t_encoder/layer_norm")
    with pytest.raises(WeightsError, match="lies in another file"):
        build_backbone(spec, find_weights(spec, str(broken)), 64)
    with h5py.File(path, "r+") as file:
        file["layers/vi_t_encoder/round"] = file["layers"]
    with pytest.raises(WeightsError, match="its groups have no end"):
        build_backbone(spec, find_weights(spec, str(path)), 64)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_refuses_numbers_that_make_no_sense(vit_file, value):
    spec, path = vit_file
    with h5py.File(path, "r+") as file:
        file["layers/vi_t_encoder/layer_norm/vars/0"][3] = value
    with pytest.raises(WeightsError, match="NaN or infinite"):
        build_backbone(spec, find_weights(spec, str(path)), 64)


def test_weights_of_another_network_are_refused(vit_file):
    _, path = vit_file
    spec = find_backbone("dinov2_small")
    with pytest.raises(WeightsError, match=r"does not fit dinov2_small"):
        build_backbone(spec, find_weights(spec, str(path)), 42)


def test_a_cut_file_is_refused(vit_file):
    spec, path = vit_file
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(WeightsError, match="damaged"):
        build_backbone(spec, find_weights(spec, str(path)), 64)


def test_sizes_that_are_no_whole_number_of_patches_are_refused_with_what_would_do():
    with pytest.raises(DataError) as error:
        transfer_model("dinov2_small", 2, image_size=225, weights="none")
    assert str(error.value) == (
        "dinov2_small needs images whose side is a multiple of 14 pixels; got 225. Use 224 or 238."
    )
    with pytest.raises(DataError, match="Use 224"):
        transfer_model("swin_tiny_patch4_window7_224", 2, image_size=256, weights="none")


def test_a_size_that_was_not_asked_for_exactly_is_rounded_up():
    weights = find_weights(find_backbone("dinov2_small"), "none")
    assert [weights.fitting_size(size) for size in (224, 225, 320)] == [224, 238, 322]


def test_imagenet_is_no_source_of_weights_for_them():
    with pytest.raises(WeightsError, match=r"no weights of dinov2_small from 'imagenet'.*kerashub, none"):
        find_weights(find_backbone("dinov2_small"), "imagenet")
    with pytest.raises(WeightsError, match=r"no weights of VGG16 from 'kerashub'.*imagenet, none"):
        find_weights(find_backbone("VGG16"), "kerashub")


def test_a_mirror_holds_them_by_their_own_names(monkeypatch):
    monkeypatch.setenv(MIRROR, "https://mirror.example/w")
    first, *_ = download_addresses(find_backbone("dinov2_small").weights)
    assert first == "https://mirror.example/w/dinov2_small.weights.h5"
    assert len({spec.weights.name for spec in HUB_ROWS}) == len(HUB_ROWS)


def test_what_their_first_build_computed_is_not_found_again():
    """OpenVINO now and then counted its positions from -1; see docs/decisions.md."""
    assert all(spec.graph for spec in HUB_ROWS)
    assert not any(spec.graph for spec in KERAS_ROWS)


def test_hub_stands_for_all_of_them():
    assert choose_backbones(["hub"]) == HUB_ROWS
    assert {type(spec.architecture) for spec in HUB_ROWS} == {VisionTransformer, SwinTransformer}
