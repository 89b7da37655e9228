from __future__ import annotations

import numpy as np
import pytest

from headstart.errors import UnknownNameError
from headstart.features.pooling import POOLED, feature_model, lower_model
from headstart.learning.heads import linear_layer
from headstart.learning.held_out import HeldOut
from headstart.learning.logistic import LinearHead
from headstart.learning.tail import open_tail, rates, stages_that_learn
from headstart.networks.backend import keras
from tiny import tiny_backbone

pytestmark = pytest.mark.backend


def head(backbone, num_classes=3, seed=0):
    random = np.random.default_rng(seed)
    width = 2 * sum(stage.num_channels for stage in backbone.stages) + (
        backbone.stages[-1].num_channels if backbone.ends_in_tokens else 0
    )
    kernel = random.normal(0, 0.1, (width, num_classes)).astype(np.float32)
    return linear_layer(LinearHead(kernel, np.zeros(num_classes, np.float32), 1.0, HeldOut.nothing()))


def inputs_of(backbone, tail, pixels):
    """What the store gives for a tail, before it rounds activations."""
    activations, pooled = (
        keras.ops.convert_to_numpy(each)
        for each in feature_model(backbone, tail.cut.name, POOLED)(pixels, training=False)
    )
    return [activations, pooled[:, : tail.num_constants]]


def fresh_inputs_of(backbone, tail, pixels):
    """What an engine makes of pixels for a tail."""
    outputs = lower_model(backbone, tail.cut.name)(pixels, training=False)
    return [keras.ops.convert_to_numpy(each) for each in outputs]


def pixels_of(size, number=6, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (number, size, size, 3)).astype(np.uint8)


@pytest.mark.parametrize("name", ["tiny", "MobileNet", "EfficientNetB0", "VitBase16"])
def test_a_tail_says_what_the_whole_says(name, backbone_of):
    backbone = tiny_backbone() if name == "tiny" else backbone_of(name) if name != "VitBase16" else tokens(backbone_of)
    if backbone is None:
        pytest.skip("no such row here")
    pixels = pixels_of(backbone.image_size)
    layer = head(backbone)
    for stage in backbone.stages[1:]:
        tail = open_tail(backbone, layer, stage.name)
        whole = keras.ops.convert_to_numpy(tail.whole(pixels, training=False))
        for inputs in (inputs_of(backbone, tail, pixels), fresh_inputs_of(backbone, tail, pixels)):
            np.testing.assert_allclose(keras.ops.convert_to_numpy(tail.model(inputs)), whole, atol=1e-5)
        learns = {id(weight) for weight in tail.model.trainable_weights}
        assert learns == {id(weight) for weight in tail.whole.trainable_weights}
    tail = open_tail(backbone, layer, "all")
    assert tail.model is tail.whole
    assert tail.cut is None


def tokens(backbone_of):
    from headstart.networks.catalogue import CATALOGUE

    rows = [spec.name for spec in CATALOGUE if spec.architecture is not None and spec.num_params < 30_000_000]
    return backbone_of(rows[0]) if rows else None


def steps(model, batches, labels, learning_rate=0.01):
    model.compile(keras.optimizers.SGD(learning_rate, momentum=0.9), "categorical_crossentropy")
    for inputs, one_hot in zip(batches, labels, strict=True):
        model.train_on_batch(inputs, one_hot)


def test_training_the_tail_is_training_the_whole_with_the_same_batches():
    """After several steps, the activations in half precision as the store keeps them."""
    labels = [np.eye(3, dtype=np.float32)[np.arange(6) % 3]] * 8
    batches = [pixels_of(32, seed=number) for number in range(8)]
    whole_network, cut_network = tiny_backbone(), tiny_backbone()
    whole = open_tail(whole_network, head(whole_network), "stage2")
    cut = open_tail(cut_network, head(cut_network), "stage2")
    stored = []
    for pixels in batches:
        activations, constants = inputs_of(cut_network, cut, pixels)
        stored.append([activations.astype(np.float16).astype(np.float32), constants])
    steps(whole.whole, batches, labels)
    steps(cut.model, stored, labels)
    start = [np.array(value) for value in tiny_backbone().model.get_weights()]
    after = [np.array(value) for value in whole.whole.get_weights()]
    assert max(float(np.abs(one - two).max()) for one, two in zip(start, after, strict=False)) > 1e-3  # It learnt.
    for ours, theirs in zip(cut.whole.get_weights(), after, strict=True):
        np.testing.assert_allclose(np.array(ours), theirs, atol=1e-4)


def test_names_the_stages_that_there_are():
    backbone = tiny_backbone()
    with pytest.raises(UnknownNameError, match=r"There is no stage 'stage7'\. Did you mean stage"):
        open_tail(backbone, head(backbone), "stage7")
    assert stages_that_learn(backbone) == ("stage2", "all")


def test_leaves_out_stages_without_weights(backbone_of):
    """VGG16 ends in a stage that only pools."""
    assert stages_that_learn(backbone_of("VGG16"))[0] == "stage4"
    assert stages_that_learn(backbone_of("MobileNetV2")) == ("stage5", "stage4", "stage3", "stage2", "all")


def test_deeper_layers_learn_more_slowly():
    backbone = tiny_backbone()
    factors = rates(backbone, "all", 0.5)
    assert (factors["conv1"], factors["conv2"]) == (0.5, 1.0)
    assert "conv1" not in rates(backbone, "stage2", 0.5)
    assert rates(backbone, "stage2", 0.5)["conv2"] == 1.0
