"""What Keras does wrong with the usual recipe, shown; and that what headstart does instead holds, on every backend.

A Keras that mends one of them makes the first half of its test fail: then what is said of it in the docs can go.
"""

from __future__ import annotations

import types

import numpy as np
import pytest

import headstart
from headstart.learning.lessons import Lessons
from headstart.networks.backend import keras
from headstart.networks.freezing import freeze as freeze_layers

pytestmark = pytest.mark.backend

BACKEND = keras.backend.backend()
PIXELS = np.random.default_rng(0).uniform(0, 1, (8, 16, 16, 3)).astype(np.float32)
LABELS = np.eye(2, dtype=np.float32)[[0, 1] * 4]


def network(*, dropout=0.0):
    """A network as Keras publishes them: a model of its own, with statistics and a dropout inside."""
    keras.utils.set_random_seed(1)
    pixels = keras.Input((16, 16, 3))
    tensor = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="conv1")(pixels)
    tensor = keras.layers.BatchNormalization(name="norm1")(tensor)
    tensor = keras.layers.Dropout(dropout, name="drop1")(tensor)
    tensor = keras.layers.Conv2D(6, 3, strides=2, padding="same", name="conv2")(tensor)
    tensor = keras.layers.BatchNormalization(name="norm2")(tensor)
    return keras.Model(pixels, tensor, name="network")


def nested(base):
    """The recipe of Keras's own guide."""
    pixels = keras.Input((16, 16, 3))
    tensor = base(pixels, training=False)
    tensor = keras.layers.GlobalAveragePooling2D()(tensor)
    return compiled(keras.Model(pixels, keras.layers.Dense(2, activation="softmax", name="head")(tensor)))


def flat(base):
    """A head on the network's own graph."""
    tensor = keras.layers.GlobalAveragePooling2D()(base.output)
    return compiled(keras.Model(base.input, keras.layers.Dense(2, activation="softmax", name="head")(tensor)))


def compiled(model):
    model.compile(keras.optimizers.Adam(0.01), "categorical_crossentropy")
    return model


def values(layer):
    return [np.array(value) for value in layer.get_weights()]


def changed(layer, before):
    return any(not np.array_equal(one, two) for one, two in zip(before, values(layer), strict=True))


def fit(model):
    model.fit(PIXELS, LABELS, batch_size=4, epochs=1, verbose=0)


@pytest.mark.parametrize("make", [nested, flat])
def test_statistics_move_in_a_network_called_with_training_false(make):
    base = network()
    base.trainable = True
    model = make(base)
    before = values(base.get_layer("norm1"))[2:]
    fit(model)
    after = values(base.get_layer("norm1"))[2:]
    assert not np.array_equal(before[0], after[0]), "Keras mended it"

    base = network()
    model = make(base)
    assert headstart.unfreeze(model) is model
    norm, conv = (values(base.get_layer(name)) for name in ("norm1", "conv1"))
    fit(model)
    assert not changed(base.get_layer("norm1"), norm)
    assert changed(base.get_layer("conv1"), conv)


def test_a_dropout_inside_a_frozen_network_stays_on():
    base = network(dropout=0.5)
    base.trainable = False
    model = nested(base)
    once = keras.ops.convert_to_numpy(model(PIXELS, training=True))
    assert not np.allclose(once, keras.ops.convert_to_numpy(model(PIXELS, training=True))), "Keras mended it"

    base = network(dropout=0.5)
    model = headstart.freeze(nested(base))
    once = keras.ops.convert_to_numpy(model(PIXELS, training=True))
    np.testing.assert_array_equal(once, keras.ops.convert_to_numpy(model(PIXELS, training=True)))
    np.testing.assert_allclose(once, keras.ops.convert_to_numpy(model(PIXELS, training=False)), atol=1e-6)


def test_opening_layers_without_compiling_trains_nothing_new():
    base = network()
    base.trainable = False
    model = flat(base)
    fit(model)
    base.trainable = True
    for layer in base.layers:
        layer.trainable = True
    before = values(base.get_layer("conv1"))
    if BACKEND == "tensorflow":
        fit(model)
        assert not changed(base.get_layer("conv1"), before), "Keras mended it"
    else:
        with pytest.raises(Exception):  # noqa: B017  each backend has its own, and none says what to do
            fit(model)

    base = network()
    model = headstart.freeze(flat(base))
    fit(model)
    before = values(base.get_layer("conv1"))
    assert not changed(base.get_layer("conv1"), before)
    headstart.unfreeze(model)
    fit(model)
    assert changed(base.get_layer("conv1"), before)


def test_freezing_layers_without_compiling_goes_on_training_them():
    base = network()
    model = flat(base)
    fit(model)
    for layer in base.layers:
        layer.trainable = False
    before = values(base.get_layer("conv1"))
    if BACKEND == "tensorflow":
        fit(model)
        assert changed(base.get_layer("conv1"), before), "Keras mended it"
    elif BACKEND == "jax":
        with pytest.raises(Exception):  # noqa: B017
            fit(model)

    base = network()
    model = headstart.unfreeze(flat(base))
    fit(model)
    headstart.freeze(model)
    before, head = values(base.get_layer("conv1")), values(model.get_layer("head"))
    fit(model)
    assert not changed(base.get_layer("conv1"), before)
    assert changed(model.get_layer("head"), head)


def test_no_map_can_be_read_out_of_a_nested_network():
    model = nested(network())
    inner = model.get_layer("network").get_layer("conv2").output
    with pytest.raises(ValueError):
        keras.Model(model.input, [inner, model.output])

    ours = headstart.transfer_model("MobileNetV2", 2, image_size=32, weights="none")
    seen = keras.Model(ours.input, [ours.get_layer("Conv_1").output, ours.output])
    assert seen.output_shape[0][1:] == (1, 1, 1280)


def test_an_augmentation_that_is_cached_is_the_same_in_every_epoch():
    if BACKEND == "tensorflow":
        import tensorflow as tf

        flip = keras.layers.RandomFlip(seed=3)
        images = tf.data.Dataset.from_tensor_slices(PIXELS)
        cached = images.map(lambda each: flip(each, training=True)).batch(4).cache()
        first, second = (np.concatenate(list(cached.as_numpy_iterator())) for _ in range(2))
        np.testing.assert_array_equal(first, second)

    material = types.SimpleNamespace(num_views=4)
    lessons = Lessons(material, np.zeros(40, np.int64), 2, np.arange(40), np.arange(0))
    (one, as_one), (two, as_two) = (lessons.shown(0, epoch) for epoch in range(2))
    assert sorted(one) == sorted(two) == list(range(40))
    assert dict(zip(one, as_one, strict=True)) != dict(zip(two, as_two, strict=True))


def test_a_layer_frozen_by_itself_stays_as_it_was():
    """What `freeze_layers` does is what the guard relies on: a frozen network trained with a head is not changed."""
    base = network(dropout=0.3)
    freeze_layers(base)
    model = flat(base)
    before = values(base)
    fit(model)
    assert not changed(base, before)
