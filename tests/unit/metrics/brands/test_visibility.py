import numpy as np
import pytest

from services.metrics.brands.observations import NOT_JUDGED, Observations
from services.metrics.brands.visibility import FIGURES_MAX, difference_interval, share, summarize_brands
from services.metrics.intervals import Interval
from services.metrics.summaries import Estimate
from services.runtime.errors import InvalidField, ResourceExhausted


def observations(
    cells: int,
    found: list[tuple[int, int, int, int]],
    *,
    prompts: int = 1,
    clusters: int = 0,
    missing: tuple[int, ...] = (),
) -> Observations:
    """Found are (cell, brand, mentions, position)."""
    columns = np.array(found, np.int64).reshape(-1, 4).T
    return Observations(
        prompts=np.zeros(cells, np.int64),
        models=np.zeros(cells, np.int64),
        clusters=np.arange(cells) % clusters if clusters else np.zeros(0, np.int64),
        missing=np.array(missing, np.int64),
        found_in=columns[0],
        found_brand=columns[1],
        found_mentions=columns[2],
        found_position=columns[3],
        found_citations=np.zeros(len(columns[0]), np.int64),
        found_sentiment=np.full(len(columns[0]), NOT_JUDGED),
    )


def test_not_measured_is_not_zero() -> None:
    (visibility,) = summarize_brands(observations(2, [], missing=(0, 1)), None, (1, 1, 1), 0.95)
    figures = visibility.figures
    assert (figures.answers, figures.missing) == (0, 2)
    for estimate in (figures.mention_rate, figures.absence_rate, figures.average_position, figures.share_of_mentions):
        assert estimate.value is None
        assert estimate.withheld_reason


def test_a_brand_that_nobody_mentions() -> None:
    (visibility,) = summarize_brands(observations(10, []), None, (1, 1, 1), 0.95)
    rate = visibility.figures.mention_rate
    assert (rate.value, rate.interval.low) == (0.0, 0.0)
    assert rate.interval.high == pytest.approx(0.2775, abs=1e-4)  # Wilson
    assert visibility.figures.average_position.value is None


def test_absence_mirrors_the_mention_rate() -> None:
    (visibility,) = summarize_brands(observations(10, [(0, 0, 1, 1)]), None, (1, 1, 1), 0.95)
    rate, absence = visibility.figures.mention_rate, visibility.figures.absence_rate
    assert absence.value == pytest.approx(0.9)
    assert rate.interval.high is not None
    assert absence.interval.low == pytest.approx(1 - rate.interval.high)


def test_repeats_of_one_prompt_are_not_independent() -> None:
    found = [(cell, 0, 1, 1) for cell in range(0, 40, 2)]
    (alone,) = summarize_brands(observations(40, found), None, (1, 1, 1), 0.95)
    (clustered,) = summarize_brands(observations(40, found, clusters=4), None, (1, 1, 1), 0.95)
    assert clustered.figures.mention_rate.method == "wilson-clustered"
    assert _width(clustered.figures.mention_rate) > 2 * _width(alone.figures.mention_rate)


def _width(estimate: Estimate) -> float:
    assert estimate.interval.low is not None
    assert estimate.interval.high is not None
    return estimate.interval.high - estimate.interval.low


def test_both_shares_of_voice() -> None:
    # One brand is named nine times in one answer, the other once in each of three.
    found = [(0, 0, 9, 1), (1, 1, 1, 1), (2, 1, 1, 1), (3, 1, 1, 1)]
    first, second = summarize_brands(observations(4, found), None, (2, 1, 1), 0.95)
    assert first.figures.share_of_mentions.value == pytest.approx(9 / 12)
    assert first.figures.share_of_presence.value == pytest.approx(1 / 4)
    assert second.figures.share_of_presence.value == pytest.approx(3 / 4)


def test_the_share_of_a_brand_alone_is_one_with_room_for_doubt() -> None:
    estimate = share(np.array([1.0, 2.0, 1.0]), np.array([1.0, 2.0, 1.0]), None, 0.95)
    assert estimate.value == 1.0
    assert estimate.interval.low is not None
    assert 0.2 < estimate.interval.low < 0.9


def test_coverage_of_the_share() -> None:
    rng = np.random.default_rng(7)
    held = 0
    rounds = 400
    for _ in range(rounds):
        wholes = rng.poisson(3.0, 80).astype(np.float64)
        parts = rng.binomial(wholes.astype(np.int64), 0.3).astype(np.float64)
        interval = share(parts, wholes, None, 0.95).interval
        assert interval.low is not None
        assert interval.high is not None
        held += interval.low <= 0.3 <= interval.high
    assert 0.92 <= held / rounds <= 0.98


def test_newcombe_s_published_example() -> None:
    # R. G. Newcombe (1998), table II, example (a): 56/70 against 48/80, method 10.
    def rate(value: float, low: float, high: float) -> Estimate:
        return Estimate(value, Interval(low, high), "wilson", 1, 1, 0)

    interval = difference_interval(rate(0.8, 0.69182, 0.87681), rate(0.6, 0.49045, 0.70035))
    assert interval.low == pytest.approx(0.0524, abs=1e-3)
    assert interval.high == pytest.approx(0.3339, abs=1e-3)


def test_changes_are_told_from_noise() -> None:
    many = observations(200, [(cell, 0, 1, 1) for cell in range(150)])
    few = observations(200, [(cell, 0, 1, 1) for cell in range(60)])
    (same,) = summarize_brands(many, observations(200, [(cell, 0, 1, 1) for cell in range(145)]), (1, 1, 1), 0.95)
    (changed,) = summarize_brands(many, few, (1, 1, 1), 0.95)
    assert same.change is not None
    assert same.change.within_noise
    assert changed.change is not None
    assert not changed.change.within_noise
    assert changed.change.difference == pytest.approx(0.45)


def test_nothing_to_compare_with_is_noise() -> None:
    (visibility,) = summarize_brands(observations(3, []), observations(0, []), (1, 1, 1), 0.95)
    assert visibility.change is not None
    assert visibility.change.within_noise
    assert visibility.change.difference is None


def test_co_mentions_are_sorted_by_how_often() -> None:
    found = [(0, 0, 1, 1), (1, 0, 1, 1), (0, 1, 1, 2), (1, 2, 1, 2), (0, 2, 1, 3)]
    first, *_ = summarize_brands(observations(3, found), None, (3, 1, 1), 0.95)
    assert [(each.brand, each.answers, each.rate.value) for each in first.co_mentions] == [(2, 2, 1.0), (1, 1, 0.5)]


def test_too_many_figures_are_refused() -> None:
    with pytest.raises(ResourceExhausted):
        summarize_brands(observations(1, []), None, (FIGURES_MAX, 1, 1), 0.95)


def test_a_brand_twice_in_one_answer_is_refused() -> None:
    with pytest.raises(InvalidField) as caught:
        summarize_brands(observations(1, [(0, 0, 1, 1), (0, 0, 1, 1)]), None, (1, 1, 1), 0.95)
    assert caught.value.field == "run.found_in"
