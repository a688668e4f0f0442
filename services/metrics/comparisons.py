"""Groups of numbers compared in pairs: which of two is better, by how much, and whether that is more than noise.

The groups asked the same prompts, so they are compared prompt by prompt: what makes a prompt hard is hard for both, and
falls out of the difference. A prompt is a unit; repeats of it within a group are averaged first, so that units are
independent of each other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import combinations
from typing import Final, TypeAlias

from services.metrics.checks import check_bounds
from services.metrics.intervals import (
    UNKNOWN,
    Interval,
    MeanError,
    bounded_interval,
    mean_error,
    normal_quantile,
    t_interval,
    t_quantile,
)
from services.metrics.p_values import holm, mean_p, no_spread
from services.metrics.paired_rates import PassTable, mcnemar_mid_p, newcombe_interval
from services.metrics.pairing import Group, Pairs, Units, pair_up, read_units
from services.metrics.summaries import Estimate, SeriesKind
from services.runtime.errors import InvalidField
from services.runtime.stopping import check_stopped

POWER: Final = 0.8
"""With which probability the minimum detectable difference is detected."""

NO_UNITS = "the two have no unit in common"
ONE_UNIT = "one unit says nothing about others"
EQUAL_DIFFERENCES = "all differences are equal, so that nothing says how far the next one may lie"


class Against(Enum):
    """What each group is compared with."""

    EVERY_OTHER = "every other"
    BASELINE = "baseline"
    BEST = "best"


class Verdict(Enum):
    """What a comparison says."""

    FIRST_HIGHER = "first higher"
    SECOND_HIGHER = "second higher"
    WITHIN_NOISE = "within noise"
    UNKNOWN = "unknown"
    """There are too few units to say anything."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be compared, and how."""

    kind: SeriesKind
    """MEAN or RATE."""
    groups: tuple[Group, ...]
    against: Against = Against.EVERY_OTHER
    baseline: str = ""
    """The key of the group that the others are compared with."""
    lower_is_better: bool = False
    """Which group is the best one."""
    minimum: float | None = None
    maximum: float | None = None
    """The bounds of any possible value, where it has bounds."""

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """The lowest and the highest possible value."""
        return (0.0, 1.0) if self.kind is SeriesKind.RATE else (self.minimum, self.maximum)

    @property
    def width(self) -> float:
        """The largest possible difference."""
        low, high = self.bounds
        return math.inf if low is None or high is None else high - low


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two groups compared, unit by unit."""

    first: str
    second: str
    difference: Estimate
    """Mean over the units of the first's value less the second's; `count` is the number of units."""
    p_value: float | None
    """That a difference of this size or more shows where there is none."""
    adjusted_p_value: float | None
    """The same, for all comparisons of the answer together (Holm)."""
    verdict: Verdict
    detectable_difference: float | None
    """The smallest true difference that as many units, as noisy as these, show with probability `POWER`; None where no
    possible difference is as large, or no noise is seen."""
    wins: int
    ties: int
    losses: int


def compare(question: Question, confidence: float) -> tuple[str, list[Comparison]]:
    """The group that the others were compared with (empty for EVERY_OTHER), and the comparisons, in the groups' order.

    Runs in a worker process.

    Raises:
        InvalidField: a group or the baseline breaks a rule.
    """
    groups = _read(question)
    keys = [group.key for group in question.groups]
    if question.against is Against.EVERY_OTHER:
        baseline, pairs = "", list(combinations(range(len(keys)), 2))
    else:
        chosen = _best(groups, question) if question.against is Against.BEST else _index(keys, question.baseline)
        baseline, pairs = keys[chosen], [(index, chosen) for index in range(len(keys)) if index != chosen]
    bounds = question.bounds
    compared = []
    for first, second in pairs:
        check_stopped()
        paired = pair_up(groups[first], groups[second], *bounds)
        compared.append(_compare_two(keys[first], keys[second], paired, question, confidence))
    # The best was picked by the same numbers: any two could have been compared.
    family = math.comb(len(keys), 2) if question.against is Against.BEST else 0
    return baseline, _adjusted(compared, family, confidence)


def _read(question: Question) -> list[Units]:
    check_bounds(question.minimum, question.maximum)
    if question.kind is SeriesKind.QUANTILES:
        raise InvalidField("kind", "must be MEAN or RATE: quantiles are not compared")
    seen: set[str] = set()
    rate = question.kind is SeriesKind.RATE
    groups = []
    for index, group in enumerate(question.groups):
        path = f"groups[{index}]"
        if group.key in seen:
            raise InvalidField(f"{path}.key", f"two groups have the key {group.key!r}; make them distinct")
        seen.add(group.key)
        groups.append(read_units(group, path, question.minimum, question.maximum, rate=rate))
    return groups


def _index(keys: Sequence[str], baseline: str) -> int:
    if baseline not in keys:
        raise InvalidField("baseline", f"must be the key of one of the groups, not {baseline!r}")
    return keys.index(baseline)


def _best(groups: Sequence[Units], question: Question) -> int:
    """The group with the best mean over its units; groups without values come last, ties go to the first."""

    def badness(index: int) -> float:
        group = groups[index]
        there = group.counts > 0
        if not there.any():
            return math.inf
        mean = math.fsum((group.sums[there] / group.counts[there]).tolist()) / int(there.sum())
        return mean if question.lower_is_better else -mean

    return min(range(len(groups)), key=badness)


def _compare_two(first: str, second: str, pairs: Pairs, question: Question, confidence: float) -> Comparison:
    count = len(pairs.first)
    differences = pairs.first - pairs.second
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    value, p_value, detectable, interval, method = None, None, None, UNKNOWN, "paired-t"
    if count:
        error = mean_error(differences)
        value, detectable = error.mean, _detectable(error, question.width, confidence)
        if question.kind is SeriesKind.RATE and pairs.single:
            method, interval, p_value = _pass_or_fail(pairs, wins, losses, confidence)
        else:
            method, interval, p_value = _by_mean(error, question, confidence)
    withheld = "" if count > 1 else ONE_UNIT if count else NO_UNITS
    if count > 1 and interval.low is None:
        withheld = EQUAL_DIFFERENCES
    estimate = Estimate(
        value, interval, method, count, count, pairs.missing, pairs.if_missing, withheld_reason=withheld
    )
    ties = count - wins - losses
    return Comparison(first, second, estimate, p_value, None, Verdict.UNKNOWN, detectable, wins, ties, losses)


_Tested: TypeAlias = tuple[str, Interval, float | None]
"""The method, the interval of the difference and its p-value."""


def _pass_or_fail(pairs: Pairs, wins: int, losses: int, confidence: float) -> _Tested:
    if len(pairs.first) < 2:
        return "newcombe-paired", UNKNOWN, None
    interval = newcombe_interval(_table(pairs), normal_quantile((1.0 + confidence) / 2.0))
    return "newcombe-paired", interval, mcnemar_mid_p(wins, losses)


def _by_mean(error: MeanError, question: Question, confidence: float) -> _Tested:
    low, high = _difference_bounds(question)
    p_value = mean_p(error, low, high)
    bounded = low is not None and high is not None and low < high
    method = "paired-wilson-scaled" if bounded else "paired-t"
    if error.mean != 0.0 and no_spread(error):
        # Nothing says how far the next difference may lie.
        return method, UNKNOWN, p_value
    if low is not None and high is not None and low < high:
        return method, bounded_interval(error, low, high, confidence), p_value
    return method, t_interval(error, confidence), p_value


def _difference_bounds(question: Question) -> tuple[float | None, float | None]:
    low, high = question.bounds
    return (None, None) if low is None or high is None else (low - high, high - low)


def _detectable(error: MeanError, width: float, confidence: float) -> float | None:
    """The minimum detectable difference; None where no noise is seen, and where it is no possible difference."""
    if error.clusters < 2 or error.standard_error == 0.0:
        return None
    degrees = error.degrees_of_freedom
    found = (t_quantile(degrees, (1.0 + confidence) / 2.0) + t_quantile(degrees, POWER)) * error.standard_error
    return found if found < width else None


def _table(pairs: Pairs) -> PassTable:
    first, second = pairs.first > 0.5, pairs.second > 0.5
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    return PassTable(both, int((first & ~second).sum()), int((~first & second).sum()), neither)


def _adjusted(compared: Sequence[Comparison], family: int, confidence: float) -> list[Comparison]:
    known = [index for index, each in enumerate(compared) if each.p_value is not None]
    adjusted = holm([each.p_value for each in compared if each.p_value is not None], family)
    result = list(compared)
    for index, p_value in zip(known, adjusted, strict=True):
        verdict = Verdict.WITHIN_NOISE
        difference = compared[index].difference.value
        if p_value <= 1.0 - confidence and difference:
            verdict = Verdict.FIRST_HIGHER if difference > 0 else Verdict.SECOND_HIGHER
        result[index] = replace(compared[index], adjusted_p_value=p_value, verdict=verdict)
    return result
