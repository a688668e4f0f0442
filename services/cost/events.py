"""What callers say (orders, settlements, reports) and the usage events that are recorded of it."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import orjson

from services.cost.pricing.prices import Breakdown
from services.cost.scopes import Target
from services.cost.spend import SpendFilter
from services.cost.usage import Attribution, Usage

SETTLED_SOURCE = "gateway"
"""The source of events that settlements make; nobody can report usage under it."""

REPRICING_SOURCE = "repricing"
"""The source of adjustments that repricings make; nobody can report usage under it."""

_DIGEST_BYTES = 16


class Cost(NamedTuple):
    """What one call cost. Of an unpriced call the amount is unknown, not 0."""

    nano_usd: int
    priced: bool
    price_version: str
    """Empty for an unpriced call."""


FREE = Cost(nano_usd=0, priced=True, price_version="")
UNPRICED = Cost(nano_usd=0, priced=False, price_version="")


class HoldOrder(NamedTuple):
    """A request to reserve the worst case of one attempt."""

    attempt_id: str
    nonce: str
    provider: str
    model: str
    input_tokens_max: int
    output_tokens_max: int
    attribution: Attribution
    expires_in_ms: int
    service_tier: str = ""
    """Empty for the standard one; LEFT_OPEN where the provider may choose."""
    steps_max: int = 0
    """Steps of an automation at most."""

    @property
    def target(self) -> Target:
        """What decides which budgets it is charged to."""
        return Target(self.provider, self.model, self.attribution)


class Settlement(NamedTuple):
    """How an attempt ended."""

    attempt_id: str
    usage: Usage | None
    """None: the call took nothing, at no charge."""
    provider_model: str
    """The model that answered; empty where it is the one held for."""
    occurred_us: int | None
    """Microseconds UTC; None means when the hold was made."""
    succeeded: bool
    service_tier: str = ""
    """The tier that answered; empty where it is the one held for."""

    def digest(self) -> bytes:
        """Tells a repeat of this settlement from another one of the same attempt."""
        usage = None if self.usage is None else _usage_key(self.usage)
        return _digest(self.provider_model, self.occurred_us, self.succeeded, usage, *_if_any(self.service_tier))


class UsageReport(NamedTuple):
    """Usage of a call that had no hold, as its reporter tells it."""

    event_id: str
    source: str
    provider: str
    model: str
    usage: Usage
    attribution: Attribution
    occurred_us: int | None
    """Microseconds UTC; None means now."""
    service_tier: str = ""
    """Empty for the standard one."""
    metadata: tuple[tuple[str, str], ...] = ()
    """Whatever the reporter wants to find again; sorted by key."""

    @property
    def target(self) -> Target:
        """What decides which budgets it is charged to."""
        return Target(self.provider, self.model, self.attribution)

    def digest(self) -> bytes:
        """Tells a repeat of this report from another one under the same id."""
        attribution = self.attribution
        return _digest(
            self.provider,
            self.model,
            self.occurred_us,
            _usage_key(self.usage),
            (attribution.user_id, attribution.key_id, attribution.run_id, attribution.tags),
            *_if_any(self.service_tier),
            *_if_any(self.metadata),
        )


class UsageEvent(NamedTuple):
    """One use of a model, as it is on record: it is never changed, whatever prices become."""

    source: str
    event_id: str
    digest: bytes
    provider: str
    model: str
    """The model that was asked for."""
    provider_model: str
    """The model that answered, where it differs; empty otherwise."""
    attribution: Attribution
    usage: Usage
    succeeded: bool
    cost: Cost
    breakdown: Breakdown
    held_nano_usd: int
    """What was held for it; 0 where nothing was."""
    occurred_us: int
    charged_us: int
    """The time in whose period budgets are charged: of a settled call when it was held, else when it occurred."""
    recorded_us: int
    service_tier: str = ""
    """The tier that answered; empty for the standard one."""
    metadata: tuple[tuple[str, str], ...] = ()
    """What the reporter added; sorted by key."""
    calls: int = 1
    """0 for an adjustment of another event's price: it carries only the difference in money."""
    unpriced_delta: int = 0
    """What an adjustment adds to the unpriced calls."""

    @property
    def unpriced_calls(self) -> int:
        """What it adds to the calls without a price."""
        if not self.calls:
            return self.unpriced_delta
        return 0 if self.cost.priced else 1

    @property
    def target(self) -> Target:
        """What decides which budgets it is charged to."""
        return Target(self.provider, self.model, self.attribution)

    @property
    def above_hold(self) -> bool:
        """Whether a settled call cost more than its worst case."""
        return self.source == SETTLED_SOURCE and self.cost.nano_usd > self.held_nano_usd


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which usage events to list, the latest first; times are microseconds UTC, None for no bound."""

    spend_filter: SpendFilter
    source: str
    """Empty for all."""
    start_us: int | None
    end_us: int | None
    page_size: int
    after: tuple[str | int, ...] = ()
    """Where the page before ended; empty for the first page."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some usage events; fewer than asked for, or none, where the filter left little of what was looked at."""

    events: list[UsageEvent]
    position: tuple[str | int, ...]
    """Where the next page goes on; empty where nothing follows."""


def _usage_key(usage: Usage) -> tuple[object, ...]:
    *counts, steps = usage.counts()
    return (*counts, int(usage.source), *_if_any(steps))


def _if_any(value: object) -> tuple[object, ...]:
    """What was added to payloads later is hashed only where it is there, so that digests on record stay valid."""
    return (value,) if value else ()


def _digest(*parts: object) -> bytes:
    """A hash of plain values; JSON keeps their borders apart."""
    return blake2b(orjson.dumps(parts), digest_size=_DIGEST_BYTES).digest()
