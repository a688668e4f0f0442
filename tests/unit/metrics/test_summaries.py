import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.intervals import Interval
from services.metrics.summaries import Estimate, Series, SeriesKind, summarize, summarize_all
from services.runtime.errors import InvalidField


def series(kind: SeriesKind, values: list[float], clusters: list[int] | None = None, **more: Any) -> Series:
    packed = np.array(clusters, dtype=np.int64).tobytes() if clusters else b""
    return Series("k", kind, np.array(values, dtype=np.float64).tobytes(), packed, **more)


def rate(values: list[float], clusters: list[int] | None = None, **more: Any) -> Estimate:
    return summarize(series(SeriesKind.RATE, values, clusters, **more))[0]


def mean(values: list[float], clusters: list[int] | None = None, **more: Any) -> Estimate:
    return summarize(series(SeriesKind.MEAN, values, clusters, **more))[0]


def quantile(values: list[float], q: float, clusters: list[int] | None = None, **more: Any) -> Estimate:
    return summarize(series(SeriesKind.QUANTILES, values, clusters, quantiles=(q,), **more))[0]


def test_rate() -> None:
    estimate = rate([1.0, 1.0, 0.0, 1.0])
    assert (estimate.value, estimate.method, estimate.count, estimate.clusters) == (0.75, "wilson", 4, 4)
    # Wilson by hand: centre (0.75 + 0.48) / 1.96, with z squared 3.8415.
    assert estimate.interval.low == pytest.approx(0.3006, abs=1e-4)
    assert estimate.interval.high == pytest.approx(0.9544, abs=1e-4)
    assert estimate.if_missing == Interval(None, None)


def test_missing_numbers_widen_the_bounds_and_never_move_the_figure() -> None:
    values = [1.0] * 6 + [0.0] * 3
    full, partial = rate(values), rate(values, missing=1)
    assert partial.value == full.value
    assert partial.interval == full.interval
    assert partial.missing == 1
    assert partial.if_missing == Interval(0.6, 0.7)


def test_missing_numbers_of_a_mean_need_bounds() -> None:
    assert mean([2.0, 4.0], missing=2).if_missing == Interval(None, None)
    assert mean([2.0, 4.0], missing=2, minimum=0.0).if_missing == Interval(1.5, None)
    assert mean([2.0, 4.0], missing=2, minimum=0.0, maximum=10.0).if_missing == Interval(1.5, 6.5)


@pytest.mark.parametrize("kind", list(SeriesKind))
def test_no_numbers_give_no_figure(kind: SeriesKind) -> None:
    (estimate,) = summarize(series(kind, [], missing=3, quantiles=(0.5,), minimum=0.0, maximum=1.0))
    assert estimate.value is None
    assert estimate.withheld_reason
    assert estimate.missing == 3
    assert estimate.if_missing == Interval(0.0, 1.0)


def test_one_number_has_a_mean_and_no_interval() -> None:
    estimate = mean([5.0])
    assert estimate.value == 5.0
    assert estimate.interval == Interval(None, None)


def test_interval_of_a_mean_stays_possible() -> None:
    assert mean([0.9, 0.0, 0.1], minimum=0.0).interval.low == 0.0
    assert mean([0.9, 1.0, 0.2], minimum=0.0, maximum=1.0).interval.high < 1.0  # type: ignore[operator]


def test_equal_numbers_with_bounds_are_not_certain() -> None:
    estimate = mean([10.0] * 5, minimum=0.0, maximum=10.0)
    assert estimate.method == "wilson-scaled"
    # As five zeros and ones, with t(4) = 2.776 for 1.96.
    assert estimate.interval.low == pytest.approx(10 / (1 + 2.7764**2 / 5), abs=1e-3)
    assert estimate.interval.high == 10.0


def test_clusters_widen_the_interval() -> None:
    values = [0.1, 0.1, 0.2, 0.8, 0.9, 0.8, 0.4, 0.5, 0.4]
    plain, clustered = mean(values), mean(values, [1, 1, 1, 2, 2, 2, 3, 3, 3])
    assert (clustered.method, clustered.clusters, clustered.count) == ("t-clustered", 3, 9)
    assert clustered.value == plain.value
    assert clustered.interval.low < plain.interval.low  # type: ignore[operator]
    assert rate([1.0, 1.0, 0.0, 0.0], [1, 1, 2, 2]).method == "wilson-clustered"


def test_clusters_of_one_are_plain() -> None:
    assert mean([1.0, 2.0], [7, 9]) == mean([1.0, 2.0])


def test_quantiles_are_withheld_where_numbers_are_too_few() -> None:
    too_few, enough = quantile([1.0] * 19, 0.95), quantile(list(map(float, range(20))), 0.95)
    assert too_few.value is None
    assert too_few.withheld_reason == "needs at least 20 numbers, there are 19"
    assert enough.value == pytest.approx(18.05)
    # Twenty numbers can't say how high the 95th percentile may be, only how low.
    assert enough.interval.low is not None
    assert enough.interval.high is None


def test_quantiles_come_in_the_order_asked_for() -> None:
    many = series(SeriesKind.QUANTILES, list(map(float, range(101))), quantiles=(0.99, 0.5))
    assert [(each.quantile, each.value) for each in summarize(many)] == [(0.99, pytest.approx(99.0)), (0.5, 50.0)]


def test_quantiles_of_clusters() -> None:
    values = list(map(float, range(40)))
    estimate = quantile(values, 0.5, [number // 4 for number in range(40)])
    assert (estimate.method, estimate.clusters) == ("woodruff-clustered", 10)
    plain = quantile(values, 0.5)
    assert estimate.value == plain.value
    assert estimate.interval.low < plain.interval.low  # type: ignore[operator]
    assert estimate.interval.high > plain.interval.high  # type: ignore[operator]


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=30),
    st.integers(1, 20),
    st.sampled_from([0.05, 0.5, 0.9]),
    st.booleans(),
)
def test_bounds_of_a_quantile_are_those_of_the_padded_numbers(
    values: list[float], missing: int, q: float, bounded: bool
) -> None:
    low, high = (0.0, 100.0) if bounded else (None, None)
    estimate = quantile(values, q, missing=missing, minimum=low, maximum=high)
    for end, pad in ((estimate.if_missing.low, low), (estimate.if_missing.high, high)):
        if pad is not None:
            assert end == pytest.approx(float(np.quantile([*values, *([pad] * missing)], q)), abs=1e-9)
        elif end is not None:
            assert min(values) <= end <= max(values)


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        (series(SeriesKind.RATE, [0.0, 0.5]), "series.values[1]"),
        (series(SeriesKind.MEAN, [0.0, float("nan")]), "series.values[1]"),
        (series(SeriesKind.MEAN, [float("inf")]), "series.values[0]"),
        (series(SeriesKind.MEAN, [0.0, -1e101]), "series.values[1]"),
        (series(SeriesKind.MEAN, [0.5], maximum=1e200), "series.maximum"),
        (series(SeriesKind.MEAN, [0.0, 2.0], maximum=1.0), "series.values[1]"),
        (series(SeriesKind.MEAN, [0.5], minimum=1.0, maximum=0.0), "series.minimum"),
        (series(SeriesKind.MEAN, [0.0, 1.0], [1]), "series.clusters"),
        (series(SeriesKind.QUANTILES, [0.0]), "series.quantiles"),
    ],
)
def test_broken_series_name_the_field(broken: Series, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        summarize(broken)
    assert caught.value.field == field


def test_the_broken_one_of_many_is_named() -> None:
    with pytest.raises(InvalidField) as caught:
        summarize_all([series(SeriesKind.MEAN, [1.0]), series(SeriesKind.RATE, [2.0])], 0.95)
    assert caught.value.field == "series[1].values[0]"


@given(
    st.sampled_from(list(SeriesKind)),
    st.lists(st.sampled_from([0.0, 1.0]), max_size=60),
    st.integers(0, 5),
    st.integers(1, 10),
    st.floats(0.5, 0.999),
)
def test_every_estimate_is_finite_ordered_and_crosses_processes(
    kind: SeriesKind, values: list[float], missing: int, cluster_size: int, confidence: float
) -> None:
    clusters = [index // cluster_size for index in range(len(values))]
    asked = series(kind, values, clusters, missing=missing, minimum=0.0, maximum=1.0, quantiles=(0.5, 0.95))
    for estimate in summarize(asked, confidence):
        assert pickle.loads(pickle.dumps(estimate)) == estimate
        for end in (estimate.interval.low, estimate.interval.high, estimate.if_missing.low, estimate.if_missing.high):
            assert end is None or 0.0 <= end <= 1.0
        if estimate.value is None:
            assert estimate.withheld_reason
            continue
        assert estimate.interval.low is None or estimate.interval.low <= estimate.value + 1e-12
        assert estimate.interval.high is None or estimate.value <= estimate.interval.high + 1e-12


def test_higher_confidence_is_wider() -> None:
    values = series(SeriesKind.MEAN, [1.0, 2.0, 4.0])
    (narrow,), (wide,) = summarize(values, 0.8), summarize(values, 0.99)
    assert wide.interval.low < narrow.interval.low  # type: ignore[operator]
