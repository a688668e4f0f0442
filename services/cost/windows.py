"""Windows of time in which spend is asked for: calendar periods, rolling windows, and their division into periods."""

import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Final
from zoneinfo import ZoneInfo

from services.cost.periods import QUARTER_US, Period, PeriodKind, period_at
from services.cost.rollups import DAY_US
from services.runtime.errors import InvalidField

WINDOW_DEFAULT_US: Final = 30 * DAY_US
WINDOW_MAX_US: Final = 3_660 * DAY_US
_FIRST_YEAR: Final = 1970
_LAST_YEAR: Final = 2999
# A week of these years, or a year in another zone, begins some days earlier, or ends some days later.
_FIRST_US: Final = -7 * DAY_US
_LAST_US: Final = int(datetime(_LAST_YEAR + 1, 1, 8, tzinfo=UTC).timestamp()) * 1_000_000
SLOTS_MAX: Final = 400
"""Days, weeks or months into which a window can be divided."""

_PERIODS: Final = (
    (PeriodKind.DAILY, re.compile(r"(\d{4})-(\d{2})-(\d{2})")),
    (PeriodKind.WEEKLY, re.compile(r"(\d{4})-W(\d{2})")),
    (PeriodKind.MONTHLY, re.compile(r"(\d{4})-(\d{2})")),
    (PeriodKind.QUARTERLY, re.compile(r"(\d{4})-Q([1-4])")),
    (PeriodKind.YEARLY, re.compile(r"(\d{4})")),
)


@dataclass(frozen=True, slots=True)
class Window:
    """From `start_us` to before `end_us`, microseconds UTC."""

    start_us: int
    end_us: int


@dataclass(frozen=True, slots=True)
class AskedWindow:
    """A window as it is asked for: a calendar period by its key, or times, or a length. Microseconds UTC."""

    start_us: int | None = None
    end_us: int | None = None
    """None: now."""
    rolling_us: int = 0
    """The length of the window before `end_us`; 0 for none."""
    period: str = ""
    """2026-11-21, 2026-W47, 2026-11, 2026-Q4 or 2026, in `zone`."""
    zone: str = "UTC"

    def fixed(self, window: Window) -> "AskedWindow":
        """The same question about a window that no longer moves on with the time, for the pages that follow."""
        return replace(self, start_us=window.start_us, end_us=window.end_us, rolling_us=0, period="")


def window_of(asked: AskedWindow, now_us: int) -> Window:
    """The window asked for, widened to whole quarter-hours; by default the 30 days before its end.

    Raises InvalidField for one that is empty, longer than ten years, outside the years 1970 - 2999, or asked for in
    two ways.
    """
    ways = sum((asked.start_us is not None, asked.rolling_us != 0, asked.period != ""))
    if ways > 1 or (asked.period and asked.end_us is not None):
        raise InvalidField("period", "Ask for times, for a rolling window or for a period, not for several of them.")
    if asked.period:
        period = _period_of(asked.period, asked.zone)
        return Window(period.starts_us, period.ends_us)
    end = now_us if asked.end_us is None else asked.end_us
    start = end - (asked.rolling_us or WINDOW_DEFAULT_US) if asked.start_us is None else asked.start_us
    for field, at_us in (("end_time", end), ("start_time", start)):
        if not _FIRST_US <= at_us <= _LAST_US:
            raise InvalidField(field, f"Ask for times in the years {_FIRST_YEAR} - {_LAST_YEAR}.")
    if start >= end:
        field = "rolling" if asked.rolling_us else "start_time"
        raise InvalidField(field, "The window is empty: its start has to be before its end.")
    window = Window(start // QUARTER_US * QUARTER_US, -(-end // QUARTER_US) * QUARTER_US)
    if window.end_us - window.start_us > WINDOW_MAX_US:
        raise InvalidField("start_time", f"Ask for at most {WINDOW_MAX_US // DAY_US:,} days at once.")
    return window


def window_before(asked: AskedWindow, window: Window) -> Window:
    """What a window is compared with: the calendar period before, or as much time right before it."""
    if not asked.period:
        return Window(2 * window.start_us - window.end_us, window.start_us)
    kind, _ = _parsed(asked.period)
    before = period_at(window.start_us - 1, kind, asked.zone)
    return Window(before.starts_us, before.ends_us)


def slots_of(window: Window, kind: PeriodKind, zone: str) -> list[Period]:
    """The periods that a window touches, in order, the first and the last cut to the window.

    Raises InvalidField for more than 400.
    """
    slots: list[Period] = []
    at_us = window.start_us
    while at_us < window.end_us:
        period = period_at(at_us, kind, zone)
        slots.append(Period(period.key, at_us, min(period.ends_us, window.end_us)))
        if len(slots) > SLOTS_MAX:
            raise InvalidField(
                "group_by", f"The window has more than {SLOTS_MAX} such periods; shorten it, or use longer periods."
            )
        at_us = period.ends_us
    return slots


def _period_of(text: str, zone: str) -> Period:
    kind, first_day = _parsed(text)
    noon = datetime(first_day.year, first_day.month, first_day.day, 12, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    period = period_at(int(noon.timestamp()) * 1_000_000, kind, zone)
    if period.key != text:
        raise _not_a_period(text)
    return period


def _parsed(text: str) -> tuple[PeriodKind, date]:
    """The kind of a period and its first day."""
    for kind, pattern in _PERIODS:
        found = pattern.fullmatch(text)
        if found is None:
            continue
        numbers = [int(number) for number in found.groups()]
        try:
            return kind, _first_day(kind, numbers)
        except ValueError:
            break
    raise _not_a_period(text)


def _first_day(kind: PeriodKind, numbers: list[int]) -> date:
    """ValueError where there is no such day, and for years that leave no room for the periods beside them."""
    if not _FIRST_YEAR <= numbers[0] <= _LAST_YEAR:
        raise ValueError("too far away")
    match kind:
        case PeriodKind.WEEKLY:
            return date.fromisocalendar(numbers[0], numbers[1], 1)
        case PeriodKind.QUARTERLY:
            return date(numbers[0], 3 * numbers[1] - 2, 1)
        case _:
            return date(*[*numbers, 1, 1][:3])


def _not_a_period(text: str) -> InvalidField:
    return InvalidField(
        "period", f"{text!r} is no calendar period; write one such as 2026-11-21, 2026-W47, 2026-11, 2026-Q4 or 2026."
    )
