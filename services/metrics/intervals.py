"""Confidence intervals of rates, means and quantiles, for independent and for clustered numbers.

Numbers are clustered where the same prompt was asked again: repeats of one prompt tell less than as many prompts. One
estimator serves both cases, the cluster-robust variance CR2 of a mean with the degrees of freedom of Bell and McCaffrey
("Bias reduction in standard errors for linear regression with multi-stage samples", Survey Methodology 28, 2002). For a
mean it has a closed form, and where every number is its own cluster it is the ordinary t interval.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

# scipy is imported where it is used: it takes longer to load than the rest of the service, and only the worker that
# computes needs it.

Numbers: TypeAlias = npt.NDArray[np.float64]
Clusters: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval. An end is None where the numbers are too few to give it."""

    low: float | None
    high: float | None


UNKNOWN = Interval(None, None)


@dataclass(frozen=True, slots=True)
class MeanError:
    """A mean and how well it is known."""

    mean: float
    standard_error: float
    degrees_of_freedom: float
    """0 where one cluster alone says nothing about others; then `standard_error` is 0 too."""
    clusters: int


def mean_error(values: Numbers, clusters: Clusters | None = None) -> MeanError:
    """The mean of at least one number and its standard error, robust to dependence within `clusters`.

    With cluster sizes m_g of N numbers and e_g the sum of a cluster's deviations from the mean, CR2 is the sum of
    e_g^2 / (1 - m_g / N), over N^2.
    """
    total = len(values)
    mean = math.fsum(values) / total
    if clusters is None:
        sizes: Numbers = np.ones(total)
        deviations: Numbers = values - mean
    else:
        _, index = np.unique(clusters, return_inverse=True)
        sizes = np.bincount(index).astype(np.float64)
        deviations = np.bincount(index, weights=values - mean).astype(np.float64)
    if len(sizes) < 2:
        return MeanError(mean, 0.0, 0.0, 1)
    shares = sizes / total
    variance = float(np.sum(deviations**2 / (1.0 - shares))) / total**2
    leverage = shares**2 / (1.0 - shares)
    degrees = 1.0 / float(np.sum(shares**2) + np.sum(leverage) ** 2 - np.sum(leverage**2))
    return MeanError(mean, math.sqrt(variance), degrees, len(sizes))


def t_quantile(degrees_of_freedom: float, probability: float) -> float:
    """Quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, probability))


def normal_quantile(probability: float) -> float:
    """Quantile of the standard normal distribution."""
    from scipy.special import ndtri

    return float(ndtri(probability))


def t_interval(error: MeanError, confidence: float) -> Interval:
    """Interval of a mean by Student's t; unknown where there are fewer than two clusters."""
    if error.clusters < 2:
        return UNKNOWN
    margin = t_quantile(error.degrees_of_freedom, (1.0 + confidence) / 2.0) * error.standard_error
    return Interval(error.mean - margin, error.mean + margin)


def wilson_interval(rate: float, count: float, quantile: float) -> Interval:
    """Wilson's score interval of a rate seen in `count` numbers; `quantile` is the normal one, 1.96 for 95 %.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927). Holds as well,
    and is then too wide rather than too narrow, for the mean of numbers that are anywhere between 0 and 1: their
    variance is at most that of zeros and ones.
    """
    squared = quantile * quantile
    centre = (rate + squared / (2.0 * count)) / (1.0 + squared / count)
    margin = quantile / (1.0 + squared / count) * math.sqrt(rate * (1.0 - rate) / count + squared / (4.0 * count**2))
    # At 0 and 1 the exact ends are 0 and 1; rounding must not leave them.
    low = 0.0 if rate <= 0.0 else max(0.0, centre - margin)
    high = 1.0 if rate >= 1.0 else min(1.0, centre + margin)
    return Interval(low, high)


def rate_interval(error: MeanError, count: int, confidence: float) -> Interval:
    """Wilson's interval of the mean of numbers between 0 and 1.

    Clustered numbers count as the effective number of independent ones, by their design effect (N. Dean, M. Pagano,
    "Evaluating confidence interval methods for binomial proportions in clustered surveys", Journal of Survey Statistics
    and Methodology 3, 2015), with t in place of the normal quantile. Where all numbers are alike the design effect
    can't be seen, and every cluster counts as one number.
    """
    level = (1.0 + confidence) / 2.0
    if error.clusters == count:
        return wilson_interval(error.mean, count, normal_quantile(level))
    if error.clusters < 2:
        return UNKNOWN
    effective = float(error.clusters)
    if error.standard_error > 0.0:
        effective = min(float(count), error.mean * (1.0 - error.mean) / error.standard_error**2)
    return wilson_interval(error.mean, effective, t_quantile(error.degrees_of_freedom, level))


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


def quantile_value(ordered: Numbers, probability: float) -> float:
    """The quantile of sorted numbers, interpolated: type 7 of R. J. Hyndman and Y. Fan (1996), numpy's default."""
    position = (len(ordered) - 1) * probability
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    low, high = float(ordered[below]), float(ordered[above])
    return low if low == high else low + (high - low) * (position - below)


def quantile_interval(ordered: Numbers, probability: float, confidence: float) -> Interval:
    """Order-statistic interval of a quantile of sorted independent numbers, whatever their distribution.

    Each end errs with at most half of 1 - confidence; an end is None where even the smallest or largest number is not
    far enough out (W. J. Conover, Practical Nonparametric Statistics, section 3.2).
    """
    count = len(ordered)
    tail = (1.0 - confidence) / 2.0
    low_rank = _ranks_at_or_below(count, probability, tail)
    # The smallest k whose cumulative probability reaches 1 - tail; it is `count` at the latest.
    high_rank = _ranks_at_or_below(count, probability, math.nextafter(1.0 - tail, 0.0)) + 1
    return Interval(
        float(ordered[low_rank - 1]) if low_rank >= 1 else None,
        float(ordered[high_rank - 1]) if high_rank <= count else None,
    )


def clustered_quantile_interval(values: Numbers, clusters: Clusters, probability: float, confidence: float) -> Interval:
    """Interval of a quantile of clustered numbers: the interval of the share below it, read back as ranks.

    R. S. Woodruff, "Confidence intervals for medians and other position measures", JASA 47 (1952), with Wilson's
    interval for the share.
    """
    count = len(values)
    ordered = np.sort(values)
    below = (values <= quantile_value(ordered, probability)).astype(np.float64)
    share = rate_interval(mean_error(below, clusters), count, confidence)
    if share.low is None or share.high is None:
        return UNKNOWN
    # The interval's width around the observed share, moved to the share that is asked for.
    observed = float(below.mean())
    low_rank = math.floor(count * (probability - (observed - share.low)))
    high_rank = math.floor(count * (probability + (share.high - observed))) + 1
    return Interval(
        float(ordered[low_rank - 1]) if low_rank >= 1 else None,
        float(ordered[high_rank - 1]) if high_rank <= count else None,
    )
