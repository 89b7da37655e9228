"""Two networks that see together: one plain model, taken only where it is surely better than each alone."""

from __future__ import annotations

import dataclasses
import types

import numpy as np
import pytest

from headstart.features.pooling import feature_model, pooled_blocks
from headstart.learning import pairing
from headstart.learning.choosing import Candidate
from headstart.learning.held_out import HeldOut
from headstart.learning.job import Fitted, Job
from headstart.learning.logistic import LinearHead
from headstart.learning.model_file import load_model, save_model
from headstart.learning.pairing import Alone, grow_paired_head, join
from headstart.networks.backbone import FLIPS
from headstart.pictures.folder import ImageFolder
from headstart.recipe import Recipe
from tiny import drawn_pixels, tiny_backbone, write_images

SIZE = 32


def say(backbone, pixels):
    return np.asarray(feature_model(backbone).predict(pixels, verbose=0))


@pytest.mark.backend
def test_two_networks_whose_layers_have_the_same_names_are_one_plain_model(tmp_path):
    pixels = drawn_pixels(SIZE, 3)
    features = np.concatenate([say(tiny_backbone(seed=seed), pixels) for seed in (0, 1)], axis=1)[:, None]
    random = np.random.default_rng(0)
    kernel = random.normal(size=(features.shape[-1], 3)).astype(np.float32) / 10
    head = LinearHead(kernel, random.normal(size=3).astype(np.float32), 1.0, HeldOut.nothing())
    model = grow_paired_head(tiny_backbone(seed=0), tiny_backbone(seed=1), head)
    assert type(model).__module__.startswith("keras.")
    assert {weight.path.split("/")[0] for weight in model.trainable_weights} == {"probabilities"}
    save_model(model, tmp_path / "model.keras")
    for each in (model, load_model(tmp_path / "model.keras")):
        assert each.input_shape == (None, SIZE, SIZE, 3)
        assert each.inputs[0].dtype == "uint8"
        np.testing.assert_allclose(np.asarray(each.predict(pixels, verbose=0)), head.probabilities(features), atol=1e-5)


class Eye:
    """A tiny network that computes at once what is asked for; its weights may want another size."""

    def __init__(self, name, seed, pixels, fits=SIZE):
        self.backbone = tiny_backbone(SIZE, seed=seed)
        self.spec = dataclasses.replace(self.backbone.spec, name=name, smallest_size=SIZE)
        self.weights = types.SimpleNamespace(fitting_size=lambda size: fits)
        self._values = say(self.backbone, pixels)[:, None]

    def look(self, images, candidate, step=""):
        assert candidate == Candidate(SIZE, ("as_is",))
        return types.SimpleNamespace(values=self._values)

    def blocks(self, candidate):
        return pooled_blocks(self.backbone.stages, has_token=False)

    def plan(self, size):
        return self.backbone


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    images = write_images(tmp_path_factory.mktemp("images"), 60)
    labelled = [dataclasses.replace(image, label="ab"[number % 2]) for number, image in enumerate(images)]
    folder = ImageFolder(tmp_path_factory.getbasetemp(), tuple(labelled), ("a", "b"), ())
    splits = tuple("test" if number >= 50 else "train" for number in range(60))
    return Job(folder, splits, Recipe(), Candidate(SIZE, FLIPS))


@pytest.fixture(scope="module")
def pixels(job):
    """Those of class b are darker."""
    drawn = np.random.default_rng(0).integers(0, 256, (60, SIZE, SIZE, 3)).astype(np.uint8)
    drawn[1::2] //= 4
    return drawn


def alone(losses, right=None):
    losses = np.asarray(losses, float)
    held_out = HeldOut(losses, np.ones(len(losses), bool) if right is None else right)
    return Alone(Fitted(lambda: "one model", np.zeros((10, 2)), (), "One head.", held_out=held_out), "At 32 px.")


@pytest.mark.backend
def test_two_are_used_where_they_are_surely_better_than_each(job, pixels, monkeypatch):
    first, second = Eye("First", 0, pixels), Eye("Second", 1, pixels)
    blind = HeldOut(np.full(50, 0.69) + np.linspace(0, 0.01, 50), np.zeros(50, bool))
    real = type(job).weighed_head

    def weighed_head(self, lesson):
        found = real(self, lesson)
        is_pair = lesson.features.shape[-1] > first._values.shape[-1]
        return found if is_pair else dataclasses.replace(found, head=dataclasses.replace(found.head, held_out=blind))

    monkeypatch.setattr(Job, "weighed_head", weighed_head)
    joined = join(job, first, [second], alone(blind.losses, blind.right))
    assert joined.sees == (first, second)
    assert joined.candidate == Candidate(SIZE, ("as_is",))
    assert joined.note.startswith("Logistic regression on 40 features of First and Second; its strength ")
    assert "First and Second together: cross-validated log loss 0.0" in joined.note
    assert joined.note.endswith("standard errors less; so both are used.")
    said = np.asarray(joined.fitted.grow().predict(pixels[50:], verbose=0))
    np.testing.assert_allclose(said, joined.fitted.test_probabilities, atol=1e-5)
    assert (said.argmax(axis=1) == np.arange(10) % 2).all()


@pytest.mark.backend
def test_one_is_used_where_two_are_no_surer_gain(job, pixels):
    given = alone(np.full(50, 1e-6))
    joined = join(job, Eye("First", 0, pixels), [Eye("Second", 1, pixels)], given)
    assert joined.fitted is given.fitted
    assert joined.candidate == job.candidate
    assert len(joined.sees) == 1
    assert joined.note.startswith("One head. At 32 px. First and Second together: cross-validated log loss 0.")
    assert joined.note.endswith("no surer gain than noise, so one is used.")


def test_nobody_to_join_changes_nothing(job, pixels):
    given = alone(np.full(50, 0.5))
    joined = join(job, Eye("First", 0, pixels), [], given)
    assert (joined.fitted, joined.note) == (given.fitted, "One head. At 32 px.")


@pytest.mark.parametrize(
    ("fits", "losses", "words"),
    [
        (33, np.full(50, 0.5), "Second does not take images of exactly 32 pixels."),
        (32, [], "there are too few images to judge it by."),
    ],
)
def test_who_cannot_be_tried_is_a_sentence(job, pixels, fits, losses, words):
    joined = join(job, Eye("First", 0, pixels), [Eye("Second", 1, pixels, fits)], alone(losses))
    assert joined.note == f"One head. At 32 px. First and Second were not tried together: {words}"


def test_the_verdict_asks_for_a_sure_gain_and_for_no_fewer_right():
    noise = np.linspace(-0.02, 0.02, 100)
    right = np.arange(100) < 90
    one, other = HeldOut(0.5 + noise, right), HeldOut(0.4 - noise, right)
    better = HeldOut(np.full(100, 0.3), right)
    assert pairing._verdict("A and B", better, {"A": one, "B": other}) == (
        True,
        "A and B together: cross-validated log loss 0.3000 and 90.0% right, against 0.4000 and 90.0% of B alone, "
        f"{other.standard_errors_behind(better):.1f} standard errors less; so both are used.",
    )
    fewer = HeldOut(better.losses, np.arange(100) < 89)
    taken, sentence = pairing._verdict("A and B", fewer, {"A": one, "B": other})
    assert not taken
    assert sentence.endswith("but fewer images right, so one is used.")
    worse = HeldOut(np.full(100, 0.45), right)
    assert not pairing._verdict("A and B", worse, {"A": one, "B": other})[0], "better than A, but not than B"
