import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.intervals import Interval
from services.metrics.quantiles import (
    clustered_quantile_interval,
    numbers_needed,
    quantile_interval,
    quantile_value,
)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50), st.floats(0.01, 0.99))
def test_quantile_is_that_of_numpy(numbers: list[float], probability: float) -> None:
    ordered = np.sort(np.array(numbers))
    assert quantile_value(ordered, probability) == pytest.approx(float(np.quantile(ordered, probability)), abs=1e-6)


def binomial_cdf(k: int, n: int, p: float) -> float:
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))


@given(st.integers(1, 120), st.sampled_from([0.05, 0.5, 0.9, 0.95, 0.99]))
def test_ends_lie_between_the_ranks_of_the_binomial_distribution(count: int, probability: float) -> None:
    interval = quantile_interval(np.arange(1.0, count + 1.0), probability, 0.95)
    two_sided = interval.low is not None and interval.high is not None
    tail = 0.025 if two_sided else 0.05
    # The numbers are their own ranks: the probability that the quantile lies below the r-th.
    if interval.low is not None:
        assert binomial_cdf(math.floor(interval.low) - 1, count, probability) <= tail + 1e-12
        assert binomial_cdf(math.ceil(interval.low), count, probability) > tail - 1e-12
    if interval.high is not None:
        assert 1 - binomial_cdf(math.ceil(interval.high) - 1, count, probability) <= tail + 1e-12
        assert 1 - binomial_cdf(math.floor(interval.high) - 2, count, probability) > tail - 1e-12


def test_median_by_the_formula_of_hettmansperger_and_sheather() -> None:
    # Ten numbers: the 2nd and 9th hold the median with 97.85 %, the 3rd and 8th with 89.06 %. With
    # I = (97.85 - 95) / (97.85 - 89.06) they give lambda = (n - d) I / (d + (n - 2d) I) = 0.6541 for d = 2.
    share = (0.978515625 - 0.95) / (0.978515625 - 0.890625)
    expected = (10 - 2) * share / (2 + (10 - 4) * share)
    interval = quantile_interval(np.arange(1.0, 11.0), 0.5, 0.95)
    assert interval.low == pytest.approx(2.0 + expected)
    assert interval.high == pytest.approx(9.0 - expected)


def test_where_one_end_is_out_of_reach_the_other_takes_all_of_the_error() -> None:
    # The largest of 50 numbers lies below the 95th percentile with probability 0.95^50 = 7.7 %.
    interval = quantile_interval(np.arange(1.0, 51.0), 0.95, 0.95)
    assert interval.high is None
    assert interval.low is not None
    # Of 50 numbers at most 44 lie below it with 3.8 %, at most 45 with 10.4 %.
    assert 45.0 < interval.low < 46.0
    assert quantile_interval(np.arange(1.0, 5.0), 0.5, 0.95) == Interval(None, None)


@pytest.mark.parametrize(
    ("probability", "needed"), [(0.5, 2), (0.9, 10), (0.95, 20), (0.99, 100), (0.05, 20), (1e-320, 1_000_000_000)]
)
def test_numbers_needed(probability: float, needed: int) -> None:
    assert numbers_needed(probability) == needed


def test_one_cluster_says_nothing_about_a_quantile() -> None:
    values = np.arange(30.0)
    assert clustered_quantile_interval(values, np.zeros(30, dtype=np.int64), 0.5, 0.95) == Interval(None, None)


def test_equal_numbers_have_a_quantile_without_width() -> None:
    values, clusters = np.ones(60), np.arange(60) // 3
    assert clustered_quantile_interval(values, clusters, 0.5, 0.95) == Interval(1.0, 1.0)
