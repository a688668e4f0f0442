import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from services.metrics.comparisons import Against, Comparison, Question, Verdict, compare
from services.metrics.intervals import Interval
from services.metrics.pairing import Group
from services.metrics.summaries import SeriesKind
from services.runtime.errors import InvalidField

PROMPTS = list(range(30))
EASE = np.linspace(0.2, 0.8, 30)
NOISE = np.random.default_rng(4).normal(0.0, 0.02, (3, 30))


def group(key: str, values: Sequence[float], units: Sequence[int], missing: Sequence[int] = ()) -> Group:
    packed = (np.array(numbers, dtype=np.int64).tobytes() for numbers in (units, missing))
    return Group(key, np.array(values, dtype=np.float64).tobytes(), *packed)


def compared(*groups: Group, kind: SeriesKind = SeriesKind.MEAN, **more: Any) -> list[Comparison]:
    bounds = {"minimum": 0.0, "maximum": 1.0} if kind is SeriesKind.MEAN else {}
    return compare(Question(kind, groups, **(bounds | more)), 0.95)[1]


def test_a_small_difference_shows_when_prompts_are_paired() -> None:
    """The prompts differ by 0.6 among each other, the groups by 0.05: unpaired it would drown."""
    (result,) = compared(group("a", EASE + 0.05 + NOISE[0], PROMPTS), group("b", EASE + NOISE[1], PROMPTS))
    assert result.verdict is Verdict.FIRST_HIGHER
    assert result.difference.value == pytest.approx(0.05, abs=0.01)
    assert result.difference.method == "paired-wilson-scaled"
    assert result.difference.interval.low > 0.0  # type: ignore[operator]
    assert result.difference.interval.high < 0.1  # type: ignore[operator]
    assert 0.01 < result.detectable_difference < 0.05  # type: ignore[operator]
    assert result.wins + result.ties + result.losses == 30


def test_no_difference_is_within_noise() -> None:
    (result,) = compared(group("a", EASE + NOISE[0], PROMPTS), group("b", EASE + NOISE[2], PROMPTS))
    assert result.verdict is Verdict.WITHIN_NOISE
    assert result.adjusted_p_value == result.p_value


def test_pass_or_fail_goes_by_mcnemar() -> None:
    first, second = [1.0] * 20 + [0.0] * 10, [1.0] * 12 + [0.0] * 18
    (result,) = compared(group("a", first, PROMPTS), group("b", second, PROMPTS), kind=SeriesKind.RATE)
    assert result.difference.method == "newcombe-paired"
    assert (result.wins, result.ties, result.losses) == (8, 22, 0)
    assert result.p_value == pytest.approx(2.0**-8)
    assert result.verdict is Verdict.FIRST_HIGHER


def test_repeats_are_averaged_before_they_count() -> None:
    """Ten equal repeats of each of six prompts tell what one of each tells."""
    first, second = [0.9, 0.4, 0.7, 0.3, 0.8, 0.6], [0.5, 0.5, 0.3, 0.2, 0.9, 0.1]
    (once,) = compared(group("a", first, range(6)), group("b", second, range(6)))
    units = np.repeat(np.arange(6), 10).tolist()
    (often,) = compared(group("a", np.repeat(first, 10).tolist(), units), group("b", second, range(6)))
    assert often.difference.value == pytest.approx(once.difference.value)
    assert often.p_value == pytest.approx(once.p_value)
    assert often.difference.count == 6


def test_repeats_of_pass_or_fail_are_no_mcnemar() -> None:
    units = [0, 0, 1, 1, 2, 2]
    a, b = group("a", [1.0, 1.0, 1.0, 0.0, 1.0, 1.0], units), group("b", [0.0, 0.0, 1.0, 0.0, 0.0, 1.0], units)
    (result,) = compared(a, b, kind=SeriesKind.RATE)
    assert (result.difference.method, result.difference.count) == ("paired-wilson-scaled", 3)


def test_what_is_missing_widens_the_bounds_and_moves_nothing_silently() -> None:
    """Every tenth answer is lost: the difference says over how many prompts it is, and what the lost could do."""
    kept = [prompt for prompt in PROMPTS if prompt % 10]
    lost = [prompt for prompt in PROMPTS if not prompt % 10]
    first, second = np.clip(EASE + 0.05 + NOISE[0], 0, 1), EASE + NOISE[1]
    (whole,) = compared(group("a", first, PROMPTS), group("b", second, PROMPTS))
    (holed,) = compared(group("a", first[kept], kept, lost), group("b", second, PROMPTS))
    assert whole.difference.if_missing == Interval(None, None)
    assert (holed.difference.count, holed.difference.missing) == (27, 3)
    assert holed.difference.value == pytest.approx(float(np.mean((first - second)[kept])))
    # By hand: the lost three at 0, and at 1.
    total = float(np.sum(first[kept])) - float(np.sum(second))
    assert holed.difference.if_missing.low == pytest.approx(total / 30)
    assert holed.difference.if_missing.high == pytest.approx((total + 3) / 30)
    low, high = holed.difference.if_missing.low, holed.difference.if_missing.high
    assert low <= whole.difference.value <= high  # type: ignore[operator]


def test_without_shared_units_there_is_no_difference() -> None:
    (nothing,) = compared(group("a", [0.5], [1]), group("b", [0.7], [2]))
    (single,) = compared(group("a", [0.5], [1]), group("b", [0.7], [1]))
    assert nothing.difference.value is None
    assert nothing.difference.withheld_reason
    assert single.difference.value == pytest.approx(-0.2)
    assert nothing.verdict is single.verdict is Verdict.UNKNOWN
    assert nothing.p_value is single.p_value is None


def test_equal_differences_have_no_interval() -> None:
    (result,) = compared(group("a", [0.75] * 8, range(8)), group("b", [0.5] * 8, range(8)))
    assert result.difference.interval == Interval(None, None)
    assert "differences are equal" in result.difference.withheld_reason
    assert result.p_value == 2.0**-7
    assert result.detectable_difference is None


def test_a_difference_that_no_prompts_could_show_is_not_named() -> None:
    """Two prompts with differences of 0.3 and -0.2 could show one of 4.6 on a scale from 0 to 1."""
    (few,) = compared(group("a", [0.8, 0.3], [1, 2]), group("b", [0.5, 0.5], [1, 2]))
    (unbounded,) = compared(group("a", [0.8, 0.3], [1, 2]), group("b", [0.5, 0.5], [1, 2]), minimum=None, maximum=None)
    assert few.detectable_difference is None
    assert unbounded.detectable_difference > 1.0  # type: ignore[operator]


def test_every_two_are_compared_and_adjusted_together() -> None:
    groups = [group(key, EASE + 0.03 * index + NOISE[index], PROMPTS) for index, key in enumerate("abc")]
    results = compared(*groups, minimum=None, maximum=None)
    assert [(each.first, each.second) for each in results] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert all(each.adjusted_p_value >= each.p_value for each in results)  # type: ignore[operator]
    assert results[1].verdict is Verdict.SECOND_HIGHER
    assert results[0].difference.method == "paired-t"


@pytest.mark.parametrize(("lower_is_better", "best"), [(False, "c"), (True, "a")])
def test_the_best_is_found_and_pays_for_being_picked(lower_is_better: bool, best: str) -> None:
    groups = tuple(group(key, EASE + 0.03 * index + NOISE[index], PROMPTS) for index, key in enumerate("abc"))
    question = Question(SeriesKind.MEAN, groups, Against.BEST, lower_is_better=lower_is_better)
    baseline, results = compare(question, 0.95)
    assert baseline == best
    assert {each.second for each in results} == {best}
    smallest = min(each.p_value for each in results if each.p_value is not None)
    adjusted = min(each.adjusted_p_value for each in results if each.adjusted_p_value is not None)
    assert adjusted == pytest.approx(3 * smallest)


def test_a_baseline_is_named() -> None:
    groups = tuple(group(key, EASE + NOISE[0], PROMPTS) for key in "ab")
    baseline, (only,) = compare(Question(SeriesKind.MEAN, groups, Against.BASELINE, baseline="a"), 0.95)
    assert (baseline, only.first, only.second) == ("a", "b", "a")
    assert only.difference.value == 0.0
    assert pickle.loads(pickle.dumps(only)) == only


@pytest.mark.parametrize(
    ("question", "field"),
    [
        (Question(SeriesKind.QUANTILES, ()), "kind"),
        (Question(SeriesKind.MEAN, (group("a", [1.0], [1]), group("a", [1.0], [1]))), "groups[1].key"),
        (Question(SeriesKind.MEAN, (group("a", [1.0], [1, 2]), group("b", [], []))), "groups[0].units"),
        (Question(SeriesKind.RATE, (group("a", [], []), group("b", [0.0, 0.5], [1, 2]))), "groups[1].values[1]"),
        (Question(SeriesKind.MEAN, (group("a", [2.0], [1]), group("b", [], [])), maximum=1.0), "groups[0].values[0]"),
        (Question(SeriesKind.MEAN, (), minimum=2.0, maximum=1.0), "minimum"),
        (Question(SeriesKind.MEAN, (group("a", [], []),), Against.BASELINE, "nobody"), "baseline"),
    ],
)
def test_broken_questions_name_the_field(question: Question, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        compare(question, 0.95)
    assert caught.value.field == field
