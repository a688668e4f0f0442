"""The p-value of a mean difference, and p-values that hold for several differences together."""

import math
from collections.abc import Sequence

from services.metrics.intervals import MeanError


def no_spread(error: MeanError) -> bool:
    """Whether the numbers are equal, but for the last bits of their arithmetic."""
    return error.standard_error <= abs(error.mean) * 1e-12


def mean_p(error: MeanError, low: float | None, high: float | None) -> float | None:
    """Two-sided p-value of the hypothesis that a mean of differences is 0; None with fewer than two clusters.

    Student's t test. Between bounds it is the test that goes with `bounded_interval`: t is shrunk where the mean nears
    a bound, because there the observed spread is too small. Equal differences have no spread at all: then it is the
    probability that fair coins all fall on one side.
    """
    from scipy.special import stdtr

    if error.clusters < 2:
        return None
    if error.mean == 0.0:
        return 1.0
    if no_spread(error):
        return float(2.0 ** (1 - min(error.clusters, 1_000)))
    t = abs(error.mean) / error.standard_error
    if low is not None and high is not None and low < high:
        share = min(1.0, max(0.0, (error.mean - low) / (high - low)))
        t *= math.sqrt(4.0 * share * (1.0 - share))
    return float(2.0 * stdtr(error.degrees_of_freedom, -t))


def holm(p_values: Sequence[float], family: int = 0) -> list[float]:
    """Holm's adjusted p-values: those at most alpha are false with probability at most alpha for all of them together.

    S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979).
    `family` is the number of hypotheses from which these were picked, where that is more than are here.
    """
    count = max(family, len(p_values))
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
