"""Calendar periods of a time zone, as keys such as "2026-11" that need no job to reset them."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import cache, lru_cache
from zoneinfo import ZoneInfo, available_timezones

from services.runtime.errors import InvalidField

DEFAULT_ZONE = "UTC"
QUARTER_US = 15 * 60 * 1_000_000
"""Every zone's offset is a whole number of quarter-hours, so every period begins and ends at one, UTC."""
FOREVER_US = 96 * QUARTER_US * 3_000_000
"""The end of a period that never ends: whole days since 1970, some 8,000 years."""

_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class PeriodKind(StrEnum):
    """How long a period is; the values are stored."""

    DAILY = "daily"
    WEEKLY = "weekly"
    """ISO weeks, from Monday on."""
    MONTHLY = "monthly"
    QUARTERLY = "quarterly"
    YEARLY = "yearly"
    TOTAL = "total"
    """One period that never ends."""


@dataclass(frozen=True, slots=True)
class Period:
    """One period in one zone: the times from `starts_us` to before `ends_us`, microseconds UTC."""

    key: str
    """2026-11-21, 2026-W47, 2026-11, 2026-Q4, 2026 or total."""
    starts_us: int
    ends_us: int

    @property
    def endless(self) -> bool:
        """Whether no other period follows."""
        return self.ends_us == FOREVER_US


TOTAL = Period("total", 0, FOREVER_US)


def check_zone(name: str, field: str) -> str:
    """The name of an IANA time zone; an empty one means UTC. Raises InvalidField, naming `field`."""
    if not name:
        return DEFAULT_ZONE
    if name not in _zone_names():
        raise InvalidField(field, f"{name!r} is not an IANA time zone; write one such as UTC or Europe/Berlin.")
    return name


def period_at(at_us: int, kind: PeriodKind, zone: str) -> Period:
    """The period that holds a time. `zone` has passed `check_zone`."""
    # Periods begin at quarter-hours, and most calls of a time fall into one.
    return _period_of_quarter(at_us - at_us % QUARTER_US, kind, zone)


@lru_cache(maxsize=16_384)
def _period_of_quarter(at_us: int, kind: PeriodKind, zone: str) -> Period:
    if kind is PeriodKind.TOTAL:
        return TOTAL
    # Whole seconds, because a float of microseconds since the epoch is not exact.
    first_day = _first_day(kind, datetime.fromtimestamp(at_us // 1_000_000, ZoneInfo(zone)).date())
    period = _period(kind, zone, first_day)
    # Where clocks are turned back on the first day (St. John's, 2009-11-01, 00:01), the wall shows the last hour of the
    # old period again; the one that has begun goes on.
    while at_us >= period.ends_us:
        first_day = _next(kind, first_day)
        period = _period(kind, zone, first_day)
    return period


@lru_cache(maxsize=16_384)
def _period(kind: PeriodKind, zone: str, first_day: date) -> Period:
    ends_us = _first_instant_us(zone, _next(kind, first_day))
    return Period(_key(kind, first_day), _first_instant_us(zone, first_day), ends_us)


def _first_day(kind: PeriodKind, day: date) -> date:
    """The first day of the period that holds a day."""
    match kind:
        case PeriodKind.WEEKLY:
            return day - timedelta(days=day.weekday())
        case PeriodKind.MONTHLY:
            return day.replace(day=1)
        case PeriodKind.QUARTERLY:
            return day.replace(month=_first_month_of_quarter(day), day=1)
        case PeriodKind.YEARLY:
            return day.replace(month=1, day=1)
        case _:
            return day


def _next(kind: PeriodKind, first_day: date) -> date:
    """The first day of the period that follows."""
    match kind:
        case PeriodKind.WEEKLY:
            return first_day + timedelta(days=7)
        case PeriodKind.MONTHLY:
            return (first_day + timedelta(days=31)).replace(day=1)
        case PeriodKind.QUARTERLY:
            return (first_day + timedelta(days=3 * 31)).replace(day=1)
        case PeriodKind.YEARLY:
            return first_day.replace(year=first_day.year + 1)
        case _:
            return first_day + timedelta(days=1)


def _key(kind: PeriodKind, first_day: date) -> str:
    match kind:
        case PeriodKind.WEEKLY:
            year, week, _ = first_day.isocalendar()
            return f"{year:04d}-W{week:02d}"
        case PeriodKind.MONTHLY:
            return first_day.strftime("%Y-%m")
        case PeriodKind.QUARTERLY:
            return f"{first_day.year:04d}-Q{(first_day.month + 2) // 3}"
        case PeriodKind.YEARLY:
            return f"{first_day.year:04d}"
        case _:
            return first_day.isoformat()


def _first_month_of_quarter(day: date) -> int:
    return (day.month - 1) // 3 * 3 + 1


def _first_instant_us(zone: str, day: date) -> int:
    midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
    return (midnight.astimezone(UTC) - _EPOCH) // _MICROSECOND


@cache
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones())
