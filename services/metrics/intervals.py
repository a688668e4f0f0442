"""Confidence intervals of rates and means, for independent and for clustered numbers.

Numbers are clustered where the same prompt was asked again: repeats of one prompt tell less than as many prompts. One
estimator serves both cases, the cluster-robust variance CR2 of a mean with the degrees of freedom of Bell and McCaffrey
("Bias reduction in standard errors for linear regression with multi-stage samples", Survey Methodology 28, 2002). For a
mean it has a closed form, and where every number is its own cluster it is the ordinary t interval.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
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

_QUANTILES_KEPT = 1_024
_EFFECTIVE_MAX = 1e15
"""More zeros and ones than this make an interval narrower than what a number can tell apart."""


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
    mean = math.fsum(values.tolist()) / total  # plain numbers are added several times faster
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


@lru_cache(maxsize=_QUANTILES_KEPT)
def t_quantile(degrees_of_freedom: float, probability: float) -> float:
    """Quantile of Student's t distribution; kept, because many means of as many numbers are compared."""
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


def bounded_interval(error: MeanError, low: float, high: float, confidence: float) -> Interval:
    """Interval of the mean of numbers that can't leave `low` to `high`; unknown with fewer than two clusters.

    Wilson's interval, scaled, for as many zeros and ones as would be as uncertain as these numbers, with t in place of
    the normal quantile. Far from the bounds it is Student's t; near a bound, where the distribution is skewed and t
    holds the truth in as few as 75 % of the cases, it leans away from the bound. Equal numbers show no spread, but a
    few of them don't prove that there is none: then every cluster counts as one zero or one.
    """
    if error.clusters < 2:
        return UNKNOWN
    width = high - low
    share = min(1.0, max(0.0, (error.mean - low) / width))
    effective = float(error.clusters)
    variance = (error.standard_error / width) ** 2
    if variance > 0.0 and 0.0 < share < 1.0:
        effective = min(_EFFECTIVE_MAX, max(1.0, share * (1.0 - share) / variance))
    quantile = t_quantile(error.degrees_of_freedom, (1.0 + confidence) / 2.0)
    unit = wilson_interval(share, effective, quantile)
    assert unit.low is not None
    assert unit.high is not None
    return Interval(low + width * unit.low, low + width * unit.high)


def rate_interval(error: MeanError, count: int, confidence: float) -> Interval:
    """Wilson's interval of the mean of zeros and ones.

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
