from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cost.periods import QUARTER_US, check_zone, month_at
from services.runtime.errors import InvalidField

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Asuncion")


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
    month = month_at(us(at), zone)
    assert (month.key, month.starts_us, month.ends_us) == (key, us(starts), us(ends))


@given(st.integers(us("2000-01-01T00:00+00:00"), us("2060-01-01T00:00+00:00")), st.sampled_from(ZONES))
def test_months_tile_time_at_quarter_hours(at_us: int, zone: str) -> None:
    month = month_at(at_us, zone)
    assert month.starts_us <= at_us < month.ends_us
    assert month_at(month.starts_us, zone) == month
    assert month_at(month.ends_us - 1, zone) == month
    assert month_at(month.ends_us, zone).starts_us == month.ends_us
    assert month.starts_us % QUARTER_US == month.ends_us % QUARTER_US == 0


def test_a_zone_is_checked_by_name() -> None:
    assert check_zone("", "budget.time_zone") == "UTC"
    assert check_zone("Asia/Kathmandu", "budget.time_zone") == "Asia/Kathmandu"
    for wrong in ("Mars/Olympus", "../etc/passwd", "UTC+2"):
        with pytest.raises(InvalidField) as refused:
            check_zone(wrong, "budget.time_zone")
        assert refused.value.field == "budget.time_zone"
