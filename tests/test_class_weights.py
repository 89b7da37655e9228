"""Weights of classes in a fit: what they do to the head, and what is looked for with them."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.learning.class_weights import ClassWeights, times_larger
from headstart.learning.logistic import Restraint, fit_linear_head
from test_logistic import problem

LABELS = np.repeat([0, 1, 2], [60, 30, 10])


def unbalanced(width=20, *, seed=0, counts=(60, 30, 10)):
    features, labels = problem(3 * max(counts), width, 3, seed=seed)
    kept = np.concatenate([np.flatnonzero(labels == each)[:count] for each, count in enumerate(counts)])
    return features[kept], labels[kept]


def fit(features, labels, weights, num_classes=3):
    restraint = Restraint(class_weights=weights)
    return fit_linear_head(features, labels, num_classes, np.arange(len(labels)), seed=0, restraint=restraint)


def test_balanced_weights_are_the_inverse_frequencies_and_one_on_average():
    weights = ClassWeights.balanced(LABELS, 3)
    np.testing.assert_allclose(weights.weights, [100 / 180, 100 / 90, 100 / 30])
    assert weights.weights[LABELS].mean() == pytest.approx(1)
    np.testing.assert_allclose(weights.judging(LABELS), weights.weights[LABELS])
    assert not weights.shift.any()
    assert times_larger(LABELS, 3) == 6


def test_the_correction_is_the_logarithm_and_leaves_judging_alone():
    weights = ClassWeights(np.array([0.5, 2.0]), is_corrected=True)
    np.testing.assert_allclose(weights.shift, np.log([0.5, 2.0]))
    assert (weights.judging(np.array([0, 1])) == 1).all()


def test_weights_of_one_change_no_bit():
    features, labels = unbalanced()
    plain, alike = fit(features, labels, None), fit(features, labels, ClassWeights.alike(3))
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(alike, name))
    np.testing.assert_array_equal(plain.held_out.losses, alike.held_out.losses)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_equals_scikit_learn(num_classes):
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = unbalanced()
    features, labels = features[labels < num_classes], labels[labels < num_classes]
    head = fit(features, labels, ClassWeights.balanced(labels, num_classes), num_classes)
    rows = features[:, 0].astype(np.float64)
    standard = (rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-6)
    strength = head.strength * 2 if num_classes == 2 else head.strength
    model = linear_model.LogisticRegression(C=strength, tol=1e-8, max_iter=10_000, class_weight="balanced")
    theirs = model.fit(standard, labels).predict_proba(standard)
    np.testing.assert_allclose(head.probabilities(features), theirs, atol=2e-3)


def test_corrected_is_the_same_head_with_the_logarithm_off_its_biases():
    features, labels = unbalanced()
    weights = ClassWeights.balanced(labels, 3).weights
    as_is, corrected = (fit(features, labels, ClassWeights(weights, is_corrected=each)) for each in (False, True))
    if as_is.strength != corrected.strength:
        pytest.fail("choose another seed: the two were fitted at different strengths")
    np.testing.assert_allclose(corrected.kernel, as_is.kernel, atol=1e-6)
    np.testing.assert_allclose(as_is.bias - corrected.bias, np.log(weights), atol=1e-4)


def test_corrected_probabilities_are_about_the_classes_as_they_are():
    """Where there is nothing to learn, they are the frequencies; uncorrected, all classes seem alike."""
    random = np.random.default_rng(0)
    features = random.normal(size=(100, 1, 3)).astype(np.float32)
    weights = ClassWeights.balanced(LABELS, 3).weights
    corrected = fit(features, LABELS, ClassWeights(weights, is_corrected=True)).probabilities(features)
    np.testing.assert_allclose(corrected.mean(axis=0), [0.6, 0.3, 0.1], atol=0.03)
    alike = fit(features, LABELS, ClassWeights.balanced(LABELS, 3)).probabilities(features)
    np.testing.assert_allclose(alike.mean(axis=0), 1 / 3, atol=0.03)


def test_what_is_held_out_is_judged_as_the_images_are_or_as_the_weights_make_them():
    """With nothing to learn, what is expected to be lost is the entropy of what is looked for."""
    features = np.random.default_rng(0).normal(size=(100, 1, 3)).astype(np.float32)
    weights = ClassWeights.balanced(LABELS, 3).weights
    shares = np.array([0.6, 0.3, 0.1])
    corrected = fit(features, LABELS, ClassWeights(weights, is_corrected=True)).held_out
    assert corrected.loss == pytest.approx(-(shares * np.log(shares)).sum(), abs=0.05)
    for in_judging in (False, True):
        found = fit(features, LABELS, ClassWeights(weights, in_judging=in_judging)).held_out
        assert found.loss == pytest.approx(np.log(3), abs=0.05)
    assert found.losses[LABELS == 2].mean() > 3 * found.losses[LABELS == 0].mean(), "a rare image counts more"
