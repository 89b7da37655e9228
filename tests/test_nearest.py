"""The nearest class mean is what it is called, as a linear head."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.learning.logistic import fit_linear_head
from headstart.learning.nearest import fit_nearest_head


def problem(per_class, width=40, num_classes=3, *, apart=1.0, seed=0, draw=0, num_views=1):
    """Features of one world (seed), drawn once or again (draw)."""
    random = np.random.default_rng(seed)
    centres, scale = apart * random.normal(size=(num_classes, width)), random.uniform(0.1, 10, width)
    labels = np.repeat(np.arange(num_classes), per_class)
    noise = np.random.default_rng((seed, draw)).normal(size=(len(labels), num_views, width))
    return ((centres[labels][:, None] + noise) * scale + 5).astype(np.float32), labels


def fit(features, labels, **more):
    return fit_nearest_head(features, labels, int(labels.max()) + 1, np.arange(len(labels)), seed=0, **more)


@pytest.mark.parametrize("blocks", [(), (30, 10)])
def test_the_nearest_mean_wins(blocks):
    features, labels = problem(20)
    head = fit(features, labels, blocks=blocks)
    widths = np.repeat(np.sqrt(20 / np.array(blocks)), blocks) if blocks else 1.0
    rows = features[:, 0] / (features[:, 0].std(axis=0) + 1e-6) * widths
    means = np.stack([rows[labels == each].mean(axis=0) for each in range(3)])
    nearest = ((rows[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert (head.probabilities(features).argmax(axis=1) == nearest).all()
    assert head.kernel.shape == (40, 3)
    assert head.kernel.dtype == head.bias.dtype == np.float32


def test_equals_scikit_learn():
    neighbors = pytest.importorskip("sklearn.neighbors")
    features, labels = problem(15, apart=0.4)
    rows = features[:, 0] / features[:, 0].std(axis=0)
    theirs = neighbors.NearestCentroid().fit(rows, labels).predict(rows)
    assert (fit(features, labels).probabilities(features).argmax(axis=1) == theirs).mean() > 0.97


def test_probabilities_are_as_sure_as_cross_validation_found_them():
    features, labels = problem(40, apart=0.3)
    head = fit(features, labels)
    assert head.held_out.losses.shape == (120,)
    assert head.held_out.losses.mean() < np.log(3)
    others, their_labels = problem(400, apart=0.3, draw=1)
    rows = head.probabilities(others)
    loss = -np.log(rows[np.arange(len(rows)), their_labels]).mean()
    assert abs(loss - head.held_out.losses.mean()) < 0.25
    assert abs((rows.argmax(axis=1) == their_labels).mean() - head.held_out.accuracy) < 0.15


def test_does_better_than_a_regression_where_there_are_three_images_of_each_class():
    scores = {fit_nearest_head: [], fit_linear_head: []}
    for seed in range(20):
        features, labels = problem(3, width=200, num_classes=5, apart=0.45, seed=seed)
        test, test_labels = problem(100, width=200, num_classes=5, apart=0.45, seed=seed, draw=1)
        for way, found in scores.items():
            head = way(features, labels, 5, np.arange(15), seed=0)
            found.append((head.probabilities(test).argmax(axis=1) == test_labels).mean())
    assert np.mean(scores[fit_nearest_head]) >= np.mean(scores[fit_linear_head]) - 0.01


def test_one_image_of_each_class_and_a_class_without_any_in_a_fold():
    features, labels = problem(1)
    head = fit(features, labels)
    assert np.isnan(head.held_out.accuracy)
    assert (head.probabilities(features).argmax(axis=1) == labels).all()
    units = np.array([0, 1, 0, 1, 2, 3])
    few = fit_nearest_head(*problem(2), 3, units, seed=0)
    assert np.isfinite(few.kernel).all()


def test_features_that_never_vary_are_no_trouble():
    features, labels = np.full((6, 1, 4), 3.0, np.float32), np.array([0, 0, 0, 1, 1, 1])
    np.testing.assert_allclose(fit(features, labels).probabilities(features), 0.5)


def test_views_are_averaged():
    features, labels = problem(10, num_views=4)
    assert fit(features, labels).probabilities(features).shape == (30, 3)
