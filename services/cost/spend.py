"""Rollups of usage events, and the windows and groups in which spend is asked for.

Every event is added to the quarter of an hour and to the day (UTC) in which it occurred, by model and by tag, in the
transaction that records it. A quarter of an hour, because every time zone's offset is a whole number of them: months of
any zone can be summed from such rollups. A window is read as whole days and the quarter-hours at its ends, never from
raw events.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from services.cost.events import UsageEvent
from services.cost.periods import QUARTER_US
from services.cost.usage import COUNT_FIELDS
from services.runtime.errors import InvalidField

DAY_US = 96 * QUARTER_US
WINDOW_DEFAULT_US = 30 * DAY_US
WINDOW_MAX_US = 3_660 * DAY_US


class Grain(StrEnum):
    """The width of a rollup; the values are stored."""

    QUARTER = "q"
    DAY = "d"


class Dimension(StrEnum):
    """What spend can be grouped by."""

    DAY = "day"
    PROVIDER = "provider"
    MODEL = "model"
    TAG = "tag"


@dataclass(frozen=True, slots=True)
class SpendFilter:
    """Which usage counts: what fits every text that is not empty."""

    provider: str = ""
    model: str = ""
    """The provider's name of the model; narrows `provider` further, or finds it at every provider."""
    user_id: str = ""
    key_id: str = ""
    run_id: str = ""
    tag: str = ""
    """"key=value"."""


EVERYTHING = SpendFilter()


@dataclass(slots=True)
class Sums:
    """Totals of some events. An unpriced call adds no money, so `cost_nano_usd` is then a lower bound."""

    calls: int = 0
    unpriced_calls: int = 0
    cost_nano_usd: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * len(COUNT_FIELDS))

    def add(self, event: UsageEvent) -> None:
        """Count one event in."""
        self.calls += event.calls
        self.unpriced_calls += event.unpriced_calls
        self.cost_nano_usd += event.cost.nano_usd
        counts = self.counts
        for index, count in enumerate(event.usage.counts()):
            if count:
                counts[index] += count

    def merge(self, other: "Sums") -> None:
        """Count in what another has counted."""
        self.calls += other.calls
        self.unpriced_calls += other.unpriced_calls
        self.cost_nano_usd += other.cost_nano_usd
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]


K = TypeVar("K", bound=tuple[Any, ...])
ModelKey = tuple[Grain, int, str, str]
"""Grain, beginning of the bucket in microseconds UTC, provider, model."""
TagKey = tuple[Grain, int, str]
"""Grain, beginning of the bucket in microseconds UTC, "key=value"."""


@dataclass(frozen=True, slots=True)
class Deltas:
    """What a transaction adds to the rollups, by their keys: so two transactions lock rows in the same order."""

    models: list[tuple[ModelKey, Sums]]
    tags: list[tuple[TagKey, Sums]]


def deltas_of(events: Iterable[UsageEvent]) -> Deltas:
    """Sum events into the rollups that they belong to."""
    models: dict[tuple[int, str, str], Sums] = {}
    tags: dict[tuple[int, str], Sums] = {}
    for event in events:
        quarter_us = event.occurred_us - event.occurred_us % QUARTER_US
        _sums(models, (quarter_us, event.provider, event.model)).add(event)
        for name, value in event.attribution.tags:
            _sums(tags, (quarter_us, f"{name}={value}")).add(event)
    return Deltas(sorted(_with_days(models), key=_key), sorted(_with_days(tags), key=_key))


def _with_days(by_quarter: dict[K, Sums]) -> Iterator[tuple[Any, Sums]]:
    """The sums of the quarter-hours, and those of their days."""
    by_day: dict[tuple[Any, ...], Sums] = {}
    for (quarter_us, *names), sums in by_quarter.items():
        yield (Grain.QUARTER, quarter_us, *names), sums
        _sums(by_day, (Grain.DAY, quarter_us - quarter_us % DAY_US, *names)).merge(sums)
    yield from by_day.items()


def _sums(rollups: dict[K, Sums], key: K) -> Sums:
    found = rollups.get(key)
    if found is None:
        found = rollups[key] = Sums()
    return found


def _key(item: tuple[ModelKey | TagKey, Sums]) -> ModelKey | TagKey:
    return item[0]


@dataclass(frozen=True, slots=True)
class Window:
    """From `start_us` to before `end_us`, whole quarter-hours, microseconds UTC."""

    start_us: int
    end_us: int

    def spans(self) -> list[tuple[Grain, int, int]]:
        """The rollups that make up the window, as (grain, from, before): whole days, and quarter-hours beside them."""
        first_day_us = -(-self.start_us // DAY_US) * DAY_US
        last_day_us = self.end_us // DAY_US * DAY_US
        if first_day_us >= last_day_us:
            return [(Grain.QUARTER, self.start_us, self.end_us)] if self.start_us < self.end_us else []
        spans = [(Grain.DAY, first_day_us, last_day_us)]
        if self.start_us < first_day_us:
            spans.append((Grain.QUARTER, self.start_us, first_day_us))
        if last_day_us < self.end_us:
            spans.append((Grain.QUARTER, last_day_us, self.end_us))
        return spans


def window_of(start_us: int | None, end_us: int | None, now_us: int) -> Window:
    """The window asked for, widened to whole quarter-hours.

    Without an end it ends now, without a start it is 30 days long. Raises InvalidField for one that is empty or longer
    than ten years.
    """
    end = now_us if end_us is None else end_us
    start = end - WINDOW_DEFAULT_US if start_us is None else start_us
    if start >= end:
        raise InvalidField("start_time", "The start has to be before the end.")
    window = Window(start // QUARTER_US * QUARTER_US, -(-end // QUARTER_US) * QUARTER_US)
    if window.end_us - window.start_us > WINDOW_MAX_US:
        raise InvalidField("start_time", f"Ask for at most {WINDOW_MAX_US // DAY_US} days at once.")
    return window


def check_groups(group_by: Sequence[Dimension]) -> tuple[Dimension, ...]:
    """Distinct dimensions, and tags with days only; else InvalidField.

    An event with two tags is in two tag rollups, which know no model.
    """
    if len(set(group_by)) != len(group_by):
        raise InvalidField("group_by", "Name each dimension once.")
    if Dimension.TAG in group_by and not set(group_by) <= {Dimension.TAG, Dimension.DAY}:
        raise InvalidField("group_by", "Tags can be combined with days only.")
    return tuple(group_by)


@dataclass(frozen=True, slots=True)
class SpendRow:
    """The sums of one group, and the values of its dimensions."""

    keys: tuple[str | int, ...]
    """A day is the number of days since 1970-01-01, a model is "provider/model"."""
    sums: Sums


@dataclass(frozen=True, slots=True)
class SpendQuery:
    """What is asked: a window (None: its default), the grouping, and one page of the groups."""

    start_us: int | None
    end_us: int | None
    group_by: tuple[Dimension, ...]
    page_size: int
    after: tuple[str | int, ...] = ()
    """The keys of the last group of the page before; empty for the first page."""


@dataclass(frozen=True, slots=True)
class SpendSummary:
    """What was spent; without a grouping it has no rows, only the total."""

    rows: list[SpendRow]
    more: bool
    """Whether groups follow."""
    total: Sums
    """Everything in the window, each call once."""
    held_nano_usd: int
    """Held in the project by calls under way now."""
    window: Window
    """The window that was summed."""
