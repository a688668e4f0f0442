import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.intervals import (
    Interval,
    MeanError,
    bounded_interval,
    mean_error,
    rate_interval,
    t_interval,
    t_quantile,
    wilson_interval,
)

Z95 = 1.959963984540054


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [
        # R. G. Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998),
        # table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_published_values(successes: int, count: int, low: float, high: float) -> None:
    interval = wilson_interval(successes / count, count, Z95)
    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)


@given(st.integers(1, 400), st.data())
def test_wilson_holds_the_rate_and_stays_inside_0_and_1(count: int, data: st.DataObject) -> None:
    rate = data.draw(st.integers(0, count)) / count
    interval = wilson_interval(rate, count, Z95)
    assert interval.low is not None
    assert interval.high is not None
    assert 0.0 <= interval.low <= rate <= interval.high <= 1.0
    mirrored = wilson_interval(1.0 - rate, count, Z95)
    assert mirrored.low == pytest.approx(1.0 - interval.high)


def test_t_quantiles_published() -> None:
    # Any table of Student's t.
    assert t_quantile(1, 0.975) == pytest.approx(12.706, abs=5e-4)
    assert t_quantile(10, 0.975) == pytest.approx(2.228, abs=5e-4)


def test_t_interval_by_hand() -> None:
    # Mean 3, standard deviation sqrt(2.5), t(4) = 2.776.
    interval = t_interval(mean_error(np.array([1.0, 2.0, 3.0, 4.0, 5.0])), 0.95)
    assert interval.low == pytest.approx(3 - 2.7764 * (2.5 / 5) ** 0.5, abs=1e-3)
    assert interval.high == pytest.approx(3 + 2.7764 * (2.5 / 5) ** 0.5, abs=1e-3)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_clusters_of_one_are_no_clusters(numbers: list[float]) -> None:
    values = np.array(numbers)
    plain, clustered = mean_error(values), mean_error(values, np.arange(len(values)))
    assert clustered.mean == plain.mean
    assert clustered.standard_error == pytest.approx(plain.standard_error)
    assert clustered.degrees_of_freedom == pytest.approx(plain.degrees_of_freedom)
    assert plain.degrees_of_freedom == pytest.approx(len(values) - 1)


def test_equal_repeats_count_as_one_number_each() -> None:
    """Asking each prompt five times and getting the same answer tells no more than asking once."""
    values = np.array([1.0, 2.0, 4.0, 7.0])
    once = mean_error(values)
    repeated = mean_error(np.repeat(values, 5), np.repeat(np.arange(4), 5))
    assert repeated.standard_error == pytest.approx(once.standard_error)
    assert repeated.degrees_of_freedom == pytest.approx(3.0)


def test_one_cluster_says_nothing_about_others() -> None:
    error = mean_error(np.array([1.0, 0.0, 1.0]), np.zeros(3, dtype=np.int64))
    assert t_interval(error, 0.95) == Interval(None, None)
    assert rate_interval(error, 3, 0.95) == Interval(None, None)


def test_equal_answers_of_all_clusters_count_once_a_cluster() -> None:
    error = mean_error(np.ones(20), np.repeat(np.arange(5), 4))
    once_each = wilson_interval(1.0, 5.0, t_quantile(4, 0.975))
    interval = rate_interval(error, 20, 0.95)
    assert interval.low == pytest.approx(once_each.low)
    assert interval.high == 1.0


def test_far_from_its_bounds_a_mean_has_the_t_interval() -> None:
    error = mean_error(np.array([49.0, 50.0, 51.0, 50.5, 49.5]))
    by_t, bounded = t_interval(error, 0.95), bounded_interval(error, 0.0, 100.0, 0.95)
    assert bounded.low == pytest.approx(by_t.low, abs=0.002)
    assert bounded.high == pytest.approx(by_t.high, abs=0.002)


def test_near_a_bound_the_interval_leans_away_from_it() -> None:
    error = mean_error(np.array([1.0, 1.0, 1.0, 1.0, 0.4]))
    interval = bounded_interval(error, 0.0, 1.0, 0.95)
    assert interval.low is not None
    assert interval.high is not None
    assert error.mean - interval.low > interval.high - error.mean
    assert interval.high < 1.0


@given(st.floats(0.0, 1.0), st.floats(0.0, 0.6), st.integers(2, 50))
def test_a_bounded_interval_holds_the_mean_and_stays_inside(mean: float, error: float, clusters: int) -> None:
    interval = bounded_interval(MeanError(mean, error, clusters - 1.0, clusters), 0.0, 1.0, 0.95)
    assert interval.low is not None
    assert interval.high is not None
    assert -1e-12 <= interval.low <= mean + 1e-12
    assert mean - 1e-12 <= interval.high <= 1.0 + 1e-12
