"""Calendar months of a budget's time zone, as keys such as "2026-11" that need no job to reset them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from zoneinfo import ZoneInfo, available_timezones

from services.runtime.errors import InvalidField

DEFAULT_ZONE = "UTC"
QUARTER_US = 15 * 60 * 1_000_000
"""Every zone's offset is a whole number of quarter-hours, so every month begins and ends at one, UTC."""

_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Month:
    """One calendar month in one zone: the times from `starts_us` to before `ends_us`, microseconds UTC."""

    key: str
    starts_us: int
    ends_us: int


def check_zone(name: str, field: str) -> str:
    """The name of an IANA time zone; an empty one means UTC. Raises InvalidField, naming `field`."""
    if not name:
        return DEFAULT_ZONE
    if name not in _zone_names():
        raise InvalidField(field, f"{name!r} is not an IANA time zone; write one such as UTC or Europe/Berlin.")
    return name


def month_at(at_us: int, zone: str) -> Month:
    """The month that holds a time. `zone` has passed `check_zone`."""
    # Whole seconds, because a float of microseconds since the epoch is not exact.
    local = datetime.fromtimestamp(at_us // 1_000_000, ZoneInfo(zone))
    month = _month(zone, local.year, local.month)
    # Where clocks are turned back on the first day (St. John's, 2009-11-01, 00:01), the wall shows the last hour of the
    # old month again; the month that has begun goes on.
    return month if at_us < month.ends_us else _month(zone, *_next(local.year, local.month))


@lru_cache(maxsize=4096)
def _month(zone: str, year: int, month: int) -> Month:
    starts_us = _first_instant_us(zone, year, month)
    return Month(f"{year:04d}-{month:02d}", starts_us, _first_instant_us(zone, *_next(year, month)))


def _first_instant_us(zone: str, year: int, month: int) -> int:
    return (datetime(year, month, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC) - _EPOCH) // _MICROSECOND


def _next(year: int, month: int) -> tuple[int, int]:
    return (year + 1, 1) if month == 12 else (year, month + 1)


@cache
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones())
