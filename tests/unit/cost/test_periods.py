from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cost.periods import QUARTER_US, TOTAL, PeriodKind, check_zone, period_at
from services.runtime.errors import InvalidField

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/Asuncion",
    "America/St_Johns",
    "Pacific/Apia",
    "America/Sao_Paulo",
)
CALENDAR = [kind for kind in PeriodKind if kind is not PeriodKind.TOTAL]
times = st.integers(946_684_800_000_000, 2_840_140_800_000_000)
"""2000 to 2060."""


def us(text: str) -> int:
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1_000_000)


@pytest.mark.parametrize(
    ("zone", "at", "key", "starts", "ends"),
    [
        ("UTC", "2026-11-30T23:59:59+00:00", "2026-11", "2026-11-01T00:00+00:00", "2026-12-01T00:00+00:00"),
        ("Europe/Berlin", "2026-10-31T23:00+00:00", "2026-11", "2026-10-31T23:00+00:00", "2026-11-30T23:00+00:00"),
        ("Asia/Kathmandu", "2028-02-29T18:14+00:00", "2028-02", "2028-01-31T18:15+00:00", "2028-02-29T18:15+00:00"),
        ("Asia/Kathmandu", "2028-02-29T18:15+00:00", "2028-03", "2028-02-29T18:15+00:00", "2028-03-31T18:15+00:00"),
        ("America/St_Johns", "2009-11-01T02:45+00:00", "2009-11", "2009-11-01T02:30+00:00", "2009-12-01T03:30+00:00"),
        ("America/New_York", "2027-01-01T04:59+00:00", "2026-12", "2026-12-01T05:00+00:00", "2027-01-01T05:00+00:00"),
    ],
)
def test_months_begin_and_end_by_the_zones_clock(zone: str, at: str, key: str, starts: str, ends: str) -> None:
    month = period_at(us(at), PeriodKind.MONTHLY, zone)
    assert (month.key, month.starts_us, month.ends_us, month.endless) == (key, us(starts), us(ends), False)


@pytest.mark.parametrize(
    ("kind", "zone", "at", "key", "starts", "ends"),
    [
        ("daily", "Europe/Berlin", "2026-10-25T12:00+00:00", "2026-10-25", "2026-10-24T22:00", "2026-10-25T23:00"),
        ("daily", "Europe/Berlin", "2026-03-29T12:00+00:00", "2026-03-29", "2026-03-28T23:00", "2026-03-29T22:00"),
        # Clocks went from 24:00 to 01:00: the day began at one o'clock.
        ("daily", "America/Sao_Paulo", "2018-11-04T12:00+00:00", "2018-11-04", "2018-11-04T03:00", "2018-11-05T02:00"),
        # Samoa left out 2011-12-30.
        ("daily", "Pacific/Apia", "2011-12-30T09:59+00:00", "2011-12-29", "2011-12-29T10:00", "2011-12-30T10:00"),
        ("daily", "Pacific/Apia", "2011-12-30T10:00+00:00", "2011-12-31", "2011-12-30T10:00", "2011-12-31T10:00"),
        ("weekly", "UTC", "2026-11-21T05:00+00:00", "2026-W47", "2026-11-16T00:00", "2026-11-23T00:00"),
        ("weekly", "UTC", "2027-01-03T05:00+00:00", "2026-W53", "2026-12-28T00:00", "2027-01-04T00:00"),
        ("weekly", "Asia/Kathmandu", "2024-12-30T00:00+00:00", "2025-W01", "2024-12-29T18:15", "2025-01-05T18:15"),
        ("quarterly", "UTC", "2026-11-21T05:00+00:00", "2026-Q4", "2026-10-01T00:00", "2027-01-01T00:00"),
        ("quarterly", "America/New_York", "2026-04-01T03:59+00:00", "2026-Q1", "2026-01-01T05:00", "2026-04-01T04:00"),
        ("yearly", "Asia/Kathmandu", "2027-12-31T18:15+00:00", "2028", "2027-12-31T18:15", "2028-12-31T18:15"),
    ],
)
def test_periods_of_every_kind(kind: str, zone: str, at: str, key: str, starts: str, ends: str) -> None:
    period = period_at(us(at), PeriodKind(kind), zone)
    assert (period.key, period.starts_us, period.ends_us) == (key, us(f"{starts}+00:00"), us(f"{ends}+00:00"))


def test_the_total_never_ends() -> None:
    assert period_at(0, PeriodKind.TOTAL, "Asia/Kathmandu") == period_at(2**52, PeriodKind.TOTAL, "UTC") == TOTAL
    assert (TOTAL.key, TOTAL.endless) == ("total", True)


@given(times, st.sampled_from(ZONES), st.sampled_from(CALENDAR))
def test_periods_tile_time_at_quarter_hours(at_us: int, zone: str, kind: PeriodKind) -> None:
    period = period_at(at_us, kind, zone)
    assert period.starts_us <= at_us < period.ends_us
    assert period_at(period.starts_us, kind, zone) == period
    assert period_at(period.ends_us - 1, kind, zone) == period
    following = period_at(period.ends_us, kind, zone)
    assert following.starts_us == period.ends_us
    assert following.key > period.key
    assert period.starts_us % QUARTER_US == period.ends_us % QUARTER_US == 0


@given(times, st.sampled_from(ZONES), st.sampled_from(CALENDAR))
def test_every_period_is_made_of_whole_days(at_us: int, zone: str, kind: PeriodKind) -> None:
    period = period_at(at_us, kind, zone)
    days = [period_at(period.starts_us, PeriodKind.DAILY, zone)]
    while days[-1].ends_us < period.ends_us:
        days.append(period_at(days[-1].ends_us, PeriodKind.DAILY, zone))
    assert (days[0].starts_us, days[-1].ends_us) == (period.starts_us, period.ends_us)
    dates = [date.fromisoformat(day.key) for day in days]
    steps = {after - before for before, after in pairwise(dates)}
    assert steps <= ({timedelta(1), timedelta(2)} if zone == "Pacific/Apia" else {timedelta(1)})


def test_a_zone_is_checked_by_name() -> None:
    assert check_zone("", "budget.time_zone") == "UTC"
    assert check_zone("Asia/Kathmandu", "budget.time_zone") == "Asia/Kathmandu"
    for wrong in ("Mars/Olympus", "../etc/passwd", "UTC+2"):
        with pytest.raises(InvalidField) as refused:
            check_zone(wrong, "budget.time_zone")
        assert refused.value.field == "budget.time_zone"
