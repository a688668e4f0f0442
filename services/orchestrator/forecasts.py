"""How much text models will write: the sum over cells, foretold from answers that were measured.

The cells of a model are groups, one for each filled-in prompt, of equally many answers. What has been measured is taken
as a two-stage sample of them (some groups, some answers of each), whose total has a known variance: W. G. Cochran,
Sampling Techniques, 3rd ed., section 10.3, with the variance of answers that are yet to come added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance

CONFIDENCE = 0.9
"""How often, at the least, the actual sum lies within the interval."""

_QUANTILE = NormalDist().inv_cdf(0.975)
"""Lengths are skewed, so that an interval of nominally 90 % holds less often than it says: 95 % are taken."""

ANSWERS_MIN = 3
"""Answers from which an interval can be drawn."""

OTHER_STUDY_FACTOR = 4.0
"""Answers of a model to other prompts say only so much about the mean length of these: up to this factor either way."""

ASSUMED_OUTPUT_TOKENS = 400
"""The expected length of an answer of a model that has never been measured."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Output tokens of the mean answer: what is expected, and the interval, from which sums over all cells follow."""

    low: float
    expected: float
    high: float

    def at_most(self, limit: int) -> Lengths:
        """The same under a limit of output tokens."""
        return Lengths(min(self.low, limit), min(self.expected, limit), min(self.high, limit))


def from_same_study(outputs: Mapping[int, Sequence[int]], groups: int, answers_per_group: int) -> Lengths | None:
    """From answers of the same study, by group; None where there are too few to say how far they vary."""
    values = [value for group in outputs.values() for value in group]
    sampled = len(outputs)
    if len(values) < ANSWERS_MIN or (sampled < 2 and groups > 1):
        return None
    means = [fmean(group) for group in outputs.values()]
    mean = fmean(means)
    repeated = [group for group in outputs.values() if len(group) > 1]
    freedom_within = sum(len(group) - 1 for group in repeated)
    # Without repeats the answers of a group may vary as much as all answers do.
    within = (
        sum(variance(group) * (len(group) - 1) for group in repeated) / freedom_within
        if freedom_within
        else variance(values)
    )
    between = variance(means) if sampled > 1 else 0.0
    sampled_share = min(1.0, sampled / groups)
    of_mean = between / sampled * (1 - sampled_share) + within / len(values)
    to_come = within / (groups * answers_per_group)
    freedom = sampled - 1 if sampled < groups else max(freedom_within, sampled - 1, 1)
    half = student_t(_QUANTILE, freedom) * math.sqrt(of_mean + to_come)
    return Lengths(max(0.0, mean - half), mean, mean + half)


def from_other_studies(outputs: Sequence[int]) -> Lengths | None:
    """From a model's answers to other prompts; None for too few."""
    if len(outputs) < ANSWERS_MIN:
        return None
    mean = fmean(outputs)
    return Lengths(mean / OTHER_STUDY_FACTOR, mean, mean * OTHER_STUDY_FACTOR)


def assumed(limit: int) -> Lengths:
    """Without any measurement: anything from a word to the limit."""
    return Lengths(1.0, float(min(ASSUMED_OUTPUT_TOKENS, limit)), float(limit))


def student_t(normal_quantile: float, freedom: int) -> float:
    """The quantile of Student's distribution that belongs to one of the normal distribution.

    For one and two degrees of freedom exact at 97.5 %; else M. Abramowitz and I. Stegun, Handbook of Mathematical
    Functions, 26.7.5, which is within 0.1 % from three degrees on.
    """
    if freedom <= 2:
        return {1: 12.7062, 2: 4.3027}[max(1, freedom)]
    z, n = normal_quantile, freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4)
    )
