import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import DataError
from headstart.learning.logistic import fit_linear_head
from headstart.learning.ridge import gain_from_all
from headstart.scoring.intervals import cross_validated, wilson


def test_known_value() -> None:
    # 95 of 100; Newcombe (1998) and R's prop.test(correct=FALSE) give 0.8882 to 0.9785.
    assert wilson(95, 100) == pytest.approx((0.8882495, 0.9784565), abs=1e-6)


def test_ends_are_exact() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 20)[0] == 0.0
    assert wilson(20, 20)[1] == 1.0
    assert 0 < wilson(0, 20)[1] < 0.2


@given(st.integers(1, 5000), st.data())
def test_holds_the_share_mirrors_and_narrows(num_total: int, data: st.DataObject) -> None:
    num_right = data.draw(st.integers(0, num_total))
    low, high = wilson(num_right, num_total)
    assert 0 <= low <= num_right / num_total <= high <= 1
    assert wilson(num_total - num_right, num_total) == pytest.approx((1 - high, 1 - low), abs=1e-12)
    narrow = wilson(num_right, num_total, confidence=0.8)
    assert high - low >= narrow[1] - narrow[0]


def test_covers_the_true_share_as_often_as_it_says() -> None:
    generator = np.random.default_rng(20)
    num_total = 200
    intervals = np.array([wilson(right, num_total) for right in range(num_total + 1)])
    coverage = []
    for share in np.linspace(0.05, 0.95, 19):
        low, high = intervals[generator.binomial(num_total, share, size=4000)].T
        coverage.append(((low <= share) & (share <= high)).mean())
    assert 0.93 <= np.mean(coverage) <= 0.97
    assert min(coverage) > 0.91


@pytest.mark.parametrize(("right", "total"), [(3, 2), (-1, 5), (0, -1)])
def test_refuses_impossible_counts(right: int, total: int) -> None:
    with pytest.raises(DataError, match=rf"{right} right of {total} is no share"):
        wilson(right, total)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_refuses_impossible_confidence(confidence: float) -> None:
    with pytest.raises(DataError, match="Expected a number between 0 and 1"):
        wilson(1, 2, confidence)


def test_a_cross_validation_is_less_sure_than_a_test_and_reaches_up_to_what_is_gained():
    low, high = wilson(80, 100)
    assert cross_validated(80, 100, 0.0)[0] < low
    assert cross_validated(80, 100, 0.0)[1] > high
    assert cross_validated(80, 100, 0.05)[0] == cross_validated(80, 100, 0.0)[0]
    assert cross_validated(80, 100, 0.05)[1] == pytest.approx(cross_validated(80, 100, 0.0)[1] + 0.05)
    assert cross_validated(100, 100, 0.05)[1] == 1.0
    assert cross_validated(0, 100, 0.0)[0] == 0.0
    assert cross_validated(0, 0, 0.0) == (0.0, 1.0)


def test_intervals_of_cross_validations_cover_the_head_that_learns_from_all():
    """The long form, with 1,000 data sets of four kinds, is benchmarks/coverage.py."""
    covered = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        centres = random.normal(size=(3, 30)) * 0.3
        labels, fresh_labels = np.arange(150) % 3, np.arange(3000) % 3
        rows, fresh = (
            (random.normal(size=(len(each), 1, 30)) + centres[each][:, None]).astype(np.float32)
            for each in (labels, fresh_labels)
        )
        head = fit_linear_head(rows, labels, 3, np.arange(150), seed=seed)
        truth = (head.probabilities(fresh).argmax(axis=1) == fresh_labels).mean()
        gain = gain_from_all(rows, labels, 3, np.arange(150), seed=seed)
        low, high = cross_validated(int(head.held_out.right.sum()), 150, gain)
        covered += low <= truth <= high
    assert 0.92 <= covered / 200 <= 0.99, "three standard errors around 95 to 96 of 100"
