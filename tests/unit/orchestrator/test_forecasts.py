"""Forecasts of how much models write: whether their intervals hold, and what they rest on."""

from __future__ import annotations

import itertools
import random
from statistics import fmean

import pytest

from services.orchestrator.forecasts import (
    Filled,
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
    """Skewed lengths that vary by prompt, row and answer, foretold from some answers: at random, or the first ones."""
    misses, widths = 0, list[float]()
    seeds = itertools.count()
    while len(widths) < STUDIES:
        rng = random.Random(next(seeds))
        prompts, rows, answers = rng.randint(1, 5), rng.randint(2, 20), rng.randint(1, 8)
        among_prompts, among_rows, within = rng.uniform(0, 0.8), rng.uniform(0.05, 0.6), rng.uniform(0.05, 0.6)
        scale = rng.uniform(3, 7)
        middles = [rng.gauss(scale, among_prompts) for _ in range(prompts)]
        centres = {Filled(p, r): rng.gauss(middles[p], among_rows) for p in range(prompts) for r in range(rows)}
        answered = rng.randint(2, len(centres))
        chosen = rng.choice((list(centres)[:answered], rng.sample(list(centres), answered)))
        pilot = {
            filled: [a_length(rng, centres[filled], within) for _ in range(rng.randint(1, answers))]
            for filled in chosen
        }
        forecast = from_same_study(pilot, prompts, rows, answers)
        if forecast is None:
            # Too few answers for an interval: nothing is claimed that could be wrong.
            continue
        actual = fmean(a_length(rng, centre, within) for centre in centres.values() for _ in range(answers))
        misses += not forecast.low <= actual <= forecast.high
        widths.append((forecast.high - forecast.low) / actual)
    assert misses <= MISSES_MAX
    assert sorted(widths)[STUDIES // 2] < 1.0


def test_equal_answers_leave_no_doubt_and_one_prompt_of_many_says_too_little() -> None:
    of_one = {Filled(0, 0): [7, 7, 7], Filled(0, 1): [7, 7]}
    assert from_same_study(of_one, 1, 5, 3) == Lengths(7, 7, 7)
    assert from_same_study(of_one, 2, 5, 3) is None
    assert from_same_study({Filled(0, 0): [7, 8, 9]}, 1, 5, 3) is None
    assert from_same_study({Filled(0, 0): [7, 8]}, 1, 1, 3) is None
    one = from_same_study({Filled(0, 0): [7, 8, 9]}, 1, 1, 30)
    assert one is not None
    assert one.low < 8 == one.expected < one.high


def test_every_row_measured_leaves_only_the_doubt_of_the_answers_to_come() -> None:
    far_apart = {Filled(0, row): [1_000 * row, 1_000 * row + 2] for row in range(5)}
    whole, part = from_same_study(far_apart, 1, 5, 2), from_same_study(far_apart, 1, 6, 2)
    assert whole is not None
    assert part is not None
    assert whole.high - whole.low < 20
    assert part.high - part.low > 1_000


def test_a_prompt_counts_as_much_as_another_however_many_of_its_rows_are_measured() -> None:
    answers = {Filled(0, row): [100, 100] for row in range(9)} | {Filled(1, 0): [300, 300]}
    both = from_same_study(answers, 2, 10, 2)
    assert both is not None
    assert both.expected == 200
    of_three = from_same_study(answers, 3, 10, 2)
    assert of_three is not None
    assert of_three.high > 900


def test_other_studies_say_as_much_as_they_agree_and_none_says_nothing() -> None:
    one, several = from_other_studies([100]), from_other_studies([100, 110, 90, 105, 95, 100])
    apart = from_other_studies([10, 100, 1_000, 30, 300])
    assert one is not None
    assert several is not None
    assert apart is not None
    assert (round(one.low), round(one.expected), round(one.high)) == (9, 100, 1_115)
    assert several.high / several.low < one.high / one.low < apart.high / apart.low
    assert from_other_studies([]) is None
    assert assumed(200) == Lengths(1, 200, 200)
    assert Lengths(10, 100, 400).at_most(50) == Lengths(10, 50, 50)


@pytest.mark.parametrize(("freedom", "expected"), [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (30, 2.042)])
def test_quantiles_of_student(freedom: int, expected: float) -> None:
    assert student_t(1.959964, freedom) == pytest.approx(expected, rel=2e-3)
