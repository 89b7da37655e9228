from __future__ import annotations

import numpy as np
import pytest

import headstart
from headstart.errors import DataError, UnknownNameError, WeightsError
from headstart.learning.transfer import transfer_model
from headstart.networks.backend import keras
from headstart.networks.catalogue import SEED, find_backbone


def frozen_part(model):
    """Every weight but the head's, statistics of the normalisation included."""
    head = {"hidden", "probabilities"}
    layers = [layer for layer in model.layers if layer.name not in head]
    return {f"{layer.name}/{i}": np.array(w) for layer in layers for i, w in enumerate(layer.get_weights())}


@pytest.fixture(scope="module")
def small():
    return transfer_model("MobileNetV2", 3, image_size=64, weights="none")


@pytest.mark.backend
def test_is_a_plain_compiled_model_with_the_usual_head(small):
    assert type(small).__module__.startswith("keras.")
    assert small.compiled
    assert small.loss == "categorical_crossentropy"
    assert isinstance(small.optimizer, keras.optimizers.Adam)
    flatten, hidden, last = small.layers[-3:]
    assert isinstance(flatten, keras.layers.Flatten)
    assert isinstance(hidden, keras.layers.Dense)
    assert (hidden.units, hidden.activation.__name__) == (256, "relu")
    assert isinstance(last, keras.layers.Dense)
    assert (last.units, last.activation.__name__) == (3, "softmax")
    assert small.output_shape == (None, 3)
    assert {weight.path.split("/")[0] for weight in small.trainable_weights} == {"hidden", "probabilities"}


@pytest.mark.parametrize("name", SEED)
def test_has_the_layers_of_the_usual_script(name):
    """The network of the script that headstart began with, written out in plain Keras, with random weights."""
    size = find_backbone(name).image_size
    base = getattr(keras.applications, name)(weights=None, include_top=False, input_shape=(size, size, 3))
    for layer in base.layers:
        layer.trainable = False
    hidden = keras.layers.Dense(256, activation="relu")(keras.layers.Flatten()(base.output))
    theirs = keras.Model(base.input, keras.layers.Dense(10, activation="softmax")(hidden))
    ours = transfer_model(name, num_classes=10, image_size=size, weights="none")

    def rows(model):
        layers = [layer for layer in model.layers if not layer.name.startswith("preprocessing")]
        return [(type(each), each.output.shape, [tuple(w.shape) for w in each.weights]) for each in layers]

    assert rows(ours) == rows(theirs)
    assert ours.count_params() == theirs.count_params()
    assert [w.shape for w in ours.trainable_weights] == [w.shape for w in theirs.trainable_weights]
    keras.utils.clear_session(free_memory=True)


@pytest.mark.backend
def test_training_changes_the_head_and_nothing_else():
    model = transfer_model("MobileNetV2", 3, image_size=64, weights="none")
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (8, 64, 64, 3)).astype(np.float32)
    labels = np.eye(3, dtype=np.float32)[random.integers(0, 3, 8)]
    before, head = frozen_part(model), [np.array(w) for w in model.get_layer("hidden").get_weights()]
    model.fit(pixels, labels, epochs=1, batch_size=4, verbose=0)
    after = frozen_part(model)
    assert len(before) == 260
    assert [name for name in before if before[name].tobytes() != after[name].tobytes()] == []
    assert any((old != new).any() for old, new in zip(head, model.get_layer("hidden").get_weights(), strict=True))


@pytest.mark.backend
def test_whole_numbers_and_floats_are_the_same_pixels(small):
    pixels = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), np.uint8)
    whole = np.asarray(small.predict(pixels, verbose=0))
    floats = np.asarray(small.predict(pixels.astype(np.float32), verbose=0))
    assert np.array_equal(whole, floats)
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-5)


def test_is_the_seeds_network():
    model = transfer_model("VGG16", 10, image_size=224, weights="none")
    assert [layer.name for layer in model.layers[-4:]] == ["block5_pool", "flatten", "hidden", "probabilities"]
    vgg16 = keras.applications.VGG16(include_top=False, weights=None, input_shape=(224, 224, 3))
    ours = [layer.name for layer in model.layers if layer.name.startswith("block")]
    assert ours == [layer.name for layer in vgg16.layers[1:]]
    assert model.input_shape == (None, 224, 224, 3)
    assert model.output_shape == (None, 10)
    assert sum(np.prod(weight.shape) for weight in model.trainable_weights) == 25088 * 256 + 256 + 2560 + 10


@pytest.mark.parametrize("number", [1, 0, -3])
def test_says_how_many_classes_there_must_be(number):
    with pytest.raises(DataError) as error:
        transfer_model("VGG16", number, weights="none")
    assert str(error.value) == f"A classifier needs at least 2 classes; got num_classes={number}."


def test_says_which_names_are_near():
    with pytest.raises(UnknownNameError, match=r"There is no backbone 'VGG61'\. Did you mean VGG19 or VGG16\?"):
        transfer_model("VGG61", 3, weights="none")


def test_never_falls_back_to_random_weights(tmp_path):
    with pytest.raises(WeightsError, match="there is no such file"):
        transfer_model("VGG16", 3, weights=str(tmp_path / "missing.h5"))


def test_is_in_the_public_face():
    assert headstart.transfer_model is transfer_model
