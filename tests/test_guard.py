from __future__ import annotations

import numpy as np
import pytest

from headstart.errors import GuardError
from headstart.networks.backend import keras
from headstart.networks.freezing import freeze, thaw
from headstart.networks.guard import Guard, check_epochs_differ, check_preprocessing
from tiny import tiny_backbone

pytestmark = pytest.mark.backend


@pytest.fixture
def classifier():
    backbone = tiny_backbone()
    tensor = keras.layers.GlobalAveragePooling2D()(backbone.model.output)
    model = keras.Model(backbone.model.inputs[0], keras.layers.Dense(2, activation="softmax", name="head")(tensor))
    return backbone, model


def train(model):
    model.compile(keras.optimizers.Adam(0.01), "categorical_crossentropy")
    pixels = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3)).astype(np.uint8)
    model.train_on_batch(pixels, np.eye(2, dtype=np.float32)[[0, 1] * 4])


def test_is_content_where_just_what_was_announced_moved(classifier):
    backbone, model = classifier
    for opening in (None, "stage2", "all"):
        freeze(backbone.model)
        if opening:
            thaw(backbone.model, backbone.stages, opening)
        guard = Guard.before(model)
        assert any(guard.may_move)
        train(model)
        guard.after(model)


def test_names_the_layer_that_moved_though_it_was_frozen(classifier):
    _, model = classifier
    guard = Guard.before(model)
    model.get_layer("conv1").trainable = True  # Behind its back.
    train(model)
    with pytest.raises(
        GuardError, match=r"^Layer 'conv1' is frozen, yet its weight '(kernel|bias)' changed in training"
    ):
        guard.after(model)


def test_names_the_layer_that_was_to_learn_and_did_not(classifier):
    backbone, model = classifier
    thaw(backbone.model, backbone.stages, "stage2")
    guard = Guard.before(model)
    model.get_layer("conv2").trainable = False
    train(model)
    with pytest.raises(GuardError, match=r"^Layer 'conv2' was to learn, yet none of its weights changed\. Compile"):
        guard.after(model)


def test_sees_a_single_bit_of_a_statistic(classifier):
    _, model = classifier
    guard = Guard.before(model)
    norm = model.get_layer("norm2")
    values = norm.get_weights()
    values[3] = values[3].copy()
    values[3].view(np.uint32)[0] ^= 1
    norm.set_weights(values)
    model.get_layer("head").set_weights([value + 1 for value in model.get_layer("head").get_weights()])
    with pytest.raises(GuardError, match=r"^Layer 'norm2' is frozen, yet its weight 'moving_variance' changed"):
        guard.after(model)


def test_refuses_statistics_that_would_move(classifier):
    _, model = classifier
    for layer in model.layers:  # All of it, as a script does.
        layer.trainable = True
    with pytest.raises(GuardError, match=r"^Layer 'norm1' is a BatchNormalization that is not frozen"):
        Guard.before(model)


def test_preprocessing_has_to_be_inside(classifier):
    _, model = classifier
    check_preprocessing(model)
    given = keras.Input((8, 8, 3))
    bare = keras.Model(given, keras.layers.Dense(2)(keras.layers.Flatten()(given)), name="bare")
    with pytest.raises(GuardError, match=r"^The model 'bare' has no preprocessing inside"):
        check_preprocessing(bare)


def test_two_epochs_have_to_differ():
    check_epochs_differ([0, 1] * 20, [1, 0] * 20, num_views=2)
    check_epochs_differ([0] * 40, [0] * 40, num_views=1)  # There is nothing to vary.
    check_epochs_differ([0, 1], [0, 1], num_views=2)  # Two images may well be shown alike twice.
    with pytest.raises(GuardError, match=r"^Two epochs showed all 40 images in the same views"):
        check_epochs_differ([0, 1] * 20, [0, 1] * 20, num_views=2)
