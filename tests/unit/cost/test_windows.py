"""Calendar: days add up to months and years in every zone, and windows that cannot be are refused."""

from datetime import UTC, datetime
from zoneinfo import available_timezones

import pytest

from services.cost.periods import QUARTER_US, PeriodKind, period_at
from services.cost.rollups import DAY_US, HOUR_US
from services.cost.windows import WINDOW_DEFAULT_US, AskedWindow, Window, slots_of, window_before, window_of
from services.runtime.errors import InvalidField
from tests.support.cost import NOVEMBER_US


def at_us(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize("month", ["2024-02", "2026-03", "2026-10", "2026-11", "2011-12"])
def test_days_and_weeks_add_up_to_the_month_in_every_zone(month: str) -> None:
    """With clocks that change, offsets of :30 and :45, a leap day, and a day that Samoa never had."""
    for zone in sorted(available_timezones()):
        whole = window_of(AskedWindow(period=month, zone=zone), NOVEMBER_US)
        for kind in (PeriodKind.DAILY, PeriodKind.WEEKLY, PeriodKind.MONTHLY):
            slots = slots_of(whole, kind, zone)
            borders = [whole.start_us, *[slot.ends_us for slot in slots]]
            assert [slot.starts_us for slot in slots] == borders[:-1], zone
            assert borders[-1] == whole.end_us, zone
            assert len({slot.key for slot in slots}) == len(slots), zone
            if kind is PeriodKind.DAILY:
                assert 28 <= len(slots) <= 31, zone
                assert all(slot.key.startswith(month) for slot in slots), zone
        assert whole.start_us % QUARTER_US == whole.end_us % QUARTER_US == 0, zone


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia"])
def test_months_add_up_to_the_year(zone: str) -> None:
    year = window_of(AskedWindow(period="2024", zone=zone), NOVEMBER_US)
    months = slots_of(year, PeriodKind.MONTHLY, zone)
    assert [month.key for month in months] == [f"2024-{number:02d}" for number in range(1, 13)]
    assert (months[0].starts_us, months[-1].ends_us) == (year.start_us, year.end_us)
    assert len(slots_of(year, PeriodKind.DAILY, zone)) == 366


def test_a_day_without_its_hour_is_shorter() -> None:
    spring = window_of(AskedWindow(period="2026-03-29", zone="Europe/Berlin"), NOVEMBER_US)
    autumn = window_of(AskedWindow(period="2026-10-25", zone="Europe/Berlin"), NOVEMBER_US)
    assert (spring.end_us - spring.start_us, autumn.end_us - autumn.start_us) == (23 * HOUR_US, 25 * HOUR_US)


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        ("2026-11-21", "2026-11-20T18:15", "2026-11-21T18:15"),
        ("2026-W47", "2026-11-15T18:15", "2026-11-22T18:15"),
        ("2026-Q4", "2026-09-30T18:15", "2026-12-31T18:15"),
        ("2026", "2025-12-31T18:15", "2026-12-31T18:15"),
    ],
)
def test_periods_by_their_keys(period: str, start: str, end: str) -> None:
    asked = AskedWindow(period=period, zone="Asia/Kathmandu")
    window = window_of(asked, NOVEMBER_US)
    assert window == Window(at_us(start), at_us(end))
    before = window_before(asked, window)
    assert before.end_us == window.start_us
    kind = {10: PeriodKind.DAILY, 8: PeriodKind.WEEKLY, 7: PeriodKind.QUARTERLY, 4: PeriodKind.YEARLY}[len(period)]
    assert before.start_us == period_at(window.start_us - 1, kind, asked.zone).starts_us


def test_a_window_defaults_to_thirty_days_and_widens_to_quarter_hours() -> None:
    window = window_of(AskedWindow(), NOVEMBER_US)
    assert window.start_us % QUARTER_US == window.end_us % QUARTER_US == 0
    assert window.start_us <= NOVEMBER_US - WINDOW_DEFAULT_US < NOVEMBER_US <= window.end_us
    assert window_of(AskedWindow(1, 2), NOVEMBER_US) == Window(0, QUARTER_US)
    rolling = window_of(AskedWindow(end_us=10 * DAY_US, rolling_us=DAY_US), NOVEMBER_US)
    assert rolling == Window(9 * DAY_US, 10 * DAY_US)
    assert window_before(AskedWindow(rolling_us=DAY_US), rolling) == Window(8 * DAY_US, 9 * DAY_US)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (AskedWindow(5, 5), "start_time"),
        (AskedWindow(6, 5), "start_time"),
        (AskedWindow(0, 300_000 * DAY_US), "start_time"),
        (AskedWindow(0, 400_000 * DAY_US), "end_time"),
        (AskedWindow(end_us=-62_135_596_800_000_000), "end_time"),
        (AskedWindow(end_us=DAY_US), "start_time"),
        (AskedWindow(end_us=253_402_300_799_000_000, rolling_us=DAY_US), "end_time"),
        (AskedWindow(start_us=5, rolling_us=5), "period"),
        (AskedWindow(end_us=5, period="2026"), "period"),
        (AskedWindow(period="2026-13"), "period"),
        (AskedWindow(period="2026-02-30"), "period"),
        (AskedWindow(period="2025-W53"), "period"),
        (AskedWindow(period="0001"), "period"),
        (AskedWindow(period="yesterday"), "period"),
        (AskedWindow(period="2011-12-30", zone="Pacific/Apia"), "period"),
    ],
)
def test_a_window_that_cannot_be_is_refused(asked: AskedWindow, field: str) -> None:
    with pytest.raises(InvalidField) as refused:
        window_of(asked, NOVEMBER_US)
    assert refused.value.field == field


def test_a_window_of_too_many_days_is_refused() -> None:
    with pytest.raises(InvalidField, match="400"):
        slots_of(Window(0, 401 * DAY_US), PeriodKind.DAILY, "UTC")
    assert len(slots_of(Window(0, 400 * DAY_US), PeriodKind.DAILY, "UTC")) == 400
