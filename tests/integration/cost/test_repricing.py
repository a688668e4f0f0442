"""Pricing anew what is on record, over real gRPC, on both databases."""

from __future__ import annotations

import random
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from llmlab.api.common.v1 import usage_pb2
from llmlab.api.cost.v1 import budget_pb2, hold_pb2, price_pb2, repricing_pb2, spend_pb2
from services.runtime.errors import DomainError
from services.runtime.status import error_from_rpc
from tests.support.cost import NOVEMBER_US, Callers, hold_item, settle_item

USD = 1_000_000_000
HOUR_US = 3_600_000_000
START_US = NOVEMBER_US - 30 * 24 * HOUR_US
END_US = NOVEMBER_US + HOUR_US
MODELS = ("small", "large", "home-made")
"""The last one has no price."""

MONTH_US = 1_793_491_200_000_000
"""2026-11-01T00:00:00Z."""

Totals = dict[str, Any]


async def refusal(call: Awaitable[Any]) -> DomainError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return error_from_rpc(refused.value)


def at(at_us: int) -> Timestamp:
    moment = Timestamp()
    moment.FromMicroseconds(at_us)
    return moment


def window(start_us: int = START_US, end_us: int = END_US, **more: str) -> repricing_pb2.RepricingFilter:
    return repricing_pb2.RepricingFilter(start_time=at(start_us), end_time=at(end_us), **more)


async def budget(callers: Callers, name: str) -> None:
    wanted = budget_pb2.Budget(name=name, limit_nano_usd=1_000 * USD)
    await callers.budgets.CreateBudget(budget_pb2.CreateBudgetRequest(budget=wanted), metadata=callers.person())


async def use(callers: Callers, events: list[spend_pb2.UsageEvent]) -> None:
    await callers.usage.RecordUsage(spend_pb2.RecordUsageRequest(events=events), metadata=callers.person())


def event(event_id: str, model: str, at_us: int, *, tokens: int = 1_000, tag: str = "a") -> spend_pb2.UsageEvent:
    return spend_pb2.UsageEvent(
        event_id=event_id,
        source="app",
        provider="mock",
        model=model,
        usage=usage_pb2.TokenUsage(output_tokens=tokens),
        attribution=spend_pb2.Attribution(user_id="usr_1", tags={"team": tag}),
        occurred_at=at(at_us),
    )


async def settled(callers: Callers, attempt_id: str, model: str, tokens: int) -> None:
    """A call that was held before it was made."""
    service = callers.service()
    await callers.holds.Hold(hold_pb2.HoldRequest(item=hold_item(attempt_id, model=model)), metadata=service)
    request = hold_pb2.SettleRequest(item=settle_item(attempt_id, tokens=tokens))
    await callers.holds.Settle(request, metadata=service)


async def state_price(callers: Callers, model: str, output: int, *, from_us: int = START_US) -> str:
    override = price_pb2.PriceOverride(
        model=f"mock/{model}",
        tiers=[price_pb2.OverrideTier(output_nano_usd_per_mtok=output)],
        effective_from=at(from_us),
    )
    request = price_pb2.CreatePriceOverrideRequest(override=override)
    return (await callers.prices.CreatePriceOverride(request, metadata=callers.person())).override.override_id


async def totals(callers: Callers) -> Totals:
    """Everything that sums up what was spent: the total, by model and day, by tag, and the budgets."""
    person = callers.person()
    found: Totals = {}
    for name, group_by in (
        ("model", [spend_pb2.SPEND_DIMENSION_DAY, spend_pb2.SPEND_DIMENSION_MODEL]),
        ("tag", [spend_pb2.SPEND_DIMENSION_TAG]),
    ):
        request = spend_pb2.SummarizeSpendRequest(start_time=at(START_US), end_time=at(END_US), group_by=group_by)
        answer = await callers.usage.SummarizeSpend(request, metadata=person)
        rows = [*answer.rows, answer.total]
        found[name] = [
            (*row.keys, row.calls, row.usage.output_tokens, row.cost.cost_nano_usd, row.cost.unpriced_calls)
            for row in rows
        ]
    listed = await callers.budgets.ListBudgets(budget_pb2.ListBudgetsRequest(), metadata=person)
    found["budgets"] = [budget.status.settled_nano_usd for budget in listed.budgets]
    return found


async def apply(callers: Callers, request_id: str, **wanted: Any) -> repricing_pb2.Repricing:
    """Send the request until the repricing is done."""
    request = repricing_pb2.ApplyRepricingRequest(request_id=request_id, filter=window(**wanted))
    while True:
        answer = await callers.repricings.ApplyRepricing(request, metadata=callers.person())
        if answer.repricing.state != repricing_pb2.REPRICING_STATE_APPLYING:
            return answer.repricing


async def reverse(callers: Callers, repricing_id: str) -> repricing_pb2.Repricing:
    request = repricing_pb2.ReverseRepricingRequest(repricing_id=repricing_id)
    while True:
        answer = await callers.repricings.ReverseRepricing(request, metadata=callers.person())
        if answer.repricing.state != repricing_pb2.REPRICING_STATE_REVERSING:
            return answer.repricing


async def preview(callers: Callers, **wanted: Any) -> repricing_pb2.PreviewRepricingResponse:
    request = repricing_pb2.PreviewRepricingRequest(filter=window(**wanted))
    return await callers.repricings.PreviewRepricing(request, metadata=callers.person())


async def test_what_is_previewed_is_applied_and_reversed(callers: Callers) -> None:
    await budget(callers, "monthly")
    yesterday_us = NOVEMBER_US - 24 * HOUR_US
    await use(callers, [event("e1", "small", yesterday_us), event("e2", "home-made", yesterday_us, tag="b")])
    await settled(callers, "a/1", "small", 500)
    before = await totals(callers)
    assert before["budgets"] == [600_000]
    await state_price(callers, "small", USD)
    await state_price(callers, "home-made", 7 * USD)
    seen = await preview(callers)
    assert [(one.model, one.difference.old_nano_usd, one.difference.new_nano_usd) for one in seen.models] == [
        ("mock/home-made", 0, 7_000_000),
        ("mock/small", 600_000, 1_500_000),
    ]
    assert (seen.total.calls, seen.total.changed_calls, seen.total.newly_priced_calls) == (3, 3, 1)
    assert await totals(callers) == before
    applied = await apply(callers, "r1")
    assert (applied.state, applied.difference) == (repricing_pb2.REPRICING_STATE_APPLIED, seen.total)
    after = await totals(callers)
    assert after["model"][-1] == (3, 2_500, 8_500_000, 0)
    assert after["tag"][0][-2:] == (1_000_000, 0)
    assert after["budgets"] == [8_500_000]
    assert (await preview(callers)).total.changed_calls == 0
    assert await apply(callers, "r1") == applied
    assert await totals(callers) == after
    taken_back = await reverse(callers, applied.repricing_id)
    assert taken_back.state == repricing_pb2.REPRICING_STATE_REVERSED
    assert await totals(callers) == before
    assert await reverse(callers, applied.repricing_id) == taken_back


@pytest.mark.parametrize("seed", range(3))
async def test_any_usage_is_repriced_exactly_and_back(callers: Callers, seed: int) -> None:
    """In batches of three events, six a request, with new prices and usage in between."""
    rng = random.Random(seed)
    await budget(callers, "monthly")
    used: list[tuple[str, int, int]] = []
    for number in range(25):
        model, tokens = rng.choice(MODELS), rng.randrange(1, 1_000)
        if model != "home-made" and rng.random() < 0.3:
            await settled(callers, f"a/{number}", model, tokens)
            used.append((model, tokens, NOVEMBER_US))
        else:
            at_us = NOVEMBER_US - rng.randrange(1, 20 * 24) * HOUR_US
            await use(callers, [event(f"e{number}", model, at_us, tokens=tokens, tag=rng.choice("ab"))])
            used.append((model, tokens, at_us))
    history = [await totals(callers)]
    stack = []
    for step in range(3):
        model, rate, from_us = rng.choice(MODELS), rng.randrange(1, 50_000), START_US + rng.randrange(30) * 24 * HOUR_US
        await state_price(callers, model, rate * 1_000_000, from_us=from_us)
        seen = await preview(callers)
        applied = await apply(callers, f"r{step}")
        assert applied.difference == seen.total
        now = await totals(callers)
        assert now["model"][-1][2] - history[-1]["model"][-1][2] == (
            applied.difference.new_nano_usd - applied.difference.old_nano_usd
        )
        rates = await rates_of(callers, used)
        assert now["model"][-1][2] == sum(rate or 0 for rate in rates)
        assert now["model"][-1][3] == sum(rate is None for rate in rates)
        assert now["budgets"][0] == sum(
            rate or 0 for rate, (_, _, at_us) in zip(rates, used, strict=True) if at_us >= MONTH_US
        )
        history.append(now)
        stack.append(applied.repricing_id)
    assert (await refusal(reverse(callers, stack[0]))).reason == "WRONG_STATE"
    while stack:
        await reverse(callers, stack.pop())
        history.pop()
        assert await totals(callers) == history[-1]


async def rates_of(callers: Callers, used: list[tuple[str, int, int]]) -> list[int | None]:
    """What PriceUsage says of each use; None where it is unpriced."""
    items = [
        price_pb2.PriceItem(model=f"mock/{model}", usage=usage_pb2.TokenUsage(output_tokens=tokens), at=at(at_us))
        for model, tokens, at_us in used
    ]
    answer = await callers.prices.PriceUsage(price_pb2.PriceUsageRequest(items=items), metadata=callers.person())
    return [None if item.cost.unpriced_calls else item.cost.cost_nano_usd for item in answer.items]


async def test_an_interrupted_repricing_goes_on_by_the_prices_of_its_beginning(callers: Callers) -> None:
    await use(callers, [event(f"e{number}", "small", NOVEMBER_US - HOUR_US) for number in range(10)])
    before = await totals(callers)
    await state_price(callers, "small", USD)
    request = repricing_pb2.ApplyRepricingRequest(request_id="r1", filter=window())
    first = await callers.repricings.ApplyRepricing(request, metadata=callers.person())
    assert first.repricing.state == repricing_pb2.REPRICING_STATE_APPLYING
    assert first.repricing.difference.calls == 6
    other = repricing_pb2.ApplyRepricingRequest(request_id="r2", filter=window())
    error = await refusal(callers.repricings.ApplyRepricing(other, metadata=callers.person()))
    assert (error.reason, error.metadata["repricing_id"]) == ("WRONG_STATE", first.repricing.repricing_id)
    await state_price(callers, "small", 9 * USD)
    done = await apply(callers, "r1")
    assert (done.difference.new_nano_usd, done.difference.calls) == (10 * 1_000_000, 10)
    await reverse(callers, done.repricing_id)
    assert await totals(callers) == before


async def test_one_that_is_not_done_can_be_reversed(callers: Callers) -> None:
    await use(callers, [event(f"e{number}", "small", NOVEMBER_US - HOUR_US) for number in range(10)])
    before = await totals(callers)
    await state_price(callers, "small", USD)
    request = repricing_pb2.ApplyRepricingRequest(request_id="r1", filter=window())
    first = await callers.repricings.ApplyRepricing(request, metadata=callers.person())
    await reverse(callers, first.repricing.repricing_id)
    assert await totals(callers) == before
    assert (await apply(callers, "r1")).state == repricing_pb2.REPRICING_STATE_REVERSED


async def test_a_filter_names_the_calls(callers: Callers) -> None:
    await use(callers, [event(f"e{number}", model, NOVEMBER_US - HOUR_US) for number, model in enumerate(MODELS)])
    for model in MODELS:
        await state_price(callers, model, USD)
    assert (await preview(callers, provider="mock", model="large")).total.calls == 1
    assert (await preview(callers, provider="nobody")).total.calls == 0
    assert (await preview(callers, end_us=NOVEMBER_US - HOUR_US)).total.calls == 0
    assert (await apply(callers, "r1", model="small")).difference.changed_calls == 1


async def test_a_call_that_took_nothing_stays_free(callers: Callers) -> None:
    service = callers.service()
    await callers.holds.Hold(hold_pb2.HoldRequest(item=hold_item("a/1")), metadata=service)
    request = hold_pb2.SettleRequest(item=hold_pb2.SettleItem(attempt_id="a/1"))
    await callers.holds.Settle(request, metadata=service)
    override = price_pb2.PriceOverride(model="mock/*", tiers=[price_pb2.OverrideTier()], request_nano_usd=USD)
    override.effective_from.CopyFrom(at(START_US))
    wanted = price_pb2.CreatePriceOverrideRequest(override=override)
    await callers.prices.CreatePriceOverride(wanted, metadata=callers.person())
    assert (await preview(callers)).total.changed_calls == 0


async def test_wrong_requests_are_clear_errors_and_change_nothing(callers: Callers) -> None:
    person = callers.person()
    assert (await refusal(preview(callers, start_us=END_US))).violations[0].field == "start_time"
    long = START_US - 400 * 24 * HOUR_US
    assert (await refusal(apply(callers, "r1", start_us=long))).violations[0].field == "start_time"
    nameless = repricing_pb2.ApplyRepricingRequest(filter=window())
    assert (await refusal(callers.repricings.ApplyRepricing(nameless, metadata=person))).code == "INVALID_ARGUMENT"
    made = await apply(callers, "r1")
    assert (await refusal(apply(callers, "r1", model="small"))).reason == "REQUEST_ID_REUSED"
    request = repricing_pb2.ReverseRepricingRequest(repricing_id=made.repricing_id)
    stranger = callers.person("prj_2")
    assert (await refusal(callers.repricings.ReverseRepricing(request, metadata=stranger))).reason == "NOT_FOUND"
    reader = callers.person("prj_1", "READ", "WRITE")
    assert (await refusal(callers.repricings.ReverseRepricing(request, metadata=reader))).code == "PERMISSION_DENIED"
    own = event("e1", "small", NOVEMBER_US)
    own.source = "repricing"
    assert (await refusal(use(callers, [own]))).violations[0].field == "events[0].source"
    page = repricing_pb2.ListRepricingsRequest(page_size=1)
    listed = await callers.repricings.ListRepricings(page, metadata=person)
    assert [one.repricing_id for one in listed.repricings] == [made.repricing_id]
    assert not (await callers.repricings.ListRepricings(page, metadata=stranger)).repricings


async def test_a_preview_is_bounded(callers: Callers) -> None:
    await use(callers, [event(f"e{number}", "small", NOVEMBER_US - HOUR_US) for number in range(50)])
    assert (await refusal(preview(callers))).reason == "LIMIT_REACHED"
