import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.intervals import MeanError, bounded_interval, mean_error
from services.metrics.p_values import holm, mean_p


def test_paired_t_published() -> None:
    # Student's sleep data (Biometrika 6, 1908): ten patients' extra hours of sleep under two drugs, t = 4.0621 with 9
    # degrees of freedom, p = 0.00283 (as `t.test(paired = TRUE)` of R's documentation prints).
    first = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    second = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    error = mean_error(first - second)
    assert error.mean == pytest.approx(-1.58)
    assert mean_p(error, None, None) == pytest.approx(0.002833, abs=1e-6)


def test_holm_by_hand() -> None:
    # 0.01 x 4; 0.02 x 3; 0.03 x 2, at least the one before; 0.9.
    assert holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert holm([0.01, 0.04], family=10) == pytest.approx([0.1, 0.36])
    assert holm([]) == []


@given(st.lists(st.floats(0.0, 1.0), max_size=12), st.integers(0, 40))
def test_adjusted_values_lie_between_the_plain_ones_and_bonferroni(p_values: list[float], family: int) -> None:
    count = max(family, len(p_values))
    for plain, adjusted in zip(p_values, holm(p_values, family), strict=True):
        assert plain <= adjusted <= max(plain, min(1.0, count * plain)) + 1e-12


@given(st.floats(-0.99, 0.99), st.floats(0.001, 0.5), st.integers(2, 40))
def test_between_bounds_it_says_what_the_interval_says(mean: float, standard_error: float, clusters: int) -> None:
    error = MeanError(mean, standard_error, clusters - 1.0, clusters)
    p_value, interval = mean_p(error, -1.0, 1.0), bounded_interval(error, -1.0, 1.0, 0.95)
    assert p_value is not None
    assert interval.low is not None
    assert interval.high is not None
    if abs(p_value - 0.05) > 1e-6:
        assert (p_value > 0.05) == (interval.low < 0.0 < interval.high)


def test_equal_differences_count_as_coins() -> None:
    assert mean_p(mean_error(np.full(6, 0.25)), None, None) == 2.0**-5
    assert mean_p(mean_error(np.zeros(6)), None, None) == 1.0
    assert mean_p(mean_error(np.ones(1)), None, None) is None
