"""How much text models will write: the sum over cells, foretold from answers that were measured.

The cells of a model are groups, one for each filled-in prompt, of equally many answers. What has been measured is
taken as a sample of them in stages (some prompts, some of their rows, some answers to each), whose total has a known
variance: W. G. Cochran, Sampling Techniques, 3rd ed., sections 5.3 (strata) and 10.3 (stages), with the variance of
answers that are yet to come added.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance
from typing import NamedTuple

CONFIDENCE = 0.9
"""How often, at the least, the actual sum lies within the interval."""

_QUANTILE = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
_QUANTILE_OF_SUMS = NormalDist().inv_cdf(0.975)
"""Lengths are skewed, so that an interval of nominally 90 % for a sum holds less often than it says: 95 % are taken."""

ANSWERS_MIN = 3
"""Answers from which an interval can be drawn."""

STUDIES_SPREAD = 0.8
"""Standard deviation of the logarithm of mean lengths among a model's studies, before any are measured: from one study
to the next they differ by a factor of two or three as a rule, as between "in a sentence" and "in a page"."""

STUDIES_ASSUMED = 4
"""So many studies' worth that assumption is."""

ASSUMED_OUTPUT_TOKENS = 400
"""The expected length of an answer of a model that has never been measured."""


class Filled(NamedTuple):
    """A filled-in prompt: its index and that of its row."""

    prompt: int
    row: int


@dataclass(frozen=True, slots=True)
class Lengths:
    """Output tokens of the mean answer: what is expected, and the interval, from which sums over all cells follow."""

    low: float
    expected: float
    high: float

    def at_most(self, limit: int) -> Lengths:
        """The same under a limit of output tokens."""
        return Lengths(min(self.low, limit), min(self.expected, limit), min(self.high, limit))


def from_same_study(
    outputs: Mapping[Filled, Sequence[int]], prompts: int, rows: int, answers_each: int
) -> Lengths | None:
    """From answers of the same study, by prompt and row; None where there are too few to say how far they vary.

    A run that was stopped has the first prompts only, and prompts differ more than rows do: where a prompt has no
    answer at all, prompts are what was sampled; else each prompt is a stratum of its rows.
    """
    by_prompt: defaultdict[int, list[Sequence[int]]] = defaultdict(list)
    for filled, group in outputs.items():
        by_prompt[filled.prompt].append(group)
    values = [value for group in outputs.values() for value in group]
    sampled = len(by_prompt)
    if len(values) < ANSWERS_MIN or (sampled < prompts and sampled < 2) or (len(outputs) < 2 and prompts * rows > 1):
        return None
    # Without repeats the answers to a row may vary as much as all answers do, and rows as much as all rows do.
    within = _pooled(outputs.values()) or _pooled([values]) or _NO_SPREAD
    row_means = [[fmean(group) for group in groups] for groups in by_prompt.values()]
    among_rows = _pooled(row_means) or _pooled([[mean for means in row_means for mean in means]]) or _NO_SPREAD
    prompt_means = [fmean(means) for means in row_means]
    mean = fmean(prompt_means)
    of_rows = [
        among_rows.variance / len(groups) * (1 - len(groups) / rows) + within.variance / sum(map(len, groups))
        for groups in by_prompt.values()
    ]
    of_mean = sum(of_rows) / sampled**2
    freedom = within.freedom
    if len(outputs) < prompts * rows:
        freedom = among_rows.freedom
    if sampled < prompts:
        of_mean = of_mean * sampled / prompts + variance(prompt_means) / sampled * (1 - sampled / prompts)
        freedom = sampled - 1
    to_come = within.variance / (prompts * rows * answers_each)
    half = student_t(_QUANTILE_OF_SUMS, freedom) * math.sqrt(of_mean + to_come)
    return Lengths(max(0.0, mean - half), mean, mean + half)


class _Spread(NamedTuple):
    """A variance, and the degrees of freedom that it was estimated with."""

    variance: float
    freedom: int


_NO_SPREAD = _Spread(0.0, 1)


def _pooled(groups: Iterable[Sequence[float]]) -> _Spread | None:
    """The variance within groups, which is taken to be the same in all; None where no group has two values."""
    repeated = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in repeated)
    if not freedom:
        return None
    return _Spread(sum(variance(group) * (len(group) - 1) for group in repeated) / freedom, freedom)


def from_other_studies(means: Sequence[float]) -> Lengths | None:
    """From the mean lengths of a model's answers in other studies, one number each; None without any.

    The next study is one more draw of theirs, on a logarithmic scale. How far they spread is little known from a few:
    STUDIES_SPREAD is taken to be known from STUDIES_ASSUMED of them beside (the mean of the posterior of a normal
    variance under a conjugate prior: A. Gelman et al., Bayesian Data Analysis, 3rd ed., section 2.6).
    """
    if not means:
        return None
    logs = [math.log(max(1.0, mean)) for mean in means]
    freedom = STUDIES_ASSUMED + len(logs) - 1
    squares = STUDIES_ASSUMED * STUDIES_SPREAD**2 + sum((each - fmean(logs)) ** 2 for each in logs)
    half = student_t(_QUANTILE, freedom) * math.sqrt(squares / freedom * (1 + 1 / len(logs)))
    middle = fmean(logs)
    return Lengths(math.exp(middle - half), math.exp(middle), math.exp(middle + half))


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
