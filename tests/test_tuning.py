from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

from headstart.errors import GuardError, RunError
from headstart.learning import tuning
from headstart.learning.class_weights import ClassWeights
from headstart.learning.held_out import HeldOut
from headstart.learning.keeper import Keeper
from headstart.learning.lessons import Lessons
from headstart.learning.optimizer import LayerwiseAdamW, make_optimizer
from headstart.learning.rate_test import find_rate
from headstart.learning.schedule import Schedule, schedule_for
from headstart.learning.tail import open_tail
from headstart.learning.tuning import Phase, tune
from headstart.networks.backend import keras
from test_tail import head
from tiny import tiny_backbone

pytestmark = pytest.mark.backend

SCHEDULE = Schedule(epochs=4, batch_size=8, learning_rate=1e-2, patience=9)


class Painted:
    """Pictures of three classes: red, green or blue, in two views."""

    num_views = 2

    def __init__(self, number=30, seed=0):
        random = np.random.default_rng(seed)
        self.labels = np.arange(number) % 3
        self.pixels = random.integers(0, 120, (number, 32, 32, 3)).astype(np.float32)
        self.pixels[np.arange(number), :, :, self.labels] += 60

    def batch(self, images, views, random=None):
        each = self.pixels[images]
        each[views == 1] = each[views == 1][:, :, ::-1]
        return [each]


def lessons(number=30, num_val=9, **changes):
    painted = Painted(number)
    numbers = np.arange(number)
    plain = Lessons(painted, painted.labels, 3, numbers[: number - num_val], numbers[number - num_val :])
    return dataclasses.replace(plain, **changes)


def opened(first="all"):
    backbone = tiny_backbone()
    return open_tail(backbone, head(backbone), first).model


def phase(**changes):
    return Phase("all", dataclasses.replace(SCHEDULE, **changes), seed=3)


def weights(model):
    return [np.array(value) for value in model.get_weights()]


def same(one, two):
    return all(np.array_equal(first, second) for first, second in zip(one, two, strict=True))


def test_learns_and_leaves_the_weights_of_the_best_epoch():
    told = []
    model, those = opened(), lessons()
    found = tune(model, those, phase(), tell=lambda row, number: told.append((row.epoch, number)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    losses = [row.val_loss for row in found.history]
    assert found.best_epoch == 1 + int(np.argmin(losses))
    assert those.quick_answers(model).loss == pytest.approx(min(losses), abs=1e-6)
    assert found.after.loss < found.before.loss
    assert those.answers(model).loss == pytest.approx(found.after.loss, abs=1e-6)
    assert found.trouble == ""
    assert all(row.images_per_second > 0 and math.isfinite(row.loss) for row in found.history)


def test_where_nothing_helps_the_weights_are_those_of_the_start(monkeypatch):
    losses = itertools.count(1.0)  # Worse each time that the validation images are asked.
    monkeypatch.setattr(Lessons, "quick_answers", lambda *given: HeldOut(np.full(9, next(losses)), np.ones(9, bool)))
    model = opened()
    start = weights(model)
    found = tune(model, lessons(), phase())
    assert [row.val_loss for row in found.history] == [2, 3, 4, 5]
    assert found.best_epoch == 0
    assert found.after is found.before
    assert same(weights(model), start)


def test_stops_when_it_is_tired():
    those = lessons()
    wrong = those.labels.copy()
    wrong[those.val] = (wrong[those.val] + 1) % 3  # What it learns is always wrong there.
    found = tune(opened(), dataclasses.replace(those, labels=wrong), phase(epochs=20, patience=2))
    assert len(found.history) == found.best_epoch + 2


def test_an_absurd_learning_rate_ends_safely():
    model = opened()
    start = weights(model)
    found = tune(model, lessons(), phase(learning_rate=1e30))
    assert "learning rate of 1e+30 is too high here" in found.trouble
    if found.best_epoch == 0:
        assert same(weights(model), start)
    assert all(np.isfinite(value).all() for value in weights(model))


@pytest.mark.parametrize("batch_size", [1, 7, 500])
def test_any_batch_size(batch_size):
    found = tune(opened(), lessons(), phase(epochs=1, batch_size=batch_size))
    assert len(found.history) == 1


def test_without_validation_images_it_runs_to_its_end():
    those = lessons(val=np.arange(0))
    found = tune(opened(), those, phase(epochs=2))
    assert [row.epoch for row in found.history] == [1, 2]
    assert found.best_epoch == 2
    assert not len(found.before)
    assert math.isnan(found.history[0].val_loss)


def test_a_class_that_is_missing_among_the_validation_images():
    those = lessons()
    found = tune(opened(), dataclasses.replace(those, val=those.val[those.labels[those.val] != 1]), phase(epochs=1))
    assert math.isfinite(found.after.loss)


def test_one_image():
    found = tune(opened(), lessons(train=np.arange(1)), phase(epochs=2))
    assert len(found.history) == 2


class _Killed(BaseException):
    """As sudden as SIGKILL, as far as this process can be."""


@pytest.mark.parametrize("at", [1, 3, 4, 8, 11])
def test_goes_on_where_it_was_killed_to_the_same_bits(at, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "_SECONDS_BETWEEN_STATES", 0.0)  # After every step.
    those, plan = lessons(), phase()
    whole = opened()
    expected = tune(whole, those, plan)

    def killed(step, done, total):
        if done > at:
            raise _Killed

    with pytest.raises(_Killed):
        tune(opened(), those, plan, keeper=Keeper(tmp_path, "state", "x"), progress=killed)
    again = opened()
    steps = []
    found = tune(
        again, those, plan, keeper=Keeper(tmp_path, "state", "x"), progress=lambda step, done, total: steps.append(done)
    )
    assert steps[0] == at + 1  # Nothing that was done was done again.
    assert same(weights(again), weights(whole))
    assert [row.val_loss for row in found.history] == [row.val_loss for row in expected.history]
    assert found.best_epoch == expected.best_epoch
    third = opened()  # And once more, when it is over: what was found is read back.
    tune(third, those, plan, keeper=Keeper(tmp_path, "state", "x"), progress=lambda *step: pytest.fail("it trained"))
    assert same(weights(third), weights(whole))


def test_trains_on_nothing_that_is_damaged(tmp_path):
    keeper = Keeper(tmp_path, "state", "x")
    tune(opened(), lessons(), phase(epochs=2), keeper=keeper)
    for path in tmp_path.iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(RunError, match="is damaged"):
        tune(opened(), lessons(), phase(epochs=2), keeper=Keeper(tmp_path, "state", "x"))


def test_refuses_a_network_whose_statistics_would_move():
    backbone = tiny_backbone()
    model = open_tail(backbone, head(backbone), "all").model
    backbone.model.get_layer("norm1").trainable = True
    with pytest.raises(GuardError, match="norm1"):
        tune(model, lessons(), phase())


# --- the optimizer and the schedule -----------------------------------------------------------------------------------


def moved_by(optimizer):
    """How far a step takes two layers of which the first learns at a quarter of the rate."""
    given = keras.Input((2,))
    one, two = (keras.layers.Dense(1, use_bias=False, name=name) for name in ("one", "two"))
    model = keras.Model(given, keras.layers.Add()([one(given), two(given)]))
    for layer in (one, two):
        layer.set_weights([np.ones((2, 1))])
    optimizer.build(model.trainable_variables)
    model.compile(optimizer, "mse")
    model.train_on_batch(np.ones((4, 2), np.float32), np.zeros((4, 1), np.float32))
    return [1 - np.array(each.get_weights()[0])[0, 0] for each in (one, two)]


def test_layers_learn_at_their_own_rate():
    moved = moved_by(make_optimizer("adamw", {"one": 0.25}, learning_rate=0.01, weight_decay=0.0))
    np.testing.assert_allclose(moved, [0.0025, 0.01], rtol=1e-3)


def test_sgd_has_rates_of_layers_too():
    moved = moved_by(make_optimizer("sgd", {"one": 0.25}, learning_rate=0.01, weight_decay=0.0))
    assert moved[1] == pytest.approx(4 * moved[0], rel=1e-3)
    assert 0 < moved[1] < 0.02, "the gradient is cut to a length of 1"


def test_kernels_decay_and_offsets_do_not():
    given, dense = keras.Input((2,)), keras.layers.Dense(1, name="one")
    model = keras.Model(given, dense(given))
    dense.set_weights([np.ones((2, 1)), np.ones(1)])
    optimizer = LayerwiseAdamW({"one": 0.0}, learning_rate=0.5, weight_decay=0.1)
    model.compile(optimizer, "mse")
    model.train_on_batch(np.ones((4, 2), np.float32), np.zeros((4, 1), np.float32))
    kernel, bias = dense.get_weights()
    np.testing.assert_allclose(kernel, 0.95, rtol=1e-5)
    np.testing.assert_allclose(bias, 1)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_either_optimizer_learns(optimizer):
    found = tune(opened(), lessons(), phase(optimizer=optimizer, epochs=8))
    assert found.after.loss < found.before.loss


def test_weights_are_averaged_over_the_last_steps():
    """What is judged is the average; what learns on is not touched by it."""
    plain, averaged = (tune(opened(), lessons(), phase(averaged_epochs=over)) for over in (0.0, 1.0))
    assert [row.loss for row in plain.history] == [row.loss for row in averaged.history]
    assert [row.val_loss for row in plain.history] != [row.val_loss for row in averaged.history]
    assert Schedule(4, 8, 1e-2, averaged_epochs=1.0).average_over(8) == 0, "an average of one step is none"
    assert Schedule(4, 8, 1e-2, averaged_epochs=1.0).average_over(80) == pytest.approx(0.9)


def test_images_are_mixed_with_their_labels():
    those = lessons()
    random = np.random.default_rng(0)
    images, views = those.train[:8], np.zeros(8, np.int64)
    plain = those.batch(images, views, random)
    mixed = those.batch(images, views, np.random.default_rng(1), mixup=0.4)
    share = mixed["y"].max(axis=1).min()
    assert 0.5 < share < 1
    np.testing.assert_allclose(mixed["y"].sum(axis=1), 1, rtol=1e-5)
    assert np.abs(mixed["x"] - plain["x"]).max() > 1
    assert schedule_for(20_000, 20).mixup > 0
    assert schedule_for(19_999, 20).mixup == 0


def test_classes_count_as_much_as_they_are_weighed():
    those = lessons()
    weights = ClassWeights(np.array([2.0, 1.0, 0.0]), in_judging=True)
    weighed = dataclasses.replace(those, class_weights=weights)
    batch = weighed.batch(those.train[:3], np.zeros(3, np.int64), np.random.default_rng(0))
    np.testing.assert_array_equal(batch["sample_weight"], weights.weights[those.labels[those.train[:3]]])
    model = opened()
    plain, judged = those.answers(model), weighed.answers(model)
    np.testing.assert_allclose(judged.losses, plain.losses * weights.weights[those.labels[those.val]])
    found = tune(model, weighed, phase(epochs=6))
    assert found.after.loss < found.before.loss


def test_a_range_test_finds_a_rate_and_leaves_no_trace():
    model, those = opened(), lessons()
    start = weights(model)
    steps = []
    rate, rows = find_rate(model, those, phase(), lambda step, done, total: steps.append(step))
    assert same(weights(model), start)
    assert set(steps) == {"Trying learning rates for all"}
    assert 1e-6 < rate < 0.1
    assert [row.learning_rate for row in rows] == sorted(row.learning_rate for row in rows)
    assert {row.chosen for row in rows} == {rate}
    assert find_rate(opened(), those, phase())[0] == rate
    found = tune(model, those, phase(learning_rate=rate))
    assert found.after.loss < found.before.loss


def test_an_epoch_is_judged_by_what_it_tells_apart():
    """A model that has every label right, but says so with 0.8 only."""
    those, model = lessons(), opened()
    rows = np.where(np.eye(3)[those.labels[those.val]] > 0, 0.8, 0.1)
    model.predict_on_batch = lambda inputs: rows
    said = those.quick_answers(model)
    assert said.loss < -np.log(0.8) / 2
    assert said.sharpness > 1


def test_where_no_rate_helps_the_usual_one_is_taken(monkeypatch):
    model, those = opened(), lessons()
    monkeypatch.setattr(type(model), "train_on_batch", lambda *given, **named: 1.0)
    assert find_rate(model, those, phase())[0] == SCHEDULE.learning_rate


def test_the_rate_rises_then_falls_to_a_tenth():
    rates = [SCHEDULE.rate_at(step, 80) for step in range(40)]
    assert max(rates) <= SCHEDULE.learning_rate
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1 * SCHEDULE.learning_rate, rel=0.05)


def test_small_sets_are_seen_more_often():
    assert [schedule_for(number, 100).epochs for number in (1, 50, 1000, 2000, 4000, 100_000)] == [20, 20, 20, 16, 8, 4]
    assert schedule_for(1600, 3).epochs == 3
    assert schedule_for(2000, 100, image_size=317).epochs == 8, "twice the pixels, half the images"
    assert schedule_for(5, 20).batch_size == 5
