"""PriceService over real gRPC, on both databases."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from llmlab.api.common.v1 import usage_pb2
from llmlab.api.cost.v1 import budget_pb2, hold_pb2, price_pb2
from services.cost.pricing.catalogue import versions
from services.runtime.errors import DomainError
from services.runtime.status import error_from_rpc
from tests.support.cost import Callers, hold_item

USD = 1_000_000_000


async def refusal(call: Awaitable[Any]) -> DomainError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return error_from_rpc(refused.value)


async def test_a_model_says_all_its_prices(callers: Callers) -> None:
    request = price_pb2.GetModelPriceRequest(model="openai/gpt-5-2025-08-07", service_tier="flex")
    found = await callers.prices.GetModelPrice(request, metadata=callers.person())
    assert (found.tiers[0].input_nano_usd_per_mtok, found.price_version) == (625_000_000, versions()[-1])
    assert found.all.model == "openai/gpt-5"
    prices = found.all.prices
    assert [price.service_tier for price in prices] == ["", "batch", "flex", "priority", "fast"]
    assert not prices[0].HasField("starts_at")
    assert prices[2].starts_at.ToDatetime().isoformat() == "2026-10-12T00:00:00"
    request.at.FromJsonString("2026-10-11T23:59:59Z")
    assert (await refusal(callers.prices.GetModelPrice(request, metadata=callers.person()))).reason == "NOT_FOUND"


async def test_daily_prices_say_their_hours(callers: Callers) -> None:
    listed = price_pb2.ListPricesRequest(provider="deepseek")
    page = await callers.prices.ListPrices(listed, metadata=callers.person())
    request = price_pb2.GetModelPriceRequest(model=page.models[0].model)
    found = await callers.prices.GetModelPrice(request, metadata=callers.person())
    daily = [price for price in found.all.prices if price.daily_from_s != price.daily_until_s]
    assert daily
    assert sum(price.in_force for price in found.all.prices) == 1


async def test_prices_are_listed_in_pages(callers: Callers) -> None:
    request = price_pb2.ListPricesRequest(provider="gemini", name_contains="2.5", page_size=2)
    names: list[str] = []
    while True:
        page = await callers.prices.ListPrices(request, metadata=callers.person())
        names += [model.model for model in page.models]
        assert all(price.in_force for model in page.models for price in model.prices)
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert names == sorted(set(names))
    assert "google/gemini-2.5-pro" in names
    request.provider = "openai"
    request.page_token = request.page_token or "abc"
    error = await refusal(callers.prices.ListPrices(request, metadata=callers.person()))
    assert error.reason == "INVALID_PAGE_TOKEN"


async def test_calls_are_estimated(callers: Callers) -> None:
    items = [
        price_pb2.EstimateItem(model="mock/small", input_bytes=4_000, max_output_tokens=1_000, calls=100, answers=2),
        price_pb2.EstimateItem(model="tinyfish/any", max_steps=30),
    ]
    request = price_pb2.EstimateCostRequest(items=items)
    answer = await callers.prices.EstimateCost(request, metadata=callers.person())
    calls, automation = answer.items
    assert calls.expected.input_nano_usd == 100 * 1_000 * 100
    assert calls.expected.output_nano_usd == calls.worst_case.output_nano_usd == 100 * 2_000 * 400
    assert calls.worst_case.input_nano_usd == 2 * 100 * 1_000 * 200
    assert automation.worst_case.fees_nano_usd == 30 * 16_000_000
    assert answer.expected_nano_usd == calls.expected.total_nano_usd + automation.expected.total_nano_usd
    assert answer.worst_case_nano_usd == calls.worst_case.total_nano_usd + automation.worst_case.total_nano_usd


async def test_usage_is_priced_without_being_recorded(callers: Callers) -> None:
    usage = usage_pb2.TokenUsage(input_tokens=1_000, cache_read_tokens=400, output_tokens=10)
    items = [price_pb2.PriceItem(model=model, usage=usage) for model in ("mock/large", "nobody/nothing")]
    request = price_pb2.PriceUsageRequest(items=items, price_version=versions()[0])
    answer = await callers.prices.PriceUsage(request, metadata=callers.person())
    known, unknown = answer.items
    assert (known.breakdown.input_nano_usd, known.breakdown.cache_read_nano_usd) == (600 * 3_000, 400 * 300)
    assert known.cost.cost_nano_usd == known.breakdown.total_nano_usd
    assert (unknown.cost.unpriced_calls, unknown.HasField("breakdown")) == (1, False)
    assert (answer.total.cost_nano_usd, answer.total.unpriced_calls) == (known.cost.cost_nano_usd, 1)


@pytest.mark.parametrize(
    ("item", "field"),
    [
        (price_pb2.PriceItem(model="mock/small", usage=usage_pb2.TokenUsage(input_tokens=-1)), "items[0].usage.input"),
        (price_pb2.PriceItem(model="mock/small", usage=usage_pb2.TokenUsage(steps=10**10)), "items[0].usage.steps"),
        (price_pb2.PriceItem(model="small", usage=usage_pb2.TokenUsage()), "items[0].model"),
        (price_pb2.PriceItem(model="mock/small"), "items[0].usage"),
    ],
)
async def test_impossible_usage_is_refused_by_name(callers: Callers, item: price_pb2.PriceItem, field: str) -> None:
    request = price_pb2.PriceUsageRequest(items=[item])
    error = await refusal(callers.prices.PriceUsage(request, metadata=callers.person()))
    assert error.code == "INVALID_ARGUMENT"
    assert error.violations[0].field.startswith(field)


async def test_unknown_models_versions_and_tiers_are_clear_errors(callers: Callers) -> None:
    person = callers.person()
    unknown = price_pb2.EstimateCostRequest(items=[price_pb2.EstimateItem(model="opnai/gpt-4o")])
    unpriced = await refusal(callers.prices.EstimateCost(unknown, metadata=person))
    assert unpriced.reason == "UNPRICED"
    assert "did you mean openai" in unpriced.message
    misspelt = price_pb2.GetModelPriceRequest(model="opnai/gpt-4o")
    assert "did you mean openai" in (await refusal(callers.prices.GetModelPrice(misspelt, metadata=person))).message
    version = price_pb2.PriceUsageRequest(
        items=[price_pb2.PriceItem(model="mock/small", usage=usage_pb2.TokenUsage())], price_version="1999"
    )
    assert (await refusal(callers.prices.PriceUsage(version, metadata=person))).reason == "NOT_FOUND"


async def test_a_tier_without_a_price_is_refused_under_a_hard_budget(callers: Callers) -> None:
    item = hold_item("a/1", model="small")
    item.service_tier = "priority"
    held = await callers.holds.Hold(hold_pb2.HoldRequest(item=item), metadata=callers.service())
    assert (held.outcome.priced, held.outcome.held_nano_usd) == (False, 0)
    wanted = budget_pb2.Budget(name="monthly", limit_nano_usd=USD)
    await callers.budgets.CreateBudget(budget_pb2.CreateBudgetRequest(budget=wanted), metadata=callers.person())
    item.attempt_id = "b/1"
    error = await refusal(callers.holds.Hold(hold_pb2.HoldRequest(item=item), metadata=callers.service()))
    assert (error.reason, error.metadata["service_tier"]) == ("UNPRICED", "priority")


async def test_a_call_that_fell_back_to_the_standard_tier_is_priced_as_such(callers: Callers) -> None:
    item = hold_pb2.HoldItem(
        attempt_id="a/1",
        nonce="n",
        provider="openai",
        model="gpt-5",
        output_tokens_max=1_000,
        expires_in_ms=60_000,
        service_tier="priority",
    )
    service = callers.service()
    held = await callers.holds.Hold(hold_pb2.HoldRequest(item=item), metadata=service)
    assert held.outcome.held_nano_usd == 20_000_004
    for attempt_id, tier, amount in (("a/1", "standard", 10_000_000), ("a/2", "", 20_000_000)):
        item.attempt_id = attempt_id
        await callers.holds.Hold(hold_pb2.HoldRequest(item=item), metadata=service)
        settlement = hold_pb2.SettleItem(
            attempt_id=attempt_id, usage=usage_pb2.TokenUsage(output_tokens=1_000), service_tier=tier, succeeded=True
        )
        settlement.occurred_at.CopyFrom(Timestamp(seconds=1_795_000_000))
        settled = await callers.holds.Settle(hold_pb2.SettleRequest(item=settlement), metadata=service)
        assert settled.outcome.cost.cost_nano_usd == amount
