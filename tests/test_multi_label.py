"""Heads and folds of images with several names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad
from scipy.special import expit

from headstart.errors import DataError
from headstart.learning import logistic
from headstart.learning.logistic import STRENGTHS, assign_folds, fit_linear_head
from headstart.learning.multi_label import check_recipe, deal, held_out, misfit_and_error
from headstart.learning.ridge import gain_from_all, leave_one_out
from headstart.pictures.folder import ImageFile, ImageFolder
from headstart.recipe import Recipe


def problem(num_images=90, width=12, num_names=3, *, seed=0, num_views=1):
    """Features of unlike scales, and names that each follow from a direction in them, with noise."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(num_images, width))
    scores = rows @ random.normal(size=(width, num_names)) + 2 * random.normal(size=(num_images, num_names))
    targets = (scores > np.linspace(-1, 2, num_names)).astype(np.int64)
    views = rows[:, None] + 0.1 * random.normal(size=(num_images, num_views, width))
    return (views * random.uniform(0.1, 10, width) + 5).astype(np.float32), targets


def fit(features, targets, **more):
    return fit_linear_head(features, targets, targets.shape[1], np.arange(len(targets)), seed=0, **more)


@pytest.mark.parametrize("strength", [None, STRENGTHS[2], STRENGTHS[-1]])
@pytest.mark.parametrize(("num_images", "width"), [(40, 60), (150, 12)], ids=["n<d", "n>d"])
def test_equals_one_regression_of_scikit_learn_for_each_name(monkeypatch, num_images, width, strength):
    linear_model = pytest.importorskip("sklearn.linear_model")
    if strength:
        monkeypatch.setattr(logistic, "STRENGTHS", (strength,))
    features, targets = problem(num_images, width)
    head = fit(features, targets)
    rows = features[:, 0].astype(np.float64)
    standard = (rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-6)
    found = head.probabilities(features)
    for name, column in enumerate(targets.T):
        theirs = linear_model.LogisticRegression(C=head.strength, tol=1e-8, max_iter=10_000).fit(standard, column)
        np.testing.assert_allclose(found[:, name], theirs.predict_proba(standard)[:, 1], atol=2e-3)
    assert head.is_multi_label
    assert head.kernel.shape == (width, 3)


def test_the_strength_is_the_one_of_least_cross_validated_loss():
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, targets = problem(120, 20, seed=2)
    head = fit(features, targets)
    rows = features[:, 0].astype(np.float64)
    standard = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    folds = assign_folds(targets, np.arange(120), seed=0)
    losses, right = {}, {}
    for strength in STRENGTHS[:9]:
        probabilities = np.zeros(targets.shape)
        for fold in range(folds.max() + 1):
            for name in range(3):
                model = linear_model.LogisticRegression(C=strength, max_iter=10_000)
                model.fit(standard[folds != fold], targets[folds != fold, name])
                probabilities[folds == fold, name] = model.predict_proba(standard[folds == fold])[:, 1]
        losses[strength] = -np.log(np.where(targets, probabilities, 1 - probabilities)).sum(axis=1)
        right[strength] = ((probabilities >= 0.5) == targets).all(axis=1)
    best = min(losses, key=lambda each: losses[each].mean())
    assert losses[head.strength].mean() <= losses[best].mean() * 1.005
    np.testing.assert_allclose(head.held_out.losses, losses[head.strength], atol=0.03)
    assert head.held_out.accuracy == pytest.approx(right[head.strength].mean(), abs=0.02)


def test_the_slope_is_that_of_the_loss():
    targets = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    shape = targets.shape

    def loss(flat):
        return misfit_and_error(flat.reshape(shape), targets)[0].sum()

    def slope(flat):
        return misfit_and_error(flat.reshape(shape), targets)[1].ravel()

    assert check_grad(loss, slope, np.array([3.0, -2.0, 0.0, 1.0, -40.0, 50.0])) < 1e-5
    extreme = misfit_and_error(np.array([[1e4, -1e4, 0.0]] * 2), targets)
    assert all(np.isfinite(each).all() for each in extreme)


def test_held_out_adds_the_names_up_and_asks_for_all_of_them():
    logits = np.array([[2.0, -1.0], [-3.0, -1.0]])
    found = held_out(logits, np.array([[1, 0], [1, 0]]))
    expected = [-np.log(expit(2)) - np.log(expit(3)), -np.log(expit(-1)) - np.log(expit(1))]
    np.testing.assert_allclose(found.losses, expected)
    assert found.right.tolist() == [True, False]


def test_a_name_that_all_or_none_have_is_no_trouble():
    features, targets = problem(60)
    targets = np.column_stack([targets, np.ones(60, np.int64), np.zeros(60, np.int64)])
    head = fit(features, targets)
    found = head.probabilities(features)
    assert (found[:, 3] > 0.99).all()
    assert (found[:, 4] < 0.01).all()
    assert np.isfinite(head.held_out.losses).all()


def test_one_name_alone_is_had_or_not():
    features, targets = problem(80, num_names=1)
    head = fit(features, targets)
    assert head.probabilities(features).shape == (80, 1)
    assert 0.5 < head.held_out.accuracy < 1


def test_too_few_images_to_cross_validate():
    features, targets = problem(4)
    targets[:] = np.eye(4, 3, dtype=np.int64)
    assert len(fit(features, targets).held_out) == 0


# --- folds ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, database=None)
@given(st.integers(0, 10_000), st.integers(4, 80), st.integers(1, 6))
def test_folds_keep_units_together_and_names_apart(seed, num_images, num_names):
    random = np.random.default_rng(seed)
    targets = (random.random((num_images, num_names)) < random.random(num_names)).astype(np.int64)
    units = random.integers(0, max(2, num_images // 2), num_images)
    folds = deal(targets, units, 5, seed=seed)
    assert (folds == deal(targets, units, 5, seed=seed)).all()
    assert all(len(set(folds[units == unit])) == 1 for unit in units)
    assert folds.max() < 5
    rarest = min((each for each in targets.T if each.any()), key=lambda each: len(set(units[each == 1])), default=None)
    if rarest is not None and len(set(units[rarest == 1])) > 1 and folds.max() and (targets.sum(axis=1) > 0).all():
        assert len(set(folds[rarest == 1])) > 1, "it can be learnt from some fold, and is asked for in another"


def test_every_name_is_dealt_out_evenly():
    random = np.random.default_rng(0)
    targets = (random.random((200, 6)) < (0.5, 0.3, 0.2, 0.1, 0.05, 0.03)).astype(np.int64)
    folds = deal(targets, np.arange(200), 5, seed=0)
    for column in np.column_stack([targets, targets.sum(axis=1) == 0]).T:
        counts = np.bincount(folds[column == 1], minlength=5)
        assert counts.max() - counts.min() <= 3
    sizes = np.bincount(folds)
    assert sizes.max() - sizes.min() <= 6


def test_a_rare_set_fails_nothing():
    targets = np.eye(8, dtype=np.int64)[np.arange(40) % 8]
    targets[0] = 1
    assert set(deal(targets, np.arange(40), 5, seed=0)) == set(range(5))


# --- ridge ------------------------------------------------------------------------------------------------------------


def test_ridge_leaves_out_one_by_one():
    features, targets = problem(40, 5, num_views=1)
    found = leave_one_out(features, targets, 3, np.arange(40))
    assert len(found) == 40
    assert 0 < found.accuracy < 1
    one = leave_one_out(features, targets[:, :1], 1, np.arange(40))
    as_classes = leave_one_out(features, targets[:, 0], 2, np.arange(40))
    np.testing.assert_allclose(2 * one.losses, as_classes.losses, atol=1e-9)
    assert (one.right == as_classes.right).all()
    assert gain_from_all(features, targets, 3, np.arange(40), seed=0) >= 0


# --- what is refused --------------------------------------------------------------------------------------------------


def test_what_cannot_be_done():
    image = ImageFile(Path("a.jpg"), "a.jpg", "x|y", "", label_set=("x", "y"))
    folder = ImageFolder(Path("m.csv"), (image,), ("x", "y"))
    with pytest.raises(DataError) as caught:
        check_recipe(Recipe(head="nearest"), folder)
    assert str(caught.value) == (
        "--head nearest answers with one name for a picture, but those of m.csv may have several. "
        "Use --head linear or mlp."
    )
    with pytest.raises(DataError) as caught:
        check_recipe(Recipe(fine_tune="stage5"), folder)
    assert str(caught.value) == (
        "--fine-tune stage5 is not there yet for pictures with several names, as those of m.csv are. "
        "Use --fine-tune off, which is the default; a better network may help: --backbone auto."
    )
    with pytest.raises(DataError, match=r"^--class-weights balanced is for pictures with one name each;"):
        check_recipe(Recipe(class_weights="balanced"), folder)
    check_recipe(Recipe(), folder)
    plain = ImageFolder(Path("m.csv"), (ImageFile(Path("a.jpg"), "a.jpg", "x", ""),), ("x",))
    check_recipe(Recipe(head="nearest", fine_tune="auto"), plain)
