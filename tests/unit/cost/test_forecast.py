import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.cost.forecast import HISTORY_MAX_HOURS, HISTORY_MIN_HOURS, WEEK_HOURS, Path, forecast
from services.runtime.errors import WrongState

USD = 1_000_000_000


def hours(count: int, seed: int = 0, *, noise: float = 0.2) -> list[int]:
    """Working days of 24 USD, weekends of 12 USD."""
    chance = random.Random(seed)
    return [
        round(USD * (1.0 if hour // 24 % 7 < 5 else 0.5) * max(0.0, 1 + noise * chance.gauss(0, 1)))
        for hour in range(count)
    ]


def test_a_season_that_repeats_itself_is_known_exactly() -> None:
    season = hours(8 * WEEK_HOURS, noise=0)
    found = forecast(season, spent=5 * USD, spent_now=5 * USD, hours_left=250.5, level_percent=80)
    expected = 5 * USD + sum(season[:250]) + season[250] // 2
    assert (found.point_nano_usd, found.lower_nano_usd, found.upper_nano_usd) == (expected, expected, expected)
    assert found.history_hours == 8 * WEEK_HOURS
    assert found.origins > 50


def test_recent_weeks_weigh_more() -> None:
    history = [USD] * (4 * WEEK_HOURS) + [2 * USD] * WEEK_HOURS
    found = forecast(history, spent=0, spent_now=0, hours_left=10, level_percent=80)
    assert found.point_nano_usd == pytest.approx(10 * USD * (2 * 8 + 4 + 2 + 1) / 15, rel=1e-9)
    assert found.lower_nano_usd < found.point_nano_usd < found.upper_nano_usd


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 10**15), min_size=HISTORY_MIN_HOURS, max_size=HISTORY_MIN_HOURS + 50),
    st.floats(0, 9_000),
    st.integers(0, 10**15),
    st.integers(0, 10**12),
)
def test_what_is_spent_is_never_unspent_and_levels_are_nested(
    history: list[int], hours_left: float, spent: int, since: int
) -> None:
    narrow, wide = (
        forecast(history, spent=spent, spent_now=spent + since, hours_left=hours_left, level_percent=level)
        for level in (50, 95)
    )
    assert spent + since <= wide.lower_nano_usd <= narrow.lower_nano_usd <= narrow.point_nano_usd
    assert narrow.point_nano_usd <= narrow.upper_nano_usd <= wide.upper_nano_usd


@given(st.lists(st.integers(0, 10**12), min_size=WEEK_HOURS, max_size=3 * WEEK_HOURS), st.floats(0, 400))
def test_a_path_is_the_sum_of_its_hours(history: list[int], length: float) -> None:
    path = Path(history)
    parts = [path.total(len(history), hour + 1) - path.total(len(history), hour) for hour in range(int(length))]
    assert min(parts, default=0) >= -1
    assert path.total(len(history), length) >= path.total(len(history), int(length))
    assert sum(parts) == pytest.approx(path.total(len(history), int(length)), rel=1e-6, abs=1)


@pytest.mark.parametrize("count", [0, 1, HISTORY_MIN_HOURS - 1])
def test_less_than_two_weeks_is_refused(count: int) -> None:
    with pytest.raises(WrongState) as refused:
        forecast(hours(count), spent=0, spent_now=0, hours_left=100, level_percent=80)
    assert refused.value.reason == "INSUFFICIENT_HISTORY"
    assert refused.value.metadata == {"history_hours": str(count), "needed_hours": "336"}
    assert "two weeks" in refused.value.message


def test_two_weeks_are_enough_and_older_than_a_quarter_is_left_out() -> None:
    assert forecast(hours(HISTORY_MIN_HOURS), spent=0, spent_now=0, hours_left=9_000, level_percent=80).origins >= 8
    found = forecast([10**15] * 999 + hours(HISTORY_MAX_HOURS), spent=0, spent_now=0, hours_left=9, level_percent=80)
    assert found.history_hours == HISTORY_MAX_HOURS
    assert found.upper_nano_usd < 20 * USD


def test_the_interval_covers_what_it_says_it_covers() -> None:
    covered = 0
    for seed in range(120):
        season = hours(8 * WEEK_HOURS, seed)
        left = random.Random(seed).randrange(12, 500)
        history, rest = season[:-left], season[-left:]
        found = forecast(history, spent=0, spent_now=0, hours_left=left, level_percent=80)
        covered += found.lower_nano_usd <= sum(rest) <= found.upper_nano_usd
    assert 80 <= covered <= 115
