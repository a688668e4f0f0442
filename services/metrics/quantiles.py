"""Quantiles and their confidence intervals, for independent and for clustered numbers.

An interval of a quantile is a pair of ranks: how many numbers lie below a quantile is binomial, whatever their
distribution. An end is None where even the smallest or largest number is not far enough out to be it; then all of the
allowed error goes to the other end.
"""

import math

import numpy as np

from services.metrics.intervals import UNKNOWN, Clusters, Interval, MeanError, Numbers, mean_error, t_quantile

_TAIL_MIN = 1e-9
"""Nobody has the numbers for a quantile further out."""


def numbers_needed(probability: float) -> int:
    """How many numbers make a quantile more than the smallest or largest one: 20 for 0.95, 100 for 0.99."""
    return math.ceil(round(1.0 / max(min(probability, 1.0 - probability), _TAIL_MIN), 9))


def quantile_value(ordered: Numbers, probability: float) -> float:
    """The quantile of sorted numbers, interpolated: type 7 of R. J. Hyndman and Y. Fan (1996), numpy's default."""
    position = (len(ordered) - 1) * probability
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    low, high = float(ordered[below]), float(ordered[above])
    return low if low == high else low + (high - low) * (position - below)


def _ranks_at_or_below(count: int, probability: float, level: float) -> int:
    """How many k in 0..count have P(Binomial(count, probability) <= k) <= level."""
    from scipy.special import bdtr

    low, high = 0, count + 1
    while low < high:
        middle = (low + high) // 2
        if float(bdtr(float(middle), count, probability)) <= level:
            low = middle + 1
        else:
            high = middle
    return low


def _lower_end(ordered: Numbers, probability: float, tail: float) -> float | None:
    """A number that lies above the quantile with probability `tail`; None where even the smallest one does so oftener.

    Between the two ranks whose tails enclose `tail` it interpolates as T. P. Hettmansperger and S. J. Sheather
    ("Confidence intervals based on interpolated order statistics", Statistics & Probability Letters 4, 1986) do for
    the median and J. Nyblom ("Note on interpolated order statistics", ibid. 14, 1992) for every quantile: exact where
    the density falls exponentially on both sides of the quantile, and hardly different elsewhere.
    """
    from scipy.special import bdtr

    count = len(ordered)
    rank = _ranks_at_or_below(count, probability, tail)
    if rank == 0:
        return None
    if rank >= count:
        return float(ordered[-1])
    at_rank = float(bdtr(float(rank - 1), count, probability))
    at_next = float(bdtr(float(rank), count, probability))
    # With exactly `rank` numbers below the quantile, it has to lie above the end with this probability.
    inside = 1.0 - (tail - at_rank) / (at_next - at_rank)
    below, above = (count - rank) * probability, rank * (1.0 - probability)
    share = below * (1.0 - inside) / (below * (1.0 - inside) + above * inside)
    start = float(ordered[rank - 1])
    return start + share * (float(ordered[rank]) - start)


def _upper_end(ordered: Numbers, probability: float, tail: float) -> float | None:
    end = _lower_end(-ordered[::-1], 1.0 - probability, tail)
    return None if end is None else -end


def quantile_interval(ordered: Numbers, probability: float, confidence: float) -> Interval:
    """Interval of a quantile of sorted independent numbers by order statistics, interpolated."""
    error = 1.0 - confidence
    low, high = _lower_end(ordered, probability, error / 2.0), _upper_end(ordered, probability, error / 2.0)
    if low is not None and high is not None:
        return Interval(low, high)
    if probability >= 0.5:
        return Interval(_lower_end(ordered, probability, error), None)
    return Interval(None, _upper_end(ordered, probability, error))


def clustered_quantile_interval(values: Numbers, clusters: Clusters, probability: float, confidence: float) -> Interval:
    """Interval of a quantile of clustered numbers: those at which the share below is what it may be at the quantile.

    The share's spread is that of as many independent numbers as the design effect leaves, at the quantile asked for
    (a score interval after R. S. Woodruff, "Confidence intervals for medians and other position measures", JASA 47,
    1952; the shares that are accepted are those of the truth, not of the estimate, which is what holds near the ends).
    """
    count = len(values)
    ordered = np.sort(values)
    below = (values <= quantile_value(ordered, probability)).astype(np.float64)
    error = mean_error(below, clusters)
    if error.clusters < 2:
        return UNKNOWN
    spread = math.sqrt(probability * (1.0 - probability) / _effective_count(error, count))

    def ends(level: float) -> tuple[float | None, float | None]:
        margin = t_quantile(error.degrees_of_freedom, level) * spread
        return _at_share(ordered, probability - margin), _at_share(ordered, probability + margin)

    low, high = ends((1.0 + confidence) / 2.0)
    if low is not None and high is not None:
        return Interval(low, high)
    low, high = ends(confidence)
    return Interval(low, None) if probability >= 0.5 else Interval(None, high)


def _effective_count(error: MeanError, count: int) -> float:
    """How many independent numbers tell as much about the share below the quantile."""
    if error.standard_error == 0.0:
        return float(error.clusters)
    return min(float(count), error.mean * (1.0 - error.mean) / error.standard_error**2)


def _at_share(ordered: Numbers, share: float) -> float | None:
    """The number below which this share lies, interpolated; None beyond the numbers."""
    position = share * len(ordered) - 0.5
    if not 0.0 <= position <= len(ordered) - 1:
        return None
    below = math.floor(position)
    start = float(ordered[below])
    return start + (float(ordered[min(below + 1, len(ordered) - 1)]) - start) * (position - below)
