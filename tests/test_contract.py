"""The contract that every row of the catalogue keeps, held with random weights at the smallest size."""

from __future__ import annotations

import importlib
import itertools

import numpy as np
import pytest

from headstart.errors import DataError, UnknownNameError
from headstart.learning.model_file import load_model, save_model
from headstart.networks.architectures import VisionTransformer
from headstart.networks.backbone import build_backbone, fingerprint, preprocess
from headstart.networks.backend import keras
from headstart.networks.catalogue import KERAS_ROWS
from headstart.networks.freezing import WHOLE, freeze, thaw
from headstart.networks.hub_rows import HUB_ROWS
from headstart.networks.stages import cut_tensor
from headstart.networks.weights import find_weights
from tiny import narrowed

MODULES = {"VGG16": "vgg16", "VGG19": "vgg19", "ResNet50": "resnet50", "InceptionV3": "inception_v3",
           "Xception": "xception", "MobileNet": "mobilenet", "MobileNetV2": "mobilenet_v2",
           "InceptionResNetV2": "inception_resnet_v2"}  # fmt: skip
FAMILIES = {"ResNet": "resnet", "ResNetV2": "resnet_v2", "MobileNetV3": "mobilenet_v3", "DenseNet": "densenet",
            "NASNet": "nasnet", "EfficientNet": "efficientnet", "EfficientNetV2": "efficientnet_v2",
            "ConvNeXt": "convnext"}  # fmt: skip
HUB_FAMILIES = {
    "ViT": lambda pixels: pixels / 127.5 - 1,
    "SigLIP2": lambda pixels: pixels / 127.5 - 1,
    "DINOv2": lambda pixels: (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    "Swin": lambda pixels: (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    "CLIP": lambda pixels: (pixels / 255 - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711],
}
"""What the processors of Hugging Face's transformers do with the pixels."""


def smallest(rows):
    """One row of each family."""
    families = dict.fromkeys(spec.family for spec in rows)
    return [min((s for s in rows if s.family == family), key=lambda spec: spec.num_params) for family in families]


ROWS = (*KERAS_ROWS, *map(narrowed, smallest(HUB_ROWS)))

SMALLEST = smallest(ROWS)
"""Frozen below every stage in turn."""

EVERYWHERE = {"MobileNet", "EfficientNetB0", "ConvNeXtTiny"} | {
    "siglip2_base_patch16_224",
    "swin_tiny_patch4_window7_224",
}
"""What JAX and PyTorch run at every submission too: statistics, inner dropouts, plain operations, tokens, windows."""

Norm = keras.layers.BatchNormalization

_NUM_CLASSES = 1000  # Of ImageNet.


class SignDescent(keras.optimizers.Optimizer):
    """The first step of Adam with an epsilon of nothing: whatever has a slope moves, however small that is.

    Adam's own would first make two numbers for every weight, which are read once.
    """

    def update_step(self, gradient, variable, learning_rate):
        self.assign_sub(variable, keras.ops.cast(learning_rate, variable.dtype) * keras.ops.sign(gradient))


def as_parameter(spec):
    marks = [pytest.mark.backend] if spec.name in EVERYWHERE else []
    return pytest.param(spec, id=spec.name, marks=marks)


@pytest.fixture(scope="module", params=[as_parameter(spec) for spec in ROWS])
def backbone(request):
    """A row, built once for all that is asked of it."""
    spec = request.param
    if spec.family == "NASNet" and keras.backend.backend() == "torch":
        pytest.skip("Keras does not build it there; test_backbone has the message")
    built = build_backbone(spec, find_weights(spec, "none"), spec.smallest_size, seed=1)
    yield built
    keras.utils.clear_session(free_memory=True)


@pytest.fixture(scope="module")
def pixels(backbone):
    return noise(backbone.spec.smallest_size)


@pytest.fixture(scope="module")
def output(backbone, pixels):
    """Of the pixels, computed once for all that is asked of it."""
    return run(backbone.model, pixels)


def noise(size, number=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (number, size, size, 3), np.uint8)


def run(model, pixels, *, training=False):
    return np.asarray(keras.ops.convert_to_numpy(model(pixels, training=training)))


def classifier(backbone):
    """The backbone with a head, so that there is something to train."""
    pooled = keras.ops.mean(backbone.model.output, axis=(1, 2) if len(backbone.model.output.shape) == 4 else 1)
    model = keras.Model(backbone.model.inputs[0], keras.layers.Dense(2, activation="softmax")(pooled))
    # Eager: a step of a large network takes far less time than compiling it does.
    model.compile(SignDescent(1e-2), "categorical_crossentropy", run_eagerly=True)
    return model


def top_params(spec, num_channels):
    """Parameters of the ImageNet top: one dense layer on pooled channels; VGG has three on 7 x 7 pixels."""
    if spec.family == "MobileNetV3":  # A dense layer before the last.
        wide = 1024 if spec.name.endswith("Small") else 1280
        return num_channels * wide + wide + wide * _NUM_CLASSES + _NUM_CLASSES
    sizes = (7 * 7 * num_channels, 4096, 4096, _NUM_CLASSES) if spec.family == "VGG" else (num_channels, _NUM_CLASSES)
    return sum(ins * outs + outs for ins, outs in itertools.pairwise(sizes))


def test_prepares_pixels_as_keras_does(backbone, pixels):
    spec, model = backbone.spec, backbone.model
    theirs = HUB_FAMILIES.get(spec.family)
    if not theirs:
        module = MODULES.get(spec.name) or FAMILIES[spec.family]
        theirs = importlib.import_module(f"keras.applications.{module}").preprocess_input
    inside = keras.Model(model.inputs[0], model.get_layer("preprocessing").output)
    np.testing.assert_allclose(run(inside, pixels), theirs(pixels.astype(np.float32)), atol=2e-5)
    floats = pixels * np.float32(0.987)
    symbolic = keras.Input(floats.shape[1:], dtype="float32")
    alone = keras.Model(symbolic, preprocess(symbolic, spec.preprocessing))
    np.testing.assert_allclose(run(alone, floats), theirs(floats.copy()), atol=2e-5)


def test_has_the_shape_it_says(backbone, output):
    spec, model = backbone.spec, backbone.model
    assert model.input_shape == (None, spec.smallest_size, spec.smallest_size, 3)
    assert model.inputs[0].dtype == "uint8"
    assert len(model.output_shape) == (3 if isinstance(spec.architecture, VisionTransformer) else 4)
    assert output.shape == (2, *model.output_shape[1:])
    assert output.dtype == np.float32
    assert np.isfinite(output).all()
    assert np.abs(output).max() > 0


def test_has_the_parameters_it_says(backbone):
    spec, model = backbone.spec, backbone.model
    if spec not in KERAS_ROWS:
        pytest.skip("narrowed: test_hub has the count of the whole")
    assert spec.num_params == model.count_params() + top_params(spec, model.output_shape[-1])


def test_is_frozen_and_without_its_top(backbone):
    model = backbone.model
    assert model.trainable_weights == []
    assert not any(layer.trainable for layer in model._flatten_layers())
    # ConvNeXt's stem and downsamplings are two layers in a row each; nothing else is nested.
    nested = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    assert all(isinstance(layer, keras.Sequential) and backbone.spec.family == "ConvNeXt" for layer in nested)
    assert not any(isinstance(layer, keras.layers.Lambda) for layer in model.layers)
    assert "predictions" not in {layer.name for layer in model.layers}


def test_its_stages_are_clean_cuts(backbone, pixels):
    spec, model = backbone.spec, backbone.model
    assert tuple(stage.name for stage in backbone.stages) == spec.stages
    cuts = [cut_tensor(model, stage) for stage in backbone.stages]
    together = keras.Model(model.inputs[0], [*cuts, model.output])
    *activations, whole = map(keras.ops.convert_to_numpy, together(pixels, training=False))
    scale = np.abs(whole).max()
    for stage, cut, below in zip(backbone.stages, cuts, activations, strict=True):
        assert below.shape[-1] == stage.num_channels
        # Keras builds this only if nothing above the cut needs anything else from below it.
        above = keras.Model(cut, model.output) if cut is not model.output else None
        composed = run(above, below) if above else below
        np.testing.assert_allclose(composed, whole, atol=1e-5 * scale, err_msg=stage.layer)


def test_computes_the_same_again_in_training_mode_and_after_saving(backbone, pixels, output, tmp_path):
    model = backbone.model
    scale = np.abs(output).max()
    np.testing.assert_allclose(run(model, pixels), output, atol=1e-6 * scale)
    # Dropout inside the network would show here: a frozen network trained online is not what was computed once.
    np.testing.assert_allclose(run(model, pixels, training=True), output, atol=1e-6 * scale)
    save_model(model, tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")  # After a look at what is in it, Keras's own.
    assert fingerprint(loaded) == backbone.fingerprint
    np.testing.assert_allclose(run(loaded, pixels, training=True), output, atol=1e-6 * scale)


def settings(backbone):
    """Every stage to open from, for the smallest of a family. The others: all, where a statistic could move."""
    if keras.backend.backend() != "tensorflow":
        return (None, backbone.spec.stages[1], WHOLE)
    if backbone.spec in SMALLEST:
        return (None, *backbone.spec.stages, WHOLE)
    return (None, WHOLE) if statistics(backbone.model) else (None,)


def statistics(model):
    """Every weight of BatchNormalization."""
    return {id(weight) for layer in model.layers if isinstance(layer, Norm) for weight in layer.weights}


def test_statistics_stay_and_only_what_is_open_learns(backbone, pixels):
    model = backbone.model
    for first in settings(backbone):
        freeze(model) if first is None else thaw(model, backbone.stages, first)
        learns = {id(weight) for weight in model.trainable_weights}
        assert not learns & statistics(model)
        before = {
            weight.path: (id(weight) in learns, keras.ops.convert_to_numpy(weight.value).copy())
            for weight in model.weights
        }
        classifier(backbone).fit(pixels, np.eye(2, dtype=np.float32), batch_size=2, verbose=0)
        moved = {
            weight.path
            for weight in model.weights
            if not np.array_equal(before[weight.path][1], keras.ops.convert_to_numpy(weight.value))
        }
        assert {path for path in moved if not before[path][0]} == set(), f"open from {first}"
        assert bool(moved) == bool(learns)
        for weight in model.weights:  # A step can saturate the softmax; what is learnt next would then be nothing.
            weight.assign(before[weight.path][1])
    assert learns or len(settings(backbone)) == 1
    freeze(model)


def test_says_what_it_cannot_do(backbone):
    spec = backbone.spec
    with pytest.raises(DataError) as error:
        build_backbone(spec, find_weights(spec, "none"), spec.smallest_size - 1)
    assert str(error.value) == (
        f"{spec.name} needs images of at least {spec.smallest_size} pixels; got {spec.smallest_size - 1}."
    )
    with pytest.raises(UnknownNameError, match=r"There is no stage 'stage9'\. Did you mean stage"):
        thaw(backbone.model, backbone.stages, "stage9")


@pytest.mark.parametrize("spec", KERAS_ROWS, ids=lambda spec: spec.name)
def test_the_smallest_size_is_keras_own(spec):
    smaller = (spec.smallest_size - 1, spec.smallest_size - 1, 3)
    with pytest.raises(ValueError, match="must be at least"):
        getattr(keras.applications, spec.name)(include_top=False, weights=None, input_shape=smaller)


def test_the_catalogue_is_all_of_keras():
    theirs = {name for name in dir(keras.applications) if name[0].isupper()}
    assert {spec.name for spec in KERAS_ROWS} == theirs
