"""Pricing anew what is on record: a difference that can be looked at, applied, and taken back.

An event is never changed. What another price makes of it is an adjustment beside it: the difference, charged to whom
and when the event was, so that sums and budgets of its period change. A reversal adds the opposite of each adjustment.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Final, NamedTuple

from services.cost.events import REPRICING_SOURCE, Cost, UsageEvent
from services.cost.pricing.catalogue import PriceSource
from services.cost.pricing.estimates import priced
from services.cost.pricing.prices import Breakdown
from services.cost.usage import NO_USAGE
from services.runtime.errors import InvalidField, WrongState

WINDOW_MAX_US: Final = 400 * 86_400_000_000

Place = tuple[int, str, str]
"""When an event occurred, its source and its id: the order in which events are looked at."""
BEGINNING: Final[Place] = (-(2**62), "", "")


def place_of(event: UsageEvent) -> Place:
    """Where an event is in that order."""
    return event.occurred_us, event.source, event.event_id


class RepricingState(StrEnum):
    """Where a repricing is; the values are stored."""

    APPLYING = "applying"
    APPLIED = "applied"
    REVERSING = "reversing"
    REVERSED = "reversed"


UNFINISHED = frozenset({RepricingState.APPLYING, RepricingState.REVERSING})


@dataclass(frozen=True, slots=True)
class RepricingFilter:
    """Which events are priced anew. Empty text lets every value through."""

    start_us: int
    """From this time on, microseconds UTC, by when they occurred."""
    end_us: int
    """Before this time."""
    provider: str = ""
    model: str = ""
    """The model that was asked for."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What an event counts as now: its own cost, and the adjustments made since."""

    nano_usd: int
    priced: bool


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What changes for one event."""

    event: UsageEvent
    """The event as it is on record."""
    nano_usd: int
    """What is added; negative where the event becomes cheaper."""
    unpriced_calls: int
    """-1 where the event had no price until now, +1 where that is taken back, else 0."""
    price_version: str

    def opposite(self) -> "Adjustment":
        """What takes it back."""
        return replace(self, nano_usd=-self.nano_usd, unpriced_calls=-self.unpriced_calls)

    def record(self, event_id: str, now_us: int) -> UsageEvent:
        """The row of usage that the sums add up: no call and no tokens, the difference in money."""
        return self.event._replace(
            source=REPRICING_SOURCE,
            event_id=event_id,
            digest=b"",
            usage=NO_USAGE,
            cost=Cost(self.nano_usd, priced=True, price_version=self.price_version),
            breakdown=Breakdown(),
            held_nano_usd=0,
            recorded_us=now_us,
            calls=0,
            unpriced_delta=self.unpriced_calls,
        )


class Examined(NamedTuple):
    """An event that a repricing has looked at."""

    event: UsageEvent
    now: Standing
    change: Adjustment | None
    """None where the prices change nothing."""


class Look(NamedTuple):
    """What one step of a repricing has found."""

    examined: list[Examined]
    place: Place
    """The last event that was looked at, whether it fits the filter or not."""
    more: bool
    """Whether the window may have events after it."""


@dataclass(slots=True)
class Difference:
    """What a repricing changes for some events, nano-USD."""

    calls: int = 0
    changed_calls: int = 0
    newly_priced_calls: int = 0
    unpriced_calls: int = 0
    """Those that have no price, and stay so."""
    old_nano_usd: int = 0
    new_nano_usd: int = 0

    def add(self, now: Standing, change: Adjustment | None) -> None:
        """Count one event in."""
        self.calls += 1
        self.old_nano_usd += now.nano_usd
        self.new_nano_usd += now.nano_usd
        if change is not None:
            self.changed_calls += 1
            self.newly_priced_calls -= change.unpriced_calls
            self.new_nano_usd += change.nano_usd
        elif not now.priced:
            self.unpriced_calls += 1

    def merge(self, other: "Difference") -> None:
        """Count in what another has counted."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


@dataclass(frozen=True, slots=True)
class Repricing:
    """A repricing as it is on record."""

    repricing_id: str
    number: int
    """Counts the repricings of the project in the order of their beginnings."""
    request_id: str
    wanted: RepricingFilter
    state: RepricingState
    catalogue_version: str
    prices_revision: int
    """With the catalogue's version: the prices that it applies, whatever changes while it runs."""
    difference: Difference
    created_us: int


def adjustment_of(event: UsageEvent, now: Standing, prices: PriceSource) -> Adjustment | None:
    """What other prices make of an event; None where they change nothing.

    An event that they do not price keeps its cost: what is known of the past is not unlearnt. A call that took nothing
    stays free.
    """
    if event.cost.priced and not event.cost.price_version:
        return None
    models = (event.provider_model, event.model) if event.provider_model else (event.model,)
    # At the time at which a settlement is priced: a clock that is behind makes no call older than its hold.
    quote = prices.quote(event.provider, models, event.service_tier, max(event.occurred_us, event.charged_us))
    if quote is None:
        return None
    cost, _ = priced(quote, event.usage)
    if now.priced and cost.nano_usd == now.nano_usd:
        return None
    return Adjustment(event, cost.nano_usd - now.nano_usd, 0 if now.priced else -1, cost.price_version)


def check_filter(wanted: RepricingFilter) -> RepricingFilter:
    """A window of at most 400 days; else InvalidField."""
    if wanted.start_us >= wanted.end_us:
        raise InvalidField("start_time", "The start has to be before the end.")
    if wanted.end_us - wanted.start_us > WINDOW_MAX_US:
        raise InvalidField("start_time", "Reprice at most 400 days at once.")
    return wanted


def unfinished(repricing: Repricing) -> WrongState:
    """The refusal to begin another repricing while one is under way."""
    return WrongState(
        "WRONG_STATE",
        f"Repricing {repricing.repricing_id} is {repricing.state.value}: send its request again until it is done, or "
        "reverse it.",
        metadata={"repricing_id": repricing.repricing_id, "state": repricing.state.value},
    )


def superseded(repricing_id: str, later: Iterable[str]) -> WrongState:
    """The refusal to reverse a repricing that later ones build on."""
    ids = ", ".join(later)
    return WrongState(
        "WRONG_STATE",
        f"Repricing {repricing_id} is followed by others that stand ({ids}); reverse the latest first.",
        metadata={"repricing_id": repricing_id},
    )


def standing_of(event: UsageEvent, adjusted: Mapping[tuple[str, str], tuple[int, int]]) -> Standing:
    """What an event counts as, by the sums of its adjustments: money, and unpriced calls."""
    nano_usd, unpriced_calls = adjusted.get((event.source, event.event_id), (0, 0))
    return Standing(event.cost.nano_usd + nano_usd, event.cost.priced or unpriced_calls < 0)
