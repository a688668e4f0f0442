"""What can be asked about spend: by what it is grouped and filtered, in which window, in which order."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum

from services.cost.periods import PeriodKind
from services.cost.rollups import TAG
from services.cost.usage import COUNT_FIELDS
from services.cost.windows import AskedWindow, Window
from services.runtime.errors import InvalidField


class Dimension(StrEnum):
    """What spend can be grouped by."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    PROJECT = "project"
    PROVIDER = "provider"
    MODEL = "model"
    USER = "user"
    KEY = "key"
    RUN = "run"
    TAG = "tag"

    @property
    def period(self) -> PeriodKind | None:
        """The calendar period that it stands for; None for what is not of time."""
        return _PERIODS.get(self)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of events and rollups that tell its groups apart."""
        return _COLUMNS.get(self, ())


_PERIODS = {
    Dimension.DAY: PeriodKind.DAILY,
    Dimension.WEEK: PeriodKind.WEEKLY,
    Dimension.MONTH: PeriodKind.MONTHLY,
}
_COLUMNS = {
    Dimension.PROVIDER: ("provider",),
    Dimension.MODEL: ("provider", "model"),
    Dimension.USER: ("user_id",),
    Dimension.KEY: ("key_id",),
    Dimension.RUN: ("run_id",),
    Dimension.TAG: (TAG,),
}


class TagShare(StrEnum):
    """How much of an event's cost each of its tags is given."""

    FULL = "full"
    """All of it: the tags' costs add up to more than the total where events have several."""
    SPLIT = "split"
    """An equal part, and to the first tag what is left of the division: they add up to the total exactly."""


class Order(StrEnum):
    """In which order groups come."""

    KEYS = "keys"
    COST = "cost"
    """The most expensive first, then by keys."""


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

    def conditions(self) -> dict[str, str]:
        """The values wanted, by column."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name))}


EVERYTHING = SpendFilter()


@dataclass(slots=True)
class Sums:
    """Totals of some events. An unpriced call adds no money, so `cost_nano_usd` is then a lower bound."""

    calls: int = 0
    unpriced_calls: int = 0
    cost_nano_usd: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * len(COUNT_FIELDS))


def sum_of(parts: Iterable[Sums]) -> Sums:
    """Their totals."""
    total = Sums()
    for part in parts:
        total.calls += part.calls
        total.unpriced_calls += part.unpriced_calls
        total.cost_nano_usd += part.cost_nano_usd
        total.counts = [one + other for one, other in zip(total.counts, part.counts, strict=True)]
    return total


@dataclass(frozen=True, slots=True)
class SpendQuery:
    """What is asked, and which page of the groups."""

    asked: AskedWindow
    group_by: tuple[Dimension, ...] = ()
    spend_filter: SpendFilter = EVERYTHING
    tag_share: TagShare = TagShare.FULL
    order: Order = Order.KEYS
    compare: bool = False
    """Whether each group and the total are compared with the window before."""
    page_size: int = 100
    after: tuple[str | int, ...] = ()
    """The position of the last group of the page before; empty for the first page."""

    @property
    def period(self) -> PeriodKind | None:
        """The calendar period that groups are divided by; None for none."""
        return next((one.period for one in self.group_by if one.period), None)

    def check(self) -> "SpendQuery":
        """Itself; InvalidField where its parts do not go together."""
        _check_groups(self.group_by)
        if self.compare and self.period:
            raise InvalidField("compare", "Both windows need to have the groups; leave out day, week, month.")
        if self.tag_share is TagShare.SPLIT and Dimension.TAG not in self.group_by:
            raise InvalidField("tag_share", "Only groups by tag can be split; add the tag to the groups.")
        return self


def _check_groups(group_by: Sequence[Dimension]) -> None:
    if len(set(group_by)) != len(group_by):
        raise InvalidField("group_by", "Name each dimension once.")
    if sum(1 for one in group_by if one.period) > 1:
        raise InvalidField("group_by", "Group by one of day, week and month.")


@dataclass(frozen=True, slots=True)
class SpendRow:
    """The sums of one group, and the values of its dimensions."""

    keys: tuple[str, ...]
    """In the order of the dimensions: a period's key, "provider/model", an id, "key=value"."""
    position: tuple[str | int, ...]
    """Where the next page goes on after this group."""
    sums: Sums
    before: Sums | None = None
    """The group in the window before, without token counts, where a comparison is asked for."""


@dataclass(frozen=True, slots=True)
class SpendSummary:
    """What was spent; without a grouping it has no rows, only the total."""

    rows: list[SpendRow]
    more: bool
    """Whether groups follow."""
    total: Sums
    """Everything in the window that fits the filter, each call once."""
    before: Sums | None
    """The same of the window before, where a comparison is asked for."""
    held_nano_usd: int
    """Held in the project by calls under way now."""
    window: Window
    """The window that was summed."""
    window_before: Window | None
