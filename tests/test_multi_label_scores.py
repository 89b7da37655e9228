"""The scores of pictures with several names, held against scikit-learn's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.errors import DataError
from headstart.scoring.intervals import wilson
from headstart.scoring.metrics import evaluate
from headstart.scoring.multi_label import MultiLabelEvaluation, answer, evaluate_names, read_evaluation

NAMES = ("a", "b", "c", "d")


def problem(seed, num_images=60, num_names=4):
    random = np.random.default_rng(seed)
    targets = (random.random((num_images, num_names)) < random.random(num_names)).astype(np.int64)
    return targets, (0.6 * targets + 0.5 * random.random(targets.shape)).clip(0, 1)


@settings(max_examples=40, deadline=None, database=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 4))
def test_equals_scikit_learn(seed, num_images, num_names):
    metrics = pytest.importorskip("sklearn.metrics")
    targets, probabilities = problem(seed, num_images, num_names)
    said = (probabilities >= 0.5).astype(int)
    found = evaluate_names(targets, probabilities, NAMES[:num_names])
    assert found.accuracy == pytest.approx((said == targets).all(axis=1).mean())
    if num_names > 1:  # One column is no indicator matrix to scikit-learn.
        assert found.accuracy == pytest.approx(metrics.accuracy_score(targets, said))
        assert found.macro_f1 == pytest.approx(metrics.f1_score(targets, said, average="macro", zero_division=0))
        assert found.hamming_accuracy == pytest.approx(1 - metrics.hamming_loss(targets, said))
        matrices = metrics.multilabel_confusion_matrix(targets, said)
        assert [list(map(list, each)) for each in found.confusions] == matrices.tolist()
        for name in ("precision", "recall"):
            theirs = getattr(metrics, f"{name}_score")(targets, said, average=None, zero_division=0)
            assert [getattr(score, name) for score in found.classes] == pytest.approx(theirs.tolist())
    losses = [
        metrics.log_loss(column, row.clip(1e-15, 1 - 1e-15), labels=[0, 1])
        for column, row in zip(targets.T, probabilities.T, strict=True)
    ]
    assert found.log_loss == pytest.approx(np.mean(losses), rel=1e-6, abs=1e-9)
    assert (found.accuracy_low, found.accuracy_high) == wilson(found.num_right, num_images)
    sets = [tuple(row) for row in targets.tolist()]
    assert found.majority_accuracy == pytest.approx(max(map(sets.count, sets)) / num_images)
    common = tuple(int(name in found.majority_names) for name in NAMES[:num_names])
    assert sets.count(common) == round(found.majority_accuracy * num_images)


def test_calibration_is_that_of_all_decisions():
    """As of a classifier with two classes, asked about each picture and name."""
    targets, probabilities = problem(3)
    flat = probabilities.ravel()
    as_pairs = evaluate(targets.ravel(), np.column_stack([1 - flat, flat]), ("no", "yes"))
    found = evaluate_names(targets, probabilities, NAMES)
    assert found.ece == pytest.approx(as_pairs.ece)
    assert found.hamming_accuracy == pytest.approx(as_pairs.accuracy)
    assert found.log_loss == pytest.approx(as_pairs.log_loss)


def test_a_class_that_nobody_has_or_says():
    found = evaluate_names(np.array([[1, 0], [0, 0]]), np.array([[0.9, 0.1], [0.2, 0.0]]), ("a", "b"))
    assert (found.accuracy, found.macro_f1) == (1.0, 0.5)
    assert found.confusions == (((1, 0), (0, 1)), ((2, 0), (0, 0)))
    assert found.classes[1].recall_high == 1.0
    assert found.majority_names == ("a",), "of equally common sets the first by its names"


def test_json_and_back():
    found = evaluate_names(*problem(1), NAMES)
    plain = json.loads(json.dumps(found.to_json()))
    assert read_evaluation(plain) == MultiLabelEvaluation.from_json(plain) == found
    assert set(found.summary()) == {
        "num_images", "accuracy", "accuracy_low", "accuracy_high", "macro_f1", "log_loss", "ece", "hamming_accuracy",
    }  # fmt: skip
    single = evaluate(np.array([0, 1]), np.array([[0.9, 0.1], [0.4, 0.6]]), ("a", "b"))
    assert read_evaluation(json.loads(json.dumps(single.to_json()))) == single
    assert "multi_label" not in single.to_json()


@pytest.mark.parametrize("change", [{"classes": [{}]}, {"confusions": [[1]]}, {"more": 1}, {"reliability": 3}])
def test_json_of_something_else(change):
    plain = {**evaluate_names(*problem(1), NAMES).to_json(), **change}
    with pytest.raises(DataError, match="This is not an evaluation that headstart wrote: "):
        read_evaluation(plain)


@pytest.mark.parametrize(
    ("targets", "probabilities", "expected"),
    [
        (
            np.zeros(3), np.zeros((3, 2)),
            "Names of shape (3,) and probabilities of shape (3, 2) do not belong together. "
            "Expected (n, 2) of both: one row per image, one column per name.",
        ),
        (
            np.zeros((0, 2)), np.zeros((0, 2)),
            "There is nothing to evaluate: no images or no names. Expected at least one of each.",
        ),
        (np.full((1, 2), 2), np.zeros((1, 2)), "An image has a name or not: expected 0 and 1 alone."),
        (
            np.zeros((1, 2)), np.array([[np.nan, 0]]),
            "The probabilities of 1 of 1 images are not numbers (NaN or infinite), first at position 0. "
            "Training probably diverged; try a smaller learning rate.",
        ),
        (
            np.zeros((1, 2)), np.array([[3.5, 0]]),
            "Row 0 holds no probabilities: its values are from 0 to 3.5. "
            "Expected values from 0 to 1; does the model end in a sigmoid?",
        ),
    ],
)  # fmt: skip
def test_complaints(targets, probabilities, expected):
    with pytest.raises(DataError) as caught:
        evaluate_names(targets, probabilities, ("a", "b"))
    assert str(caught.value) == expected


def test_answers():
    row = np.array([0.5, 0.2, 0.9])
    assert answer(row, NAMES[:3], is_multi_label=True) == (("a", "c"), pytest.approx(0.5 * 0.8 * 0.9))
    assert answer(row - 0.45, NAMES[:3], is_multi_label=True) == ((), pytest.approx(0.95 * 1.25 * 0.55))
    assert answer(row, NAMES[:3], is_multi_label=False) == (("c",), 0.9)
