"""Series of numbers summed up: a figure, how sure it is, and what the missing numbers could do to it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial

import numpy as np

from services.metrics.checks import check_bounds, read_clusters, read_numbers
from services.metrics.intervals import (
    UNKNOWN,
    Clusters,
    Interval,
    Numbers,
    bounded_interval,
    mean_error,
    rate_interval,
    t_interval,
)
from services.metrics.quantiles import (
    clustered_quantile_interval,
    numbers_needed,
    quantile_interval,
    quantile_value,
)
from services.runtime.errors import InvalidField
from services.runtime.stopping import check_stopped

DEFAULT_CONFIDENCE = 0.95
CONFIDENCE_MIN = 0.5

NO_NUMBERS = "there are no numbers"
ONE_NUMBER = "one number, or one cluster, says nothing about others"


class SeriesKind(Enum):
    """What is asked of a series."""

    MEAN = "mean"
    RATE = "rate"
    QUANTILES = "quantiles"


@dataclass(frozen=True, slots=True)
class Series:
    """Numbers to sum up. Plain bytes carry them, so that they cross into a worker process as they are."""

    key: str
    kind: SeriesKind
    values: bytes
    """64-bit floating-point numbers."""
    clusters: bytes = b""
    """64-bit whole numbers, one for each value, or none."""
    missing: int = 0
    """How many more numbers there should have been."""
    minimum: float | None = None
    maximum: float | None = None
    """The bounds of any possible number, where it has bounds."""
    quantiles: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Estimate:
    """One figure with what is known of its uncertainty."""

    value: float | None
    interval: Interval
    method: str
    count: int
    clusters: int
    missing: int
    if_missing: Interval = UNKNOWN
    """The figure if everything missing were at its lowest and its highest."""
    quantile: float = 0.0
    withheld_reason: str = ""


def _checked_numbers(series: Series, path: str) -> tuple[Numbers, Clusters | None]:
    """The numbers and clusters of a series that obeys the rules; clusters of one number each count as none."""
    check_bounds(series.minimum, series.maximum, f"{path}.")
    rate = series.kind is SeriesKind.RATE
    values = read_numbers(series.values, f"{path}.values", series.minimum, series.maximum, rate=rate)
    if series.kind is SeriesKind.QUANTILES and not series.quantiles:
        raise InvalidField(f"{path}.quantiles", "must hold at least one quantile, for example 0.5")
    if not series.clusters:
        return values, None
    clusters = read_clusters(series.clusters, len(values), f"{path}.clusters")
    return values, None if len(np.unique(clusters)) == len(clusters) else clusters


def _mean_if_missing(total: float, count: int, missing: int, low: float | None, high: float | None) -> Interval:
    """The mean with every missing number at `low`, and with every one at `high`."""
    if not missing:
        return UNKNOWN
    everything = count + missing
    return Interval(
        None if low is None else (total + missing * low) / everything,
        None if high is None else (total + missing * high) / everything,
    )


def _clip(interval: Interval, low: float | None, high: float | None) -> Interval:
    """The part of the interval that is possible at all."""
    return Interval(
        interval.low if interval.low is None or low is None else max(low, interval.low),
        interval.high if interval.high is None or high is None else min(high, interval.high),
    )


def _summarize_rate(series: Series, values: Numbers, clusters: Clusters | None, confidence: float) -> Estimate:
    count = len(values)
    bounds = _mean_if_missing(math.fsum(values), count, series.missing, 0.0, 1.0)
    method = "wilson" if clusters is None else "wilson-clustered"
    if not count:
        return Estimate(None, UNKNOWN, method, 0, 0, series.missing, bounds, withheld_reason=NO_NUMBERS)
    error = mean_error(values, clusters)
    interval = rate_interval(error, count, confidence)
    return Estimate(error.mean, interval, method, count, error.clusters, series.missing, bounds)


def _summarize_mean(series: Series, values: Numbers, clusters: Clusters | None, confidence: float) -> Estimate:
    count = len(values)
    low, high = series.minimum, series.maximum
    bounds = _mean_if_missing(math.fsum(values), count, series.missing, low, high)
    method = "t" if clusters is None else "t-clustered"
    if not count:
        return Estimate(None, UNKNOWN, method, 0, 0, series.missing, bounds, withheld_reason=NO_NUMBERS)
    error = mean_error(values, clusters)
    if low is not None and high is not None and low < high:
        method = "wilson-scaled" if clusters is None else "wilson-scaled-clustered"
        interval = bounded_interval(error, low, high, confidence)
    else:
        interval = _clip(t_interval(error, confidence), low, high)
    withheld = ONE_NUMBER if interval.low is None and error.clusters < 2 else ""
    return Estimate(
        error.mean, interval, method, count, error.clusters, series.missing, bounds, withheld_reason=withheld
    )


def _quantile_if_missing(series: Series, ordered: Numbers, quantile: float) -> Interval:
    """The quantile with every missing number at the low and at the high end; needs no bounds while it stays inside."""
    if not series.missing:
        return UNKNOWN
    minimum = -math.inf if series.minimum is None else series.minimum
    maximum = math.inf if series.maximum is None else series.maximum
    low = _padded_quantile(ordered, series.missing, minimum, quantile, shift=series.missing)
    high = _padded_quantile(ordered, series.missing, maximum, quantile, shift=0)
    return Interval(low if math.isfinite(low) else None, high if math.isfinite(high) else None)


def _padded_quantile(ordered: Numbers, missing: int, bound: float, quantile: float, *, shift: int) -> float:
    """`quantile_value` of the numbers from rank `shift` on, with `bound` at the other ranks, without building them."""
    position = (len(ordered) + missing - 1) * quantile

    def number_at(rank: int) -> float:
        return float(ordered[rank - shift]) if 0 <= rank - shift < len(ordered) else bound

    below = math.floor(position)
    low = number_at(below)
    high = number_at(min(below + 1, len(ordered) + missing - 1))
    return low if low == high or position == below else low + (high - low) * (position - below)


def _summarize_quantile(
    series: Series, values: Numbers, clusters: Clusters | None, confidence: float, quantile: float
) -> Estimate:
    count = len(values)
    ordered = np.sort(values)
    method = "order-statistic" if clusters is None else "woodruff-clustered"
    estimate = Estimate(
        None,
        UNKNOWN,
        method,
        count,
        count if clusters is None else len(np.unique(clusters)),
        series.missing,
        _quantile_if_missing(series, ordered, quantile),
        quantile,
    )
    needed = numbers_needed(quantile)
    if count < needed:
        return replace(estimate, withheld_reason=f"needs at least {needed} numbers, there are {count}")
    if clusters is None:
        interval = quantile_interval(ordered, quantile, confidence)
    else:
        interval = clustered_quantile_interval(values, clusters, quantile, confidence)
    return replace(estimate, value=quantile_value(ordered, quantile), interval=interval)


def summarize(series: Series, confidence: float = DEFAULT_CONFIDENCE, path: str = "series") -> list[Estimate]:
    """One estimate for a mean or a rate, one for each quantile asked for.

    Raises:
        InvalidField: the series breaks a rule; `path` is its place in the request.
    """
    values, clusters = _checked_numbers(series, path)
    if series.kind is SeriesKind.RATE:
        return [_summarize_rate(series, values, clusters, confidence)]
    if series.kind is SeriesKind.MEAN:
        return [_summarize_mean(series, values, clusters, confidence)]
    of_quantile = partial(_summarize_quantile, series, values, clusters, confidence)
    return [of_quantile(quantile) for quantile in series.quantiles]


def summarize_all(series: Sequence[Series], confidence: float) -> list[list[Estimate]]:
    """`summarize` for each; runs in a worker process.

    Raises:
        InvalidField: one of them breaks a rule.
    """
    summaries = []
    for index, each in enumerate(series):
        check_stopped()
        summaries.append(summarize(each, confidence, f"series[{index}]"))
    return summaries
