from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from headstart.features.blocks import Unheard
from headstart.learning import basis, logistic
from headstart.learning.lbfgs import minimize
from headstart.learning.logistic import STRENGTHS, assign_folds, fit_linear_head


def problem(num_images, width, num_classes, *, seed=0, noise=2.0, num_views=1):
    """Features of unlike scales and offsets, correlated, whose classes overlap."""
    random = np.random.default_rng(seed)
    labels = np.arange(num_images) % num_classes
    centres = random.normal(size=(num_classes, width))
    mixing = random.normal(size=(width, width)) / np.sqrt(width)
    rows = (centres[labels][:, None] + noise * random.normal(size=(num_images, num_views, width))) @ mixing
    return (rows * random.uniform(0.1, 10, width) + random.normal(size=width) * 5).astype(np.float32), labels


def fit(features, labels, num_classes, **more):
    return fit_linear_head(features, labels, num_classes, np.arange(len(labels)), seed=0, **more)


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize(("num_images", "width"), [(40, 120), (200, 12)], ids=["n<d", "n>d"])
def test_equals_scikit_learn(num_images, width, num_classes):
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = problem(num_images, width, num_classes)
    head = fit(features, labels, num_classes)
    rows = features[:, 0].astype(np.float64)
    standard = (rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-6)
    # Two classes of softmax share the penalty of one logistic weight: |w / 2|^2 + |w / 2|^2 is half of |w|^2.
    strength = head.strength * 2 if num_classes == 2 else head.strength
    theirs = linear_model.LogisticRegression(C=strength, tol=1e-8, max_iter=10_000).fit(standard, labels)
    np.testing.assert_allclose(head.probabilities(features), theirs.predict_proba(standard), atol=1e-3)
    assert head.kernel.shape == (width, num_classes)
    assert head.kernel.dtype == head.bias.dtype == np.float32


@pytest.mark.parametrize("strength", [STRENGTHS[0], STRENGTHS[6], STRENGTHS[-1]])
def test_equals_scikit_learn_at_every_strength(monkeypatch, strength):
    linear_model = pytest.importorskip("sklearn.linear_model")
    monkeypatch.setattr(logistic, "STRENGTHS", (strength,))
    features, labels = problem(90, 20, 3, seed=4)
    head = fit(features, labels, 3)
    assert head.strength == strength
    rows = features[:, 0].astype(np.float64)
    standard = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    theirs = linear_model.LogisticRegression(C=strength, tol=1e-8, max_iter=10_000).fit(standard, labels)
    np.testing.assert_allclose(head.probabilities(features), theirs.predict_proba(standard), atol=2e-3)


def test_the_chosen_strength_has_the_least_cross_validated_loss():
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = problem(120, 30, 3, seed=2)
    head = fit(features, labels, 3)
    rows = features[:, 0].astype(np.float64)
    standard = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    folds = assign_folds(labels, np.arange(120), seed=0)
    losses = {}
    for strength in STRENGTHS:
        each = np.zeros(120)
        for fold in range(folds.max() + 1):
            inside = folds != fold
            model = linear_model.LogisticRegression(C=strength, max_iter=10_000).fit(standard[inside], labels[inside])
            held_out = model.predict_log_proba(standard[~inside])
            each[~inside] = -held_out[np.arange((~inside).sum()), labels[~inside]]
        losses[strength] = each
    best = min(losses, key=lambda strength: losses[strength].mean())
    assert losses[head.strength].mean() <= losses[best].mean() * 1.005
    np.testing.assert_allclose(head.held_out.losses, losses[head.strength], atol=0.03)
    assert 0 < head.held_out.accuracy < 1


def test_what_is_told_apart_with_ease_is_solved_as_exactly_as_what_is_not():
    """There the slope is small long before the loss is the least: the head kept weights a fifth from its optimum."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = problem(240, 80, 3, noise=0.35, seed=1)
    head = fit(features, labels, 3)
    rows = features[:, 0].astype(np.float64)
    standard = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    theirs = linear_model.LogisticRegression(C=head.strength, tol=1e-9, max_iter=10_000).fit(standard, labels)
    ours = head.kernel * rows.std(axis=0)[:, None]
    ours -= ours.mean(axis=1, keepdims=True)
    assert np.linalg.norm(ours - theirs.coef_.T) < 0.08 * np.linalg.norm(theirs.coef_)


def test_a_straight_line_through_the_last_two_solutions_saves_steps(monkeypatch):
    features, labels = problem(240, 80, 3, noise=0.35, seed=1)
    counts = []

    def counting(loss_and_slope, start, **more):
        def counted(point):
            counts[-1] += 1
            return loss_and_slope(point)

        return minimize(counted, start, **more)

    monkeypatch.setattr(logistic, "minimize", counting)
    for ahead in (logistic._ahead, lambda path: path[-1] if path else None):
        monkeypatch.setattr(logistic, "_ahead", ahead)
        counts.append(0)
        fit(features, labels, 3)
    assert counts[0] < counts[1] / 2


def test_a_feature_that_hardly_varies_costs_the_answers_no_digits():
    """Maxima that are nearly the same on every image, as of emoji: float32 does not hold a weight of thousands."""
    features, labels = problem(300, 40, 3)
    saturated = np.arange(0, 40, 4)
    random = np.random.default_rng(1)
    features[..., saturated] = 6 - 1e-5 * np.abs(random.normal(size=(300, 1, len(saturated)))) * (
        1 + labels[:, None, None]
    )
    head = fit(features, labels, 3)
    exact = features[:, 0].astype(np.float64) @ head.kernel.astype(np.float64) + head.bias
    np.testing.assert_allclose(head.probabilities(features), softmax(exact, axis=1), atol=2e-6)


def test_the_standardisation_is_folded_into_the_kernel():
    features, labels = problem(60, 8, 3, num_views=4)
    head = fit(features, labels, 3)
    logits = features.mean(axis=1) @ head.kernel + head.bias
    probabilities = head.probabilities(features)
    np.testing.assert_allclose(probabilities, softmax(logits.astype(np.float64), axis=1), atol=1e-9)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-9)
    scaled = features * np.float32(8) + np.float32(3)
    np.testing.assert_allclose(fit(scaled, labels, 3).probabilities(scaled), probabilities, atol=2e-3)


def test_views_that_agree_change_nothing():
    features, labels = problem(60, 10, 3)
    once, four = fit(features, labels, 3), fit(np.repeat(features, 4, axis=1), labels, 3)
    assert once.strength == four.strength
    np.testing.assert_allclose(
        four.probabilities(np.repeat(features, 4, axis=1)), once.probabilities(features), atol=1e-3
    )


def test_directions_in_which_views_differ_count_less():
    random = np.random.default_rng(0)
    labels = np.arange(80) % 2
    signal = (labels * 2 - 1)[:, None, None] + 0.5 * random.normal(size=(80, 1, 2))
    features = np.repeat(signal, 4, axis=1).astype(np.float32)
    features[:, :, 1] += 3 * np.array([1, -1, 1, -1])  # Cancels in the mean, but says that views disagree there.
    head = fit(features, labels, 2)
    steady, unsteady = np.abs(head.kernel[:, 0] - head.kernel[:, 1])
    assert steady > 3 * unsteady


def test_the_view_penalty_stands_for_training_on_every_view(monkeypatch):
    """Averages with the penalty come closer to a head that saw each view than averages alone."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    monkeypatch.setattr(logistic, "STRENGTHS", (0.1,))
    random = np.random.default_rng(3)
    labels, axes = np.arange(120) % 2, random.normal(size=(6, 6))
    images = (labels * 2 - 1)[:, None] * 0.4 + random.normal(size=(120, 6))
    turns = 2.5 * random.normal(size=(120, 4, 3)) @ axes[:3]  # Views differ along three of six directions.
    features = (images[:, None] + turns - turns.mean(axis=1, keepdims=True)).astype(np.float32)
    rows = (features - features.mean(axis=(0, 1))) / features.std(axis=(0, 1))
    model = linear_model.LogisticRegression(C=2 * 0.1 / 4, tol=1e-8, max_iter=10_000)
    every_view = model.fit(rows.reshape(-1, 6), np.repeat(labels, 4)).predict_proba(rows.mean(axis=1))
    distances = {}
    for penalty in (0.0, basis._VIEW_PENALTY):
        monkeypatch.setattr(basis, "_VIEW_PENALTY", penalty)
        distances[penalty] = np.abs(fit(features, labels, 2).probabilities(features) - every_view).mean()
    assert distances[basis._VIEW_PENALTY] < distances[0.0] / 2


def test_too_few_images_get_the_default_strength():
    features, labels = problem(6, 5, 3)
    labels = np.array([0, 0, 0, 1, 1, 2])
    head = fit(features, labels, 3)
    assert head.strength == 1e-2
    assert len(head.held_out) == 0
    assert np.isnan(head.held_out.accuracy)
    assert head.probabilities(features).shape == (6, 3)


@pytest.mark.parametrize("value", [0.0, 7.5])
def test_features_that_never_vary_do_no_harm(value):
    features, labels = problem(40, 6, 2)
    constant = np.concatenate([features, np.full((40, 1, 2), value, np.float32)], axis=2)
    probabilities = fit(constant, labels, 2).probabilities(constant)
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities, fit(features, labels, 2).probabilities(features), atol=1e-3)
    alone = fit(np.full((10, 1, 3), value, np.float32), np.arange(10) % 2, 2)
    np.testing.assert_allclose(alone.probabilities(np.full((1, 1, 3), value)), 0.5, atol=1e-3)


def test_the_same_seed_gives_the_same_head():
    features, labels = problem(50, 70, 3)
    first, again = fit(features, labels, 3), fit(features, labels, 3)
    assert first.kernel.tobytes() == again.kernel.tobytes()
    assert first.strength == again.strength


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_folds_keep_units_together_and_deal_classes_evenly(data):
    num_classes = data.draw(st.integers(1, 4))
    unit_labels = list(range(num_classes)) + data.draw(st.lists(st.integers(0, num_classes - 1), max_size=30))
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=len(unit_labels), max_size=len(unit_labels)))
    units = np.repeat(np.arange(len(unit_labels)), sizes)
    labels = np.repeat(unit_labels, sizes)
    order = np.array(data.draw(st.permutations(range(len(units)))))
    folds = assign_folds(labels[order], units[order], seed=data.draw(st.integers(0, 5)))
    fewest = min(unit_labels.count(label) for label in range(num_classes))
    assert folds.max() + 1 == (min(5, fewest) if fewest > 1 else 1)
    by_unit = {}
    for unit, fold in zip(units[order], folds, strict=True):
        assert by_unit.setdefault(unit, fold) == fold
    if fewest > 1:
        for label in range(num_classes):
            counts = np.bincount([by_unit[u] for u in by_unit if unit_labels[u] == label], minlength=folds.max() + 1)
            assert counts.max() - counts.min() <= 1
            assert counts.min() > 0


def test_units_of_several_classes_stay_in_one_fold():
    """As with patients of whom there are sound and diseased pictures: the first picture's class is not all there is."""
    units, labels = np.repeat(np.arange(10), 2), np.tile([0, 1], 10)
    folds = assign_folds(labels, units, seed=0)
    assert folds.max() == 4
    assert all(len(set(folds[units == unit])) == 1 for unit in range(10))
    assert assign_folds(np.array([0, 1]), np.array([0, 0]), seed=0).tolist() == [0, 0]


def test_a_class_that_a_fold_never_saw_does_no_harm():
    """Class 2 lies in two units that also hold class 0, so both can fall into one fold."""
    features, labels = problem(60, 8, 2)
    units = np.arange(60)
    labels = labels.copy()
    labels[[1, 3]] = 2
    units[[1, 3]] = units[[0, 2]]
    for seed in range(4):
        head = fit_linear_head(features, labels, 3, units, seed=seed)
        assert np.isfinite(head.held_out.losses).all()
        assert np.isfinite(head.probabilities(features)).all()


def test_blocks_count_alike_however_wide_they_are():
    """A narrow block that tells the classes apart, beside a wide one of noise, is not drowned."""
    random = np.random.default_rng(5)
    labels = np.arange(120) % 2
    narrow = (labels * 2 - 1)[:, None] + 1.5 * random.normal(size=(120, 4))
    wide = random.normal(size=(120, 400))
    features = np.concatenate([narrow, wide], axis=1)[:, None].astype(np.float32)
    alike, plain = (fit(features, labels, 2, blocks=blocks) for blocks in ((4, 400), ()))
    assert alike.held_out.loss < 0.9 * plain.held_out.loss
    with pytest.raises(ValueError, match=r"blocks of \[4, 300\] features do not make 404"):
        fit(features, labels, 2, blocks=[4, 300])


def test_what_is_not_heard_is_as_if_it_were_not_there():
    features, labels = problem(60, 10, 3, seed=4)
    found = fit(features, labels, 3, blocks=(4, Unheard(2), 4))
    without = fit(np.delete(features, (4, 5), axis=2), labels, 3, blocks=(4, 4))
    np.testing.assert_array_equal(found.kernel[4:6], 0)
    np.testing.assert_allclose(np.delete(found.kernel, (4, 5), axis=0), without.kernel, atol=1e-4)
    assert found.strength == without.strength


def test_blocks_of_one_width_change_nothing():
    features, labels = problem(60, 12, 3)
    np.testing.assert_array_equal(fit(features, labels, 3, blocks=(6, 6)).kernel, fit(features, labels, 3).kernel)
