"""Forecasts of how much models write: whether their intervals hold, and what they rest on."""

from __future__ import annotations

import itertools
import random
from statistics import fmean

import pytest

from services.orchestrator.forecasts import (
    Lengths,
    assumed,
    from_other_studies,
    from_same_study,
    student_t,
)

STUDIES = 100
MISSES_MAX = 10


def a_length(rng: random.Random, centre: float, spread: float) -> int:
    """Output tokens of an answer, skewed and limited."""
    return min(4_096, max(1, round(rng.lognormvariate(centre, spread))))


def test_the_actual_sum_lies_in_the_interval_in_nine_of_ten_studies() -> None:
    """Skewed lengths that vary by prompt and by answer, foretold from a pilot of a part of the study."""
    misses, widths = 0, list[float]()
    seeds = itertools.count()
    while len(widths) < STUDIES:
        rng = random.Random(next(seeds))
        groups, answers = rng.randint(2, 60), rng.randint(1, 12)
        spread_between, spread_within = rng.uniform(0.1, 0.9), rng.uniform(0.05, 0.7)
        scale = rng.uniform(3, 7)
        centres = [rng.gauss(scale, spread_between) for _ in range(groups)]
        piloted = rng.sample(range(groups), rng.randint(2, groups))
        pilot = {
            group: [a_length(rng, centres[group], spread_within) for _ in range(rng.randint(1, answers))]
            for group in piloted
        }
        forecast = from_same_study(pilot, groups, answers)
        if forecast is None:
            # Too few answers for an interval: nothing is claimed that could be wrong.
            continue
        actual = fmean(a_length(rng, centre, spread_within) for centre in centres for _ in range(answers))
        misses += not forecast.low <= actual <= forecast.high
        widths.append((forecast.high - forecast.low) / actual)
    assert misses <= MISSES_MAX
    assert sorted(widths)[STUDIES // 2] < 1.5


def test_equal_answers_leave_no_doubt_and_one_group_of_many_says_too_little() -> None:
    assert from_same_study({0: [7, 7, 7], 1: [7, 7]}, 5, 3) == Lengths(7, 7, 7)
    assert from_same_study({0: [7, 8, 9]}, 5, 3) is None
    assert from_same_study({0: [7, 8]}, 1, 3) is None
    one = from_same_study({0: [7, 8, 9]}, 1, 30)
    assert one is not None
    assert one.low < 8 == one.expected < one.high


def test_every_group_measured_leaves_only_the_doubt_of_the_answers_to_come() -> None:
    far_apart = {group: [1_000 * group, 1_000 * group + 2] for group in range(1, 6)}
    whole, part = from_same_study(far_apart, 5, 2), from_same_study(far_apart, 6, 2)
    assert whole is not None
    assert part is not None
    assert whole.high - whole.low < 20
    assert part.high - part.low > 1_000


def test_other_studies_and_no_studies_are_rough() -> None:
    assert from_other_studies([90, 100, 110]) == Lengths(25, 100, 400)
    assert from_other_studies([100]) is None
    assert assumed(200) == Lengths(1, 200, 200)
    assert Lengths(10, 100, 400).at_most(50) == Lengths(10, 50, 50)


@pytest.mark.parametrize(("freedom", "expected"), [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (30, 2.042)])
def test_quantiles_of_student(freedom: int, expected: float) -> None:
    assert student_t(1.959964, freedom) == pytest.approx(expected, rel=2e-3)
