import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from headstart.errors import DataError
from headstart.scoring.evaluation import SUMMARY_NAMES, Evaluation
from headstart.scoring.metrics import evaluate

NAMES = ("a", "b", "c")


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], tuple[str, ...]]:
    num_classes, num_images = draw(st.integers(2, 7)), draw(st.integers(1, 60))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = generator.integers(0, draw(st.integers(1, num_classes)), num_images)
    scale = draw(st.sampled_from([0.1, 1.0, 4.0]))
    logits = generator.normal(0, scale, (num_images, num_classes))
    logits[np.arange(num_images), labels] += draw(st.sampled_from([0.0, 1.0, 3.0]))
    powers = np.exp(logits)
    return labels, powers / powers.sum(axis=1, keepdims=True), tuple(f"class {i}" for i in range(num_classes))


@given(answers())
def test_agrees_with_scikit_learn(case: tuple[Any, Any, tuple[str, ...]]) -> None:
    labels, probabilities, names = case
    result = evaluate(labels, probabilities, names)
    predicted, all_labels = probabilities.argmax(axis=1), list(range(len(names)))
    assert result.accuracy == pytest.approx(oracle.accuracy_score(labels, predicted))
    assert result.macro_f1 == pytest.approx(oracle.f1_score(labels, predicted, average="macro", zero_division=0))
    assert result.log_loss == pytest.approx(oracle.log_loss(labels, probabilities, labels=all_labels))
    assert np.array_equal(result.confusion, oracle.confusion_matrix(labels, predicted, labels=all_labels))
    expected = oracle.precision_recall_fscore_support(labels, predicted, labels=all_labels, zero_division=0)
    got = [[s.precision, s.recall, s.f1, s.num_images] for s in result.classes]
    assert np.allclose(got, np.transpose(expected))


@given(answers())
def test_numbers_fit_together(case: tuple[Any, Any, tuple[str, ...]]) -> None:
    labels, probabilities, names = case
    result = evaluate(labels, probabilities, names)
    assert result.accuracy_low <= result.accuracy <= result.accuracy_high
    assert sum(each.num_images for each in result.reliability) == result.num_images == len(labels)
    assert result.num_right == round(result.accuracy * result.num_images)
    majority = names.index(result.majority_class)
    assert result.majority_accuracy == np.mean(labels == majority) == np.bincount(labels).max() / len(labels)
    shuffled = np.random.default_rng(0).permutation(len(labels))
    again = evaluate(labels[shuffled], probabilities[shuffled], names)
    assert again.confusion == result.confusion
    assert again.ece == pytest.approx(result.ece)


@given(answers())
def test_json_round_trip(case: tuple[Any, Any, tuple[str, ...]]) -> None:
    result = evaluate(*case)
    assert Evaluation.from_json(json.loads(json.dumps(result.to_json(), allow_nan=False))) == result


def test_summary_has_the_names_of_the_contract() -> None:
    summary = evaluate(np.array([0, 1]), np.eye(3)[:2], NAMES).summary()
    assert tuple(summary) == SUMMARY_NAMES
    assert SUMMARY_NAMES == ("num_images", "accuracy", "accuracy_low", "accuracy_high", "macro_f1", "log_loss", "ece")


@pytest.mark.parametrize("damage", [{"confusion": None}, {"extra": 1}])
def test_json_of_something_else_is_refused(damage: dict[str, Any]) -> None:
    plain = {**evaluate(np.array([0, 1]), np.eye(3)[:2], NAMES).to_json(), **damage}
    with pytest.raises(DataError, match="not an evaluation that headstart wrote"):
        Evaluation.from_json(plain)
    with pytest.raises(DataError, match="class_names"):
        Evaluation.from_json({})


def test_ece_by_hand() -> None:
    # Two answers at 0.9 (one right), two at 0.6 (both right): (2*|0.5-0.9| + 2*|1-0.6|)/4 = 0.4.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    result = evaluate(np.array([0, 1, 0, 0]), probabilities, ("a", "b"))
    assert result.ece == pytest.approx(0.4)
    assert [(round(c, 6), a, n) for c, a, n in result.reliability] == [(0.6, 1.0, 2), (0.9, 0.5, 2)]


def test_bins_are_open_below_and_closed_above() -> None:
    probabilities = np.array([[1 / 3, 1 / 3, 1 / 3], [0.34, 0.33, 0.33], [1.0, 0.0, 0.0]])
    assert [each.num_images for each in evaluate(np.array([0, 0, 0]), probabilities, NAMES).reliability] == [1, 1, 1]


def test_a_class_absent_from_the_labels() -> None:
    result = evaluate(np.array([0, 0, 1, 1]), np.eye(3)[[0, 0, 1, 2]], NAMES)
    absent = result.classes[2]
    assert (absent.num_images, absent.recall, absent.recall_low, absent.recall_high, absent.f1) == (0, 0, 0, 1, 0)
    assert result.macro_f1 == pytest.approx((1 + 2 / 3 + 0) / 3)
    without = evaluate(np.array([0, 0, 1, 1]), np.eye(3)[[0, 0, 1, 0]], NAMES)
    assert without.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)


def test_certain_and_wrong_is_finite() -> None:
    result = evaluate(np.array([1]), np.array([[1.0, 0.0]], np.float32), ("a", "b"))
    assert result.log_loss == pytest.approx(-np.log(1e-15))
    assert evaluate(np.array([0]), np.array([[1.0, 0.0]]), ("a", "b")).log_loss == 0.0


def test_float32_softmax_is_accepted() -> None:
    probabilities = np.full((4, 3), 1 / 3, np.float32)
    result = evaluate(np.array([0, 1, 2, 0], np.int32), probabilities, NAMES)
    assert result.log_loss == pytest.approx(np.log(3), abs=1e-6)


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], np.eye(3), r"shape \(2,\) and probabilities of shape \(3, 3\) do not belong together"),
        ([[0], [1]], np.eye(3)[:2], r"Expected \(n,\) and \(n, 3\)"),
        ([0, 1], np.full((2, 2), 0.5), "one column per class name"),
        (np.zeros(0, int), np.zeros((0, 3)), "nothing to evaluate"),
        ([0.0, 1.0], np.eye(3)[:2], "type float64. Expected whole numbers from 0 to 2"),
        ([0, 3], np.eye(3)[:2], "Label 3 at position 1 has no class name"),
        ([-1, 0], np.eye(3)[:2], "Label -1 at position 0"),
        ([0, 1], [[1, 0, 0], [np.nan, 0, 1]], "1 of 2 images are not numbers .* position 1"),
        ([0, 1], [[1, 0, 0], [0.5, 0.4, 0.2]], "Row 1 is no set of probabilities: it sums to 1.1"),
        ([0, 1], [[1, 0, 0], [-0.5, 1.0, 0.5]], "lowest value is -0.5"),
        ([0, 1], [["1", "0", "0"]] * 2, "Expected floating-point numbers"),
    ],
)
def test_refuses_what_cannot_be_right(labels: Any, probabilities: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(np.asarray(labels), np.asarray(probabilities), NAMES)
