from __future__ import annotations

import numpy as np
import pytest

import headstart
from headstart.errors import DataError, UnknownNameError
from headstart.networks.backend import keras
from tiny import tiny_backbone

pytestmark = pytest.mark.backend


def names(weights):
    return {weight.path.split("/")[-2] for weight in weights}


def flat(*, optimizer=None):
    """A network of two stages with a head that reads both, on its own graph."""
    backbone = tiny_backbone()
    pool = keras.layers.GlobalAveragePooling2D
    both = [pool(name=f"pool{number}")(backbone.model.get_layer(f"relu{number}").output) for number in (1, 2)]
    features = keras.layers.Concatenate()(both)
    head = keras.layers.Dense(2, activation="softmax", name="head")
    model = keras.Model(backbone.model.inputs[0], head(features))
    model.compile(optimizer or "adam", "categorical_crossentropy", metrics=["accuracy"])
    return model


def nested():
    given = keras.Input((32, 32, 3))
    features = keras.layers.GlobalAveragePooling2D()(tiny_backbone().model(given))
    normed = keras.layers.BatchNormalization(name="head_norm")(features)
    model = keras.Model(given, keras.layers.Dense(2, activation="softmax", name="head")(normed))
    model.compile("adam", "categorical_crossentropy")
    return model


def test_opens_a_stage_and_all_above_it():
    model = flat()
    assert headstart.unfreeze(model, "stage2") is model
    assert names(model.trainable_weights) == {"conv2", "head"}
    headstart.unfreeze(model, "stage1")
    assert names(model.trainable_weights) == {"conv1", "conv2", "head"}
    headstart.unfreeze(model)
    assert names(model.trainable_weights) == {"conv1", "conv2", "head"}
    assert headstart.freeze(model) is model
    assert names(model.trainable_weights) == {"head"}


def test_a_network_that_is_one_layer():
    model = nested()
    headstart.unfreeze(model, "stage2")
    assert names(model.trainable_weights) == {"conv2", "head", "head_norm"}  # The head's own norm is its own business.
    headstart.freeze(model)
    assert names(model.trainable_weights) == {"head", "head_norm"}


def test_the_compiled_model_keeps_what_it_was_told():
    model = flat(optimizer=keras.optimizers.SGD(0.125, momentum=0.5))
    pixels, one_hot = np.zeros((4, 32, 32, 3), np.uint8), np.eye(2, dtype=np.float32)[[0, 1, 0, 1]]
    model.fit(pixels, one_hot, verbose=0)
    first = model.optimizer
    headstart.unfreeze(model)
    assert model.optimizer is not first  # Its state belonged to other weights.
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert float(model.optimizer.learning_rate) == 0.125
    assert model.optimizer.momentum == 0.5
    assert model.loss == "categorical_crossentropy"
    model.fit(pixels, one_hot, verbose=0)
    assert "accuracy" in model.evaluate(pixels, one_hot, verbose=0, return_dict=True)


def test_a_model_that_was_not_compiled_stays_so():
    model = flat()
    model = keras.Model(model.inputs, model.outputs)
    assert not headstart.unfreeze(model).compiled


def test_says_what_there_is():
    with pytest.raises(UnknownNameError, match=r"There is no stage 'stage9'\. Did you mean stage"):
        headstart.unfreeze(flat(), "stage9")
    given = keras.Input((4,))
    with pytest.raises(DataError, match=r"holds no network of images"):
        headstart.unfreeze(keras.Model(given, keras.layers.Dense(2)(given)))


def test_a_stage_without_weights():
    model = headstart.transfer_model("VGG16", 2, image_size=32, weights="none")
    with pytest.raises(DataError, match=r"^stage5 of '.*' has no weights that could learn\. Open a lower stage\."):
        headstart.unfreeze(model, "stage5")


@pytest.mark.parametrize("stage", ["stage5", "stage3", "all"])
def test_what_transfer_model_gives(stage):
    model = headstart.transfer_model("MobileNetV2", 2, image_size=32, weights="none")
    frozen = names(model.trainable_weights)
    assert frozen == {"hidden", "probabilities"}
    headstart.unfreeze(model, stage)
    opened = names(model.trainable_weights) - frozen
    assert "Conv_1" in opened
    assert ("Conv1" in opened) == (stage == "all")
    assert not any(name.lower().endswith("bn") for name in opened)
    assert names(headstart.freeze(model).trainable_weights) == frozen
