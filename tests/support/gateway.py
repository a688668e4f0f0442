"""For tests of the gateway: builders of calls, a ledger in memory, a provider that takes scripted events."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.gateway.accounting import Accounting, AccountingLimits
from services.gateway.admission import Admission
from services.gateway.attempts import Attempt, Cost
from services.gateway.breaker import BreakerRules, Breakers
from services.gateway.cache import AnswerCache, CacheRules, CacheStore, LocalCache
from services.gateway.calls import Call, Message, Owner, Parameters, ProviderRequest, TextPart
from services.gateway.catalogue import Catalogue, ConfiguredProvider, Deployment
from services.gateway.catalogue_file import CatalogueText
from services.gateway.chunks import Event, Finished, FinishReason, Started, TextDelta, UsageSoFar
from services.gateway.cost_port import Reservation, Settlement
from services.gateway.failures import CallFailed
from services.gateway.fleet import Fleet, Generation
from services.gateway.flights import Flights
from services.gateway.hold_policy import HoldPolicy
from services.gateway.late_bills import JournalFull, LateBills
from services.gateway.limits import LocalLimits, RateLimits
from services.gateway.pipeline import Pipeline
from services.gateway.providers.port import Provider
from services.gateway.retries import Retries, RetryRules
from services.gateway.reuse import Reuser
from services.gateway.routing import Router
from services.gateway.timing import Stopwatch
from services.gateway.usage import TokenUsage
from services.runtime.clock import SYSTEM_CLOCK
from services.runtime.errors import DomainError, error_of_code

OWNER = Owner("prj_1", "usr_1", "key_1")


def call(text: str = "Why is the sky blue?", *, call_id: str = "run_1/7/1", **more: Any) -> Call:
    """A call to "scripted/model" with one user message."""
    values: dict[str, Any] = {
        "call_id": call_id,
        "model": "scripted/model",
        "messages": (Message("user", (TextPart(text),)),),
        "timeout_ms": 10_000,
        "dispatch_nonce": "nonce",
    }
    return Call(**(values | more))


def request(asked: Call | None = None, *, model: str = "model", max_output_tokens: int = 100) -> ProviderRequest:
    """What a provider is asked for a call."""
    asked = asked or call()
    return ProviderRequest(f"{asked.call_id}/1", model, asked, max_output_tokens)


def attempt_of(asked: Call, *, model: str = "model", timeout_s: float = 5.0) -> Attempt:
    """The first attempt of a call, not sent yet."""
    return Attempt(
        attempt_id=f"{asked.call_id}/1",
        deployment=Deployment("scripted", model, 100, ""),
        request=request(asked, model=model),
        owner=OWNER,
        nonce=asked.dispatch_nonce,
        deadline=SYSTEM_CLOCK.monotonic_s() + timeout_s,
        stopwatch=Stopwatch(SYSTEM_CLOCK),
    )


def with_parameters(**parameters: Any) -> Call:
    """A call with these parameters."""
    return call(parameters=Parameters(**parameters))


ANSWER: tuple[list[Event], ...] = (
    [Started("model-1", "req-1")],
    [TextDelta("Because of "), TextDelta("scattering.")],
    [UsageSoFar(TokenUsage(input_tokens=6, output_tokens=5)), Finished(FinishReason.STOP)],
)
"""A good answer in three reads."""


@dataclass
class InMemoryLedger:
    """CostPort in memory, with the cost service's rules: a nonce per hold, one outcome per hold.

    `failures` are raised, one per call of any method, before anything happens; `after` likewise, but after it happened.
    """

    holds: dict[str, Reservation] = field(default_factory=dict)
    settled: dict[str, Settlement] = field(default_factory=dict)
    released: list[str] = field(default_factory=list)
    owners: set[Owner] = field(default_factory=set)
    recorded: dict[str, Settlement] = field(default_factory=dict)
    hard_budget: bool = True
    failures: list[DomainError] = field(default_factory=list)
    after: list[DomainError] = field(default_factory=list)
    calls: int = 0

    async def hold(self, owner: Owner, reservation: Reservation) -> None:
        self._begin(owner)
        known = self.holds.setdefault(reservation.attempt_id, reservation)
        if known.nonce != reservation.nonce:
            raise error_of_code("ALREADY_EXISTS", "HOLD_NONCE_MISMATCH", "held under another nonce")
        self._end()

    async def settle(self, owner: Owner, settlement: Settlement) -> Cost:
        self._begin(owner)
        if settlement.attempt_id not in self.holds:
            raise error_of_code("NOT_FOUND", "NOT_FOUND", "no such hold")
        self.settled.setdefault(settlement.attempt_id, settlement)
        self._end()
        tokens = 0 if settlement.usage is None else settlement.usage.input_tokens + settlement.usage.output_tokens
        return Cost(tokens, price_version="test")

    async def release(self, owner: Owner, attempt_id: str) -> None:
        self._begin(owner)
        self.released.append(attempt_id)
        self._end()

    async def record(self, owner: Owner, reservation: Reservation, settlement: Settlement) -> None:
        self._begin(owner)
        self.recorded[settlement.attempt_id] = settlement
        self._end()

    async def has_hard_budget(self, owner: Owner) -> bool:
        return self.hard_budget

    @property
    def open_holds(self) -> set[str]:
        """Holds that nobody has resolved."""
        return self.holds.keys() - self.settled.keys() - set(self.released)

    def _begin(self, owner: Owner) -> None:
        self.calls += 1
        self.owners.add(owner)
        if self.failures:
            raise self.failures.pop(0)

    def _end(self) -> None:
        if self.after:
            raise self.after.pop(0)


class MemoryJournal:
    """Journal in memory, of `max_bills`."""

    def __init__(self, max_bills: int = 100) -> None:
        self.bills: dict[str, bytes] = {}
        self.max_bills = max_bills

    async def add(self, attempt_id: str, bill: bytes) -> None:
        if len(self.bills) >= self.max_bills:
            raise JournalFull("the journal is full")
        self.bills.setdefault(attempt_id, bill)

    async def oldest(self, limit: int) -> Sequence[tuple[str, bytes]]:
        return list(self.bills.items())[:limit]

    async def remove(self, attempt_ids: Iterable[str]) -> None:
        for attempt_id in attempt_ids:
            del self.bills[attempt_id]


class ScriptedProvider:
    """A provider that yields what it is told: lists of events, or an exception at its place.

    `reached` is set when the script is used up; with `hangs` it then waits for ever.
    """

    def __init__(self, *script: Sequence[Event] | Exception, hangs: bool = False) -> None:
        self.script = script
        self.hangs = hangs
        self.reached = asyncio.Event()
        self.closed = 0
        self.requests: list[ProviderRequest] = []

    async def stream(self, request: ProviderRequest, deadline: float) -> AsyncGenerator[list[Event], None]:
        self.requests.append(request)
        try:
            for step in self.script:
                if isinstance(step, Exception):
                    raise step
                yield list(step)
            self.reached.set()
            if self.hangs:
                await asyncio.Event().wait()
        finally:
            self.closed += 1

    async def close(self) -> None:
        pass


def fleet_of(catalogue: Catalogue, providers: Mapping[str, Provider]) -> Fleet:
    """A fleet with these providers, which opens no other one."""

    async def refuse(configured: ConfiguredProvider) -> Provider:
        raise AssertionError(f"nobody asked for {configured.entry.name}")

    return Fleet(refuse, Generation(catalogue, providers))


def catalogue_of(text: str) -> Catalogue:
    """A catalogue of this file alone, with every provider configured."""
    file = CatalogueText(text, "test.yaml").parse()
    providers = {entry.name: ConfiguredProvider(entry, "", "", "") for entry in file.providers}
    return Catalogue(providers, file.models, file.aliases)


ONE_MODEL = "providers: [{name: scripted, kind: mock, models: [{name: model, default_max_output_tokens: 100}]}]"


def pipeline(
    provider: Provider | Mapping[str, Provider],
    ledger: InMemoryLedger,
    *,
    catalogue: str = ONE_MODEL,
    max_calls: int = 100,
    breaking: BreakerRules | None = None,
    retrying: RetryRules | None = None,
    limits: RateLimits | None = None,
    cache: CacheStore | None = None,
    answer_max_bytes: int = 100_000,
) -> tuple[Pipeline, Admission]:
    """A pipeline with short patience over one provider, "scripted", or over those that the catalogue names."""
    admission = Admission(max_calls)
    breakers = Breakers(SYSTEM_CLOCK, breaking)
    retries = Retries(SYSTEM_CLOCK, retrying)
    patience = AccountingLimits(hold_wait_s=0.2, later_s=1.0, retry_base_s=0.001, retry_max_s=0.01)
    providers = provider if isinstance(provider, Mapping) else {"scripted": provider}
    store = cache or LocalCache(SYSTEM_CLOCK, 1_000_000)
    reuser = Reuser(
        AnswerCache(store, SYSTEM_CLOCK, CacheRules(answer_max_bytes=answer_max_bytes)),
        Flights(answer_max_bytes),
        SYSTEM_CLOCK,
    )
    made = Pipeline(
        admission=admission,
        reuser=reuser,
        fleet=fleet_of(catalogue_of(catalogue), providers),
        router=Router(retries, SYSTEM_CLOCK, is_open=breakers.is_open, rng=random.Random(7)),
        limits=limits or RateLimits(LocalLimits(SYSTEM_CLOCK), SYSTEM_CLOCK),
        breakers=breakers,
        accounting=Accounting(
            ledger,
            HoldPolicy(ledger, SYSTEM_CLOCK, fail_open=False),
            LateBills(MemoryJournal(), ledger, pause_s=0.001),
            SYSTEM_CLOCK,
            patience,
        ),
        clock=SYSTEM_CLOCK,
    )
    return made, admission


async def collected(stream: AsyncGenerator[list[Event], None]) -> tuple[list[Event], CallFailed | None]:
    """All events of a stream, and how it failed."""
    events: list[Event] = []
    try:
        async for read in stream:
            events += read
    except CallFailed as failed:
        return events, failed
    return events, None


def text_of(events: Sequence[Event]) -> str:
    """The visible text of events."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def raises_call_failed(action: Callable[[], object]) -> CallFailed:
    """The CallFailed that an action raises."""
    try:
        action()
    except CallFailed as failed:
        return failed
    raise AssertionError("no CallFailed was raised")
