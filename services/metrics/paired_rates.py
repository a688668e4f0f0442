"""Two rates of the same things compared: which passed for the one and failed for the other."""

import math
from typing import NamedTuple

from services.metrics.intervals import Interval, wilson_interval


class PassTable(NamedTuple):
    """Pairs by which of the two passed."""

    both: int
    first_only: int
    second_only: int
    neither: int


def newcombe_interval(table: PassTable, quantile: float) -> Interval:
    """Interval of the difference of two paired rates; `quantile` is the normal one, 1.96 for 95 %.

    R. G. Newcombe, "Improved confidence intervals for the difference between binomial proportions based on paired
    data", Statistics in Medicine 17 (1998), method 10: Wilson's intervals of both rates, joined by their correlation.
    """
    both, first_only, second_only, neither = table
    count = sum(table)
    first, second = both + first_only, both + second_only
    one, two = (wilson_interval(passed / count, count, quantile) for passed in (first, second))
    assert one.low is not None
    assert one.high is not None
    assert two.low is not None
    assert two.high is not None
    margins = first * (count - first) * second * (count - second)
    covariance = float(both * neither - first_only * second_only)
    if covariance > 0.0:
        covariance = max(covariance - count / 2.0, 0.0)
    correlation = covariance / math.sqrt(margins) if margins else 0.0
    low = _joined(first / count - one.low, two.high - second / count, correlation)
    high = _joined(one.high - first / count, second / count - two.low, correlation)
    difference = (first - second) / count
    return Interval(difference - low, difference + high)


def _joined(one: float, two: float, correlation: float) -> float:
    return math.sqrt(max(0.0, one * one - 2.0 * correlation * one * two + two * two))


def mcnemar_mid_p(first_only: int, second_only: int) -> float:
    """Two-sided mid-p value of McNemar's test: pairs in which only the first passed, and only the second.

    M. W. Fagerland, S. Lydersen, P. Laake, "The McNemar test for binary matched-pairs data: mid-p and asymptotic are
    better than exact conditional", BMC Medical Research Methodology 13 (2013). 1 where no pair differs.
    """
    from scipy.special import bdtr

    discordant = first_only + second_only
    fewer = min(first_only, second_only)
    if first_only == second_only:
        return 1.0
    at_most = float(bdtr(float(fewer), discordant, 0.5))
    below = float(bdtr(float(fewer - 1), discordant, 0.5)) if fewer else 0.0
    return min(1.0, at_most + below)
