import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import DataError
from headstart.scoring.intervals import wilson


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
