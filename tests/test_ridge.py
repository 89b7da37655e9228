"""Ridge regression: its leave-one-out answers are those of fitting again without the image."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.learning.basis import Basis
from headstart.learning.ridge import gain_from_all, leave_one_out

NUM_CLASSES = 3


def example(num_images, width, signal=1.0, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(num_images) % NUM_CLASSES
    features = random.normal(size=(num_images, 1, width)).astype(np.float32)
    features[np.arange(num_images), 0, labels] += signal
    return features, labels


def refitted(features, labels, penalty, units):
    """The squared errors of each image, from a ridge regression on the images of other units. Standardised once."""
    rows = Basis.of(features).rows.astype(np.float64)
    targets = np.eye(NUM_CLASSES)[labels]
    errors = np.zeros((len(rows), NUM_CLASSES))
    for index in range(len(rows)):
        others = units != units[index]
        design = np.column_stack([rows[others], np.ones(others.sum())])
        decay = np.diag([penalty] * rows.shape[1] + [0])
        weights = np.linalg.solve(design.T @ design + decay, design.T @ targets[others])
        errors[index] = targets[index] - np.append(rows[index], 1) @ weights
    return errors


@pytest.mark.parametrize(("num_images", "width"), [(60, 8), (24, 40)], ids=["tall", "wide"])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_answers_are_those_of_fitting_again(monkeypatch, num_images, width, grouped):
    features, labels = example(num_images, width)
    units = np.arange(num_images) // 3 * 3 if grouped else np.arange(num_images)
    spread = Basis.of(features).axes.spread.astype(np.float64)
    monkeypatch.setattr("headstart.learning.ridge._STRENGTHS", (0.3,))
    found = leave_one_out(features, labels, NUM_CLASSES, units)
    truth = refitted(features, labels, 0.3 * (spread**2).mean(), units)
    np.testing.assert_allclose(found.losses, (truth**2).sum(axis=1), rtol=1e-3, atol=1e-4)
    assert (found.right == ((np.eye(NUM_CLASSES)[labels] - truth).argmax(axis=1) == labels)).all()


def test_more_signal_is_less_loss():
    losses = [leave_one_out(*example(90, 20, signal), NUM_CLASSES, np.arange(90)).loss for signal in (0.0, 1.0, 3.0)]
    assert losses[0] > losses[1] > losses[2]
    assert losses[0] > 0.6, "what says nothing is worth no more than the mean: 2/3"


def test_a_duplicate_does_not_answer_for_its_twin():
    features, labels = example(40, 60, signal=0.0)
    twice, their_labels = np.concatenate([features, features]), np.concatenate([labels, labels])
    units = np.tile(np.arange(40), 2)
    apart = leave_one_out(twice, their_labels, NUM_CLASSES, np.arange(80))
    together = leave_one_out(twice, their_labels, NUM_CLASSES, units)
    assert apart.accuracy > 0.95, "the test would see nothing if twins did not help"
    assert together.accuracy < 0.6


def test_features_that_never_vary_are_worth_the_mean():
    found = leave_one_out(np.ones((30, 1, 4), np.float32), np.arange(30) % 3, NUM_CLASSES, np.arange(30))
    assert np.isfinite(found.losses).all()
    assert 0.6 < found.loss < 0.75


def test_the_gain_is_what_a_larger_part_teaches():
    """Many features and few images: more of them teach more; where nothing can be learnt there is nothing to gain."""
    gains = [gain_from_all(*example(60, 80, 1.0, seed), NUM_CLASSES, np.arange(60), seed=seed) for seed in range(20)]
    assert min(gains) >= 0
    assert 0.005 < np.mean(gains) < 0.2
    assert gain_from_all(*example(60, 4, 9.0), NUM_CLASSES, np.arange(60), seed=0) == 0.0
