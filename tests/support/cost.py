"""Builders for tests of the cost service: a price list without a catalogue, books, orders and settlements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from llmlab.api.common.v1 import usage_pb2
from llmlab.api.cost.v1 import hold_pb2, spend_pb2
from llmlab.api.cost.v1.alert_pb2_grpc import AlertServiceStub
from llmlab.api.cost.v1.budget_pb2_grpc import BudgetServiceStub
from llmlab.api.cost.v1.hold_pb2_grpc import HoldServiceStub
from llmlab.api.cost.v1.insight_pb2_grpc import InsightServiceStub
from llmlab.api.cost.v1.price_pb2_grpc import PriceServiceStub
from llmlab.api.cost.v1.repricing_pb2_grpc import RepricingServiceStub
from llmlab.api.cost.v1.spend_pb2_grpc import UsageServiceStub
from services.cost.budgets import Budget
from services.cost.events import HoldOrder, Settlement, UsageReport
from services.cost.ledger import Books, Ledger
from services.cost.periods import PeriodKind
from services.cost.pricing.prices import Quote, Rates, Tariff, Tier
from services.cost.scopes import Scope
from services.cost.standings import Standings
from services.cost.usage import Attribution, Usage
from services.runtime.auth import ServiceTokenMinter
from tests.support.credentials import Metadata, bearer

if TYPE_CHECKING:
    from llmlab.api.cost.v1.alert_pb2_grpc import AlertServiceAsyncStub
    from llmlab.api.cost.v1.budget_pb2_grpc import BudgetServiceAsyncStub
    from llmlab.api.cost.v1.hold_pb2_grpc import HoldServiceAsyncStub
    from llmlab.api.cost.v1.insight_pb2_grpc import InsightServiceAsyncStub
    from llmlab.api.cost.v1.price_pb2_grpc import PriceServiceAsyncStub
    from llmlab.api.cost.v1.repricing_pb2_grpc import RepricingServiceAsyncStub
    from llmlab.api.cost.v1.spend_pb2_grpc import UsageServiceAsyncStub

SERVICE_KEY = "5e" * 32
USD = 1_000_000_000
NOVEMBER_US = 1_795_000_000_000_000
"""2026-11-18T11:06:40Z."""
HOUR_US = 3_600_000_000


PROJECT = Scope()


class PriceList:
    """Model "flat" costs 1,000 nano-USD a token of any kind and "free" costs nothing; all others are unpriced."""

    def quote(self, provider: str, models: Sequence[str], service_tier: str, at_us: int) -> Quote | None:
        rates = [rate for model in models if (rate := {"flat": USD, "free": 0}.get(model)) is not None]
        if not rates or service_tier:
            return None
        return Quote(Tariff((Tier(0, Rates(*rates[:1] * 8)),)), "test-1")

    def changes(self, provider: str, model: str, service_tier: str, after_us: int, until_us: int) -> list[int]:
        return []

    def name_of(self, provider: str, model: str) -> tuple[str, str]:
        return provider, model


def worst_case_of(tokens: int) -> int:
    """What a hold of so many tokens of "flat" reserves."""
    return tokens * 1_000 + 4 if tokens else 0


def budget(
    limit_nano_usd: int,
    *,
    budget_id: str = "bud_1",
    time_zone: str = "UTC",
    scope: Scope = PROJECT,
    kind: PeriodKind = PeriodKind.MONTHLY,
    soft: bool = False,
    since_us: int = NOVEMBER_US,
) -> Budget:
    return Budget(
        budget_id, "prj_1", kind.value, scope, kind, time_zone, limit_nano_usd, soft, (50, 80, 100), since_us, since_us
    )


def order(
    attempt_id: str,
    *,
    tokens: int = 100,
    nonce: str = "n1",
    model: str = "flat",
    attribution: Attribution | None = None,
    expires_in_ms: int = 60_000,
) -> HoldOrder:
    """An order for `tokens` tokens, all of them output."""
    return HoldOrder(attempt_id, nonce, "acme", model, 0, tokens, attribution or Attribution(), expires_in_ms)


def settlement(
    attempt_id: str, *, tokens: int | None = 100, occurred_us: int | None = None, provider_model: str = ""
) -> Settlement:
    usage = None if tokens is None else Usage(output_tokens=tokens)
    return Settlement(attempt_id, usage, provider_model, occurred_us, succeeded=True)


def report(
    event_id: str,
    *,
    tokens: int = 100,
    source: str = "app",
    model: str = "flat",
    occurred_us: int | None = None,
    attribution: Attribution | None = None,
) -> UsageReport:
    return UsageReport(
        event_id, source, "acme", model, Usage(output_tokens=tokens), attribution or Attribution(), occurred_us
    )


class LedgerOfBooks:
    """Books that outlive a ledger, as the store's rows do; balances open when they are first charged."""

    def __init__(self, *budgets: Budget) -> None:
        self.books = Books("prj_1", standings=Standings.of(budgets))
        self.now_us = NOVEMBER_US

    def ledger(self) -> Ledger:
        """A new transaction on the same books."""
        return Ledger(self.books, PriceList(), self.now_us)

    def amounts(self, budget_id: str = "bud_1", period: str = "2026-11") -> tuple[int, int]:
        """What is settled and held, nano-USD."""
        balance = self.books.standings[budget_id, period]
        return balance.settled_nano_usd, balance.held_nano_usd


class Callers:
    """Stubs of the cost service, and who calls: its peers with service tokens, people with what a key may carry."""

    def __init__(self, channel: grpc.aio.Channel, service_key: str = SERVICE_KEY) -> None:
        self.holds: HoldServiceAsyncStub = HoldServiceStub(channel)
        self.usage: UsageServiceAsyncStub = UsageServiceStub(channel)
        self.prices: PriceServiceAsyncStub = PriceServiceStub(channel)
        self.repricings: RepricingServiceAsyncStub = RepricingServiceStub(channel)
        self.budgets: BudgetServiceAsyncStub = BudgetServiceStub(channel)
        self.alerts: AlertServiceAsyncStub = AlertServiceStub(channel)
        self.insights: InsightServiceAsyncStub = InsightServiceStub(channel)
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(service_key))
        self._tokens = ServiceTokenMinter("gateway", key)

    def service(self, project_id: str = "prj_1") -> Metadata:
        """The gateway, for a project."""
        return bearer(self._tokens.token(project_id))

    def person(self, project_id: str = "prj_1", *permissions: str) -> Metadata:
        """Somebody who may read, report and manage, or only what is named."""
        return bearer(self._tokens.token(project_id, permissions=permissions or ("READ", "WRITE", "MANAGE")))


def hold_item(attempt_id: str, *, model: str = "small", tokens: int = 1_000, nonce: str = "n1") -> hold_pb2.HoldItem:
    """A hold for `tokens` tokens of output of a mock model, for a minute."""
    return hold_pb2.HoldItem(
        attempt_id=attempt_id,
        nonce=nonce,
        provider="mock",
        model=model,
        output_tokens_max=tokens,
        attribution=spend_pb2.Attribution(run_id="run_1", tags={"team": "research"}),
        expires_in_ms=60_000,
    )


def settle_item(attempt_id: str, *, tokens: int = 1_000) -> hold_pb2.SettleItem:
    """A call that worked and took so many tokens of output."""
    usage = usage_pb2.TokenUsage(output_tokens=tokens, source=usage_pb2.USAGE_SOURCE_MEASURED)
    return hold_pb2.SettleItem(attempt_id=attempt_id, usage=usage, succeeded=True)


async def raise_alert(callers: Callers, model: str, *, project_id: str = "prj_1") -> None:
    """Use a model that has no price, for the first time on a day."""
    usage = usage_pb2.TokenUsage(output_tokens=1)
    event = spend_pb2.UsageEvent(event_id=model, source="app", provider="openai", model=model, usage=usage)
    await callers.usage.RecordUsage(spend_pb2.RecordUsageRequest(events=[event]), metadata=callers.person(project_id))
