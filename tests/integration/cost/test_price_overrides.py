"""Prices of a project's own over real gRPC, on both databases."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import grpc
import pytest

from llmlab.api.common.v1 import usage_pb2
from llmlab.api.cost.v1 import budget_pb2, hold_pb2, price_pb2, spend_pb2
from services.cost.pricing.catalogue import versions
from services.cost.settings import CostSettings
from services.cost.wiring import build
from services.runtime.clock import ManualClock
from services.runtime.errors import DomainError
from services.runtime.status import error_from_rpc
from tests.support.cost import NOVEMBER_US, Callers, hold_item, settle_item

USD = 1_000_000_000


async def refusal(call: Awaitable[Any]) -> DomainError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return error_from_rpc(refused.value)


async def state(callers: Callers, model: str, *, output: int = USD, project: str = "prj_1", **more: Any) -> str:
    """Make an override of a model's price and return its id."""
    tier = price_pb2.OverrideTier(output_nano_usd_per_mtok=output)
    wanted = price_pb2.PriceOverride(model=model, tiers=[tier], **more)
    request = price_pb2.CreatePriceOverrideRequest(override=wanted)
    made = await callers.prices.CreatePriceOverride(request, metadata=callers.person(project))
    return made.override.override_id


async def spent(callers: Callers, attempt_id: str, *, model: str = "small", project: str = "prj_1") -> tuple[int, str]:
    """Hold and settle 1,000 tokens of output; returns the cost and the version of its price."""
    service = callers.service(project)
    await callers.holds.Hold(hold_pb2.HoldRequest(item=hold_item(attempt_id, model=model)), metadata=service)
    request = hold_pb2.SettleRequest(item=settle_item(attempt_id))
    settled = await callers.holds.Settle(request, metadata=service)
    return settled.outcome.cost.cost_nano_usd, settled.outcome.cost.price_version


async def test_an_override_prices_calls_from_its_start_to_its_end(callers: Callers, clock: ManualClock) -> None:
    assert await spent(callers, "a/1") == (400_000, versions()[-1])
    override_id = await state(callers, "mock/small", output=5 * USD)
    assert await spent(callers, "a/2") == (5_000_000, override_id)
    assert await spent(callers, "a/3", project="prj_2") == (400_000, versions()[-1])
    clock.advance(60)
    request = price_pb2.DeletePriceOverrideRequest(override_id=override_id)
    ended = await callers.prices.DeletePriceOverride(request, metadata=callers.person())
    assert ended.override.HasField("ended_at")
    assert await callers.prices.DeletePriceOverride(request, metadata=callers.person()) == ended
    assert await spent(callers, "a/4") == (400_000, versions()[-1])
    # What was used while it held, and is told late, has its price.
    usage = usage_pb2.TokenUsage(output_tokens=1_000)
    event = spend_pb2.UsageEvent(event_id="e1", source="app", provider="mock", model="small", usage=usage)
    event.occurred_at.FromMicroseconds(NOVEMBER_US + 1)
    told = await callers.usage.RecordUsage(spend_pb2.RecordUsageRequest(events=[event]), metadata=callers.person())
    assert told.costs[0].price_version == override_id


async def test_another_replica_sees_it_with_the_next_call(
    callers: Callers, settings: CostSettings, clock: ManualClock
) -> None:
    if settings.database_url.startswith("sqlite"):
        pytest.skip("SQLite has one process")
    async with build(settings, clock=clock) as other, grpc.aio.insecure_channel(other.address) as channel:
        beside = Callers(channel)
        first = await state(callers, "mock/small", output=5 * USD)
        assert await spent(beside, "a/1") == (5_000_000, first)
        second = await state(callers, "mock/small", output=6 * USD)
        assert await spent(beside, "a/2") == (6_000_000, second)


async def test_it_makes_an_unpriced_model_usable_under_a_hard_budget(callers: Callers) -> None:
    wanted = budget_pb2.Budget(name="monthly", limit_nano_usd=USD)
    await callers.budgets.CreateBudget(budget_pb2.CreateBudgetRequest(budget=wanted), metadata=callers.person())
    request = hold_pb2.HoldRequest(item=hold_item("a/1", model="home-made"))
    assert (await refusal(callers.holds.Hold(request, metadata=callers.service()))).reason == "UNPRICED"
    await state(callers, "mock/*", output=USD, request_nano_usd=7)
    held = await callers.holds.Hold(request, metadata=callers.service())
    assert held.outcome.held_nano_usd == 1_000_000 + 4 + 7


async def test_it_is_told_estimated_and_priced_by(callers: Callers) -> None:
    override_id = await state(callers, "openai/gpt-4o", output=3 * USD)
    person = callers.person()
    asked = price_pb2.GetModelPriceRequest(model="openai/gpt-4o-2024-08-06")
    found = await callers.prices.GetModelPrice(asked, metadata=person)
    assert (found.price_version, found.tiers[0].reasoning_nano_usd_per_mtok) == (override_id, 3 * USD)
    item = price_pb2.EstimateItem(model="openai/gpt-4o", max_output_tokens=10)
    estimated = await callers.prices.EstimateCost(price_pb2.EstimateCostRequest(items=[item]), metadata=person)
    assert estimated.items[0].price_version == override_id
    used = price_pb2.PriceItem(model="openai/gpt-4o", usage=usage_pb2.TokenUsage(output_tokens=10))
    request = price_pb2.PriceUsageRequest(items=[used])
    assert (await callers.prices.PriceUsage(request, metadata=person)).total.cost_nano_usd == 30_000
    request.price_version = versions()[-1]
    assert (await callers.prices.PriceUsage(request, metadata=person)).total.cost_nano_usd == 100_000


async def test_overrides_are_listed_with_every_rate(callers: Callers) -> None:
    made = [await state(callers, "mock/small", output=number) for number in (1, 2, 3)]
    request = price_pb2.ListPriceOverridesRequest(page_size=2)
    first = await callers.prices.ListPriceOverrides(request, metadata=callers.person())
    request.page_token = first.next_page_token
    second = await callers.prices.ListPriceOverrides(request, metadata=callers.person())
    listed = [*first.overrides, *second.overrides]
    assert [override.override_id for override in listed] == made
    assert listed[2].tiers[0].reasoning_nano_usd_per_mtok == 3
    assert second.next_page_token == ""


async def test_creating_twice_with_one_request_id_creates_once(callers: Callers) -> None:
    override = price_pb2.PriceOverride(model="mock/small", tiers=[price_pb2.OverrideTier()])
    request = price_pb2.CreatePriceOverrideRequest(request_id="r1", override=override)
    first = await callers.prices.CreatePriceOverride(request, metadata=callers.person())
    assert await callers.prices.CreatePriceOverride(request, metadata=callers.person()) == first
    request.override.model = "mock/large"
    error = await refusal(callers.prices.CreatePriceOverride(request, metadata=callers.person()))
    assert error.reason == "REQUEST_ID_REUSED"


@pytest.mark.parametrize(
    ("override", "field"),
    [
        (price_pb2.PriceOverride(model="small", tiers=[price_pb2.OverrideTier()]), "override.model"),
        (price_pb2.PriceOverride(model="mock/small"), "override.tiers"),
        (
            price_pb2.PriceOverride(model="mock/small", tiers=[price_pb2.OverrideTier(input_nano_usd_per_mtok=-1)]),
            "override.tiers[0].input_nano_usd_per_mtok",
        ),
        (
            price_pb2.PriceOverride(model="mock/small", tiers=[price_pb2.OverrideTier(input_tokens_from=5)]),
            "override.tiers",
        ),
        (
            price_pb2.PriceOverride(model="mock/small", tiers=[price_pb2.OverrideTier()], step_nano_usd=-1),
            "override.step_nano_usd",
        ),
    ],
)
async def test_a_wrong_override_is_refused_and_nothing_is_written(
    callers: Callers, override: price_pb2.PriceOverride, field: str
) -> None:
    request = price_pb2.CreatePriceOverrideRequest(override=override)
    error = await refusal(callers.prices.CreatePriceOverride(request, metadata=callers.person()))
    assert (error.code, error.violations[0].field) == ("INVALID_ARGUMENT", field)
    listed = await callers.prices.ListPriceOverrides(price_pb2.ListPriceOverridesRequest(), metadata=callers.person())
    assert not listed.overrides


async def test_only_managers_of_the_own_project_state_prices(callers: Callers) -> None:
    override_id = await state(callers, "mock/small")
    request = price_pb2.DeletePriceOverrideRequest(override_id=override_id)
    stranger = callers.person("prj_2")
    assert (await refusal(callers.prices.DeletePriceOverride(request, metadata=stranger))).reason == "NOT_FOUND"
    reader = callers.person("prj_1", "READ", "WRITE")
    assert (await refusal(callers.prices.DeletePriceOverride(request, metadata=reader))).code == "PERMISSION_DENIED"


async def test_overrides_are_bounded(callers: Callers) -> None:
    for number in range(4):
        await state(callers, f"mock/m{number}")
    override = price_pb2.PriceOverride(model="mock/one-more", tiers=[price_pb2.OverrideTier()])
    request = price_pb2.CreatePriceOverrideRequest(override=override)
    error = await refusal(callers.prices.CreatePriceOverride(request, metadata=callers.person()))
    assert error.reason == "LIMIT_REACHED"
