from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from headstart.features.pooling import ACTIVATIONS, feature_model
from headstart.learning.class_weights import ClassWeights
from headstart.learning.heads import (
    LabelledFeatures,
    fit_flatten_head,
    fit_mlp_head,
    grow_flatten_head,
    grow_linear_head,
    grow_mlp_head,
)
from headstart.learning.held_out import HeldOut
from headstart.learning.logistic import LinearHead
from headstart.networks.backbone import AS_IS, FLIPS, fingerprint
from headstart.networks.backend import keras
from headstart.pictures.views import VIEWS
from tiny import drawn_pixels, tiny_backbone

VIEW_SETS = pytest.mark.parametrize("views", [AS_IS, FLIPS], ids=["as_is", "flips"])


def random_head(width, num_classes=3):
    random = np.random.default_rng(0)
    kernel, bias = random.normal(size=(width, num_classes)) / 10, random.normal(size=num_classes)
    return LinearHead(kernel.astype(np.float32), bias.astype(np.float32), 1.0, HeldOut.nothing())


def features_of(pixels, output=None):
    model = feature_model(tiny_backbone(), *([output] if output else []))
    return lambda views: np.stack(
        [np.asarray(model.predict(np.ascontiguousarray(VIEWS[view](pixels)), verbose=0)) for view in views], axis=1
    )


@pytest.mark.backend
@VIEW_SETS
@pytest.mark.parametrize("number", [1, 5])
def test_a_grown_linear_head_says_what_the_fitted_one_says(views, number):
    pixels = drawn_pixels(32, number)
    features = features_of(pixels)(views)
    head = random_head(features.shape[-1])
    model = grow_linear_head(tiny_backbone(views=views), head)
    assert type(model).__module__.startswith("keras.")
    assert model.output_shape[-1] == 3
    assert {weight.path.split("/")[0] for weight in model.trainable_weights} == {"probabilities"}
    np.testing.assert_allclose(np.asarray(model.predict(pixels, verbose=0)), head.probabilities(features), atol=1e-5)


@pytest.mark.backend
@VIEW_SETS
def test_a_grown_model_loads_in_plain_keras_without_a_warning(tmp_path, views):
    pixels = drawn_pixels(32, 2)
    model = grow_linear_head(tiny_backbone(views=views), random_head(20))
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "case.npz", pixels=pixels, expected=np.asarray(model.predict(pixels, verbose=0)))
    code = (
        "import sys, warnings; warnings.simplefilter('error', UserWarning); import keras, numpy as np; "
        f"model = keras.models.load_model({str(tmp_path / 'model.keras')!r}); "
        f"case = np.load({str(tmp_path / 'case.npz')!r}); "
        "assert 'headstart' not in sys.modules; "
        "np.testing.assert_allclose(model.predict(case['pixels'], verbose=0), case['expected'], atol=1e-6)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


@pytest.mark.backend
def test_the_flatten_head_learns_and_grows_on_its_backbone():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3)).astype(np.uint8)
    labels = np.arange(24) % 2
    pixels[labels == 1] //= 4
    features = features_of(pixels, ACTIVATIONS)(AS_IS)
    train, val = LabelledFeatures(features[:16], labels[:16]), LabelledFeatures(features[16:], labels[16:])
    steps = []
    head = fit_flatten_head(train, val, 2, epochs=6, seed=0, progress=lambda *step: steps.append(step))
    assert steps[-1] == ("Training the head", len(head.history), 6)
    assert list(head.history[0]) == ["epoch", "accuracy", "loss", "val_accuracy", "val_loss"]
    assert [row["epoch"] for row in head.history] == list(range(1, len(head.history) + 1))
    backbone = tiny_backbone()
    before = fingerprint(backbone.model)
    model = grow_flatten_head(backbone, head)
    assert fingerprint(backbone.model) == before
    said = head.probabilities(features)
    np.testing.assert_allclose(np.asarray(model.predict(pixels, verbose=0)), said, atol=1e-5)
    best = min(row["val_loss"] for row in head.history)
    loss = -np.log(said[16:][np.arange(8), labels[16:]]).mean()
    assert loss == pytest.approx(best, abs=1e-4)
    assert [type(layer) for layer in model.layers[-3:]] == [
        keras.layers.Flatten,
        keras.layers.Dense,
        keras.layers.Dense,
    ]


def test_a_seed_repeats_the_flatten_head():
    features = np.random.default_rng(0).normal(size=(12, 1, 10)).astype(np.float32)
    data = LabelledFeatures(features, np.arange(12) % 3)
    first, again = (fit_flatten_head(data, data, 3, epochs=2, seed=4) for _ in range(2))
    assert fingerprint(first.model) == fingerprint(again.model)


@pytest.mark.backend
@pytest.mark.parametrize("views", [AS_IS, FLIPS])
def test_the_mlp_learns_from_every_view_and_grows_on_its_backbone(views):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3)).astype(np.uint8)
    labels = np.arange(24) % 2
    pixels[labels == 1] //= 4
    features = features_of(pixels)(views)
    train, val = LabelledFeatures(features[:16], labels[:16]), LabelledFeatures(features[16:], labels[16:])
    assert len(train.rows()[0]) == len(train.rows()[1]) == 16 * len(views)
    head = fit_mlp_head(train, val, 2, epochs=8, seed=0)
    said = head.probabilities(features)
    assert (said.argmax(axis=1) == labels).mean() > 0.9
    backbone = tiny_backbone(views=views if views == FLIPS else None)
    model = grow_mlp_head(backbone, head)
    np.testing.assert_allclose(np.asarray(model.predict(pixels, verbose=0, batch_size=8)), said, atol=1e-4)
    assert [type(layer) for layer in model.layers if layer.name in {"hidden", "probabilities"}] == [
        keras.layers.Dense
    ] * 2


@pytest.mark.backend
@pytest.mark.parametrize("fit", [fit_mlp_head, fit_flatten_head])
def test_heads_that_keras_trains_can_count_each_class_alike(fit):
    """With nothing to tell the classes apart, probabilities are what is thought to be common."""
    features = np.random.default_rng(0).normal(size=(200, 1, 2)).astype(np.float32) / 10
    labels = np.repeat([0, 1], [180, 20])
    data = LabelledFeatures(features, labels)
    weights = ClassWeights.balanced(labels, 2)
    plain, balanced = (fit(data, data, 2, epochs=5, seed=0, class_weights=each) for each in (None, weights))
    assert plain.probabilities(features)[:, 1].mean() < 0.35
    assert balanced.probabilities(features)[:, 1].mean() == pytest.approx(0.5, abs=0.1)
    said = balanced.probabilities(features)[np.arange(200), labels]
    best = min(row["val_loss"] for row in balanced.history)
    assert -(np.log(said) * weights.weights[labels]).mean() == pytest.approx(best, abs=1e-3), "judged likewise"
