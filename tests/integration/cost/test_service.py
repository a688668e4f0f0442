"""The contract of cost over real gRPC, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from llmlab.api.common.v1 import error_pb2, usage_pb2
from llmlab.api.cost.v1 import budget_pb2, hold_pb2, price_pb2, spend_pb2
from services.cost.pricing.catalogue import versions
from services.cost.settings import CostSettings
from services.cost.wiring import build
from services.runtime.clock import ManualClock
from services.runtime.errors import DomainError
from services.runtime.status import error_from_rpc
from tests.support.cost import NOVEMBER_US, Callers, hold_item, settle_item

USD = 1_000_000_000
SMALL_OUTPUT_NANO_USD = 400
"""A token of output of mock/small."""


async def refusal(call: Awaitable[Any]) -> DomainError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return error_from_rpc(refused.value)


def reasons(outcomes: Any) -> list[str]:
    names = error_pb2.ErrorReason
    return [names.Name(one.error.reason)[13:] if one.HasField("error") else "" for one in outcomes]


async def budget(callers: Callers, limit_nano_usd: int = USD, **more: Any) -> budget_pb2.Budget:
    wanted = budget_pb2.Budget(name="monthly", limit_nano_usd=limit_nano_usd, **more)
    made = await callers.budgets.CreateBudget(budget_pb2.CreateBudgetRequest(budget=wanted), metadata=callers.person())
    return made.budget


async def standing(callers: Callers, budget_id: str) -> budget_pb2.BudgetStatus:
    got = await callers.budgets.GetBudget(budget_pb2.GetBudgetRequest(budget_id=budget_id), metadata=callers.person())
    return got.budget.status


async def test_a_call_is_held_settled_and_seen_in_the_spend(callers: Callers) -> None:
    made = await budget(callers)
    held = await callers.holds.Hold(hold_pb2.HoldRequest(item=hold_item("a/1")), metadata=callers.service())
    assert held.outcome.priced
    assert held.outcome.held_nano_usd >= 1_000 * SMALL_OUTPUT_NANO_USD
    before = await callers.usage.SummarizeSpend(spend_pb2.SummarizeSpendRequest(), metadata=callers.person())
    assert before.held_nano_usd == held.outcome.held_nano_usd
    settle = hold_pb2.SettleRequest(item=settle_item("a/1", tokens=250))
    settled = await callers.holds.Settle(settle, metadata=callers.service())
    assert settled.outcome.cost.cost_nano_usd == 250 * SMALL_OUTPUT_NANO_USD
    assert settled.outcome.cost.price_version == versions()[-1]
    assert await callers.holds.Settle(settle, metadata=callers.service()) == settled
    status = await standing(callers, made.budget_id)
    assert (status.period, status.settled_nano_usd, status.held_nano_usd) == ("2026-11", 100_000, 0)
    assert status.remaining_nano_usd == USD - 100_000
    assert status.resets_at.ToJsonString() == "2026-12-01T00:00:00Z"
    spend = await callers.usage.SummarizeSpend(
        spend_pb2.SummarizeSpendRequest(group_by=[spend_pb2.SPEND_DIMENSION_DAY, spend_pb2.SPEND_DIMENSION_MODEL]),
        metadata=callers.person(),
    )
    assert [(list(row.keys), row.calls, row.cost.cost_nano_usd) for row in spend.rows] == [
        (["2026-11-18", "mock/small"], 1, 100_000)
    ]
    assert spend.total.usage.output_tokens == 250
    assert spend.held_nano_usd == 0
    tags = await callers.usage.SummarizeSpend(
        spend_pb2.SummarizeSpendRequest(group_by=[spend_pb2.SPEND_DIMENSION_TAG]), metadata=callers.person()
    )
    assert [list(row.keys) for row in tags.rows] == [["team=research"]]


async def test_batches_answer_each_item(callers: Callers) -> None:
    await budget(callers, 3 * 1_000 * SMALL_OUTPUT_NANO_USD)
    service = callers.service()
    wanted = [
        ("a/1", "small"),
        ("x/1", "s\0"),
        ("b/1", "small"),
        ("c/1", "small"),
        ("\0/1", "small"),
        ("d/1", "unknown"),
    ]
    items = [hold_item(name, model=model) for name, model in wanted]
    held = await callers.holds.HoldBatch(hold_pb2.HoldBatchRequest(items=items), metadata=service)
    assert [one.attempt_id for one in held.outcomes] == [one.attempt_id for one in items]
    assert reasons(held.outcomes) == ["", "INVALID_FIELD", "", "BUDGET_EXCEEDED", "INVALID_FIELD", "UNPRICED"]
    exceeded = held.outcomes[3].error
    assert exceeded.error_class == error_pb2.ERROR_CLASS_RATE_LIMIT
    assert exceeded.grpc_code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert "'monthly'" in exceeded.message
    assert "2026-12-01 00:00 UTC" in exceeded.message
    settles = [
        settle_item(name, tokens=tokens) for name, tokens in (("\0", 1), ("a/1", 1_000), ("ghost/1", 1), ("b/1", -1))
    ]
    settled = await callers.holds.SettleBatch(hold_pb2.SettleBatchRequest(items=settles), metadata=service)
    assert reasons(settled.outcomes) == ["INVALID_FIELD", "", "NOT_FOUND", "INVALID_FIELD"]
    released = await callers.holds.ReleaseBatch(
        hold_pb2.ReleaseBatchRequest(attempt_ids=["b/1", "a/1", "late/1"]), metadata=service
    )
    assert [(one.attempt_id, *reasons([one])) for one in released.refused] == [("a/1", "HOLD_RESOLVED")]
    await callers.holds.Release(hold_pb2.ReleaseRequest(attempt_id="b/1"), metadata=service)
    known = await callers.holds.ResolveAttempts(
        hold_pb2.ResolveAttemptsRequest(attempt_ids=["a/1", "b/1", "late/1", "never/1"]), metadata=service
    )
    assert [one.state for one in known.attempts] == [
        hold_pb2.ATTEMPT_STATE_SETTLED,
        hold_pb2.ATTEMPT_STATE_RELEASED,
        hold_pb2.ATTEMPT_STATE_TOMBSTONED,
        hold_pb2.ATTEMPT_STATE_TOMBSTONED,
    ]
    assert known.attempts[0].usage == settle_item("a/1").usage
    late = await callers.holds.HoldBatch(
        hold_pb2.HoldBatchRequest(items=[hold_item("late/1"), hold_item("a/1"), hold_item("b/1", nonce="n2")]),
        metadata=service,
    )
    assert reasons(late.outcomes) == ["HOLD_TOMBSTONED", "HOLD_RESOLVED", "HOLD_NONCE_MISMATCH"]


async def test_refusals_of_single_holds_are_statuses(callers: Callers) -> None:
    made = await budget(callers, 1_000)
    error = await refusal(callers.holds.Hold(hold_pb2.HoldRequest(item=hold_item("a/1")), metadata=callers.service()))
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "BUDGET_EXCEEDED")
    assert error.subject == f"budget:{made.budget_id}"
    assert error.metadata["remaining_nano_usd"] == "1000"
    unpriced = hold_item("a/1", model="unheard-of")
    error = await refusal(callers.holds.Hold(hold_pb2.HoldRequest(item=unpriced), metadata=callers.service()))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "UNPRICED")
    error = await refusal(
        callers.holds.Settle(hold_pb2.SettleRequest(item=settle_item("a/1")), metadata=callers.service())
    )
    assert (error.code, error.reason) == ("NOT_FOUND", "NOT_FOUND")
    await callers.holds.Hold(hold_pb2.HoldRequest(item=hold_item("free/1", tokens=0)), metadata=callers.service())
    await callers.holds.Settle(hold_pb2.SettleRequest(item=settle_item("free/1", tokens=0)), metadata=callers.service())
    error = await refusal(
        callers.holds.Release(hold_pb2.ReleaseRequest(attempt_id="free/1"), metadata=callers.service())
    )
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "HOLD_RESOLVED")
    error = await refusal(callers.holds.Release(hold_pb2.ReleaseRequest(attempt_id=""), metadata=callers.service()))
    assert (error.code, error.field) == ("INVALID_ARGUMENT", "attempt_id")


async def test_an_expired_hold_is_charged_by_policy_and_corrected_by_its_settlement(
    callers: Callers, clock: ManualClock
) -> None:
    made = await budget(callers)
    held = await callers.holds.Hold(hold_pb2.HoldRequest(item=hold_item("a/1")), metadata=callers.service())
    clock.advance(61)
    request = hold_pb2.ResolveAttemptsRequest(attempt_ids=["a/1"])
    async with asyncio.timeout(20):
        while True:
            known = (await callers.holds.ResolveAttempts(request, metadata=callers.service())).attempts[0]
            if known.state != hold_pb2.ATTEMPT_STATE_HELD:
                break
    assert known.state == hold_pb2.ATTEMPT_STATE_EXPIRED
    assert known.cost.cost_nano_usd == held.outcome.held_nano_usd
    status = await standing(callers, made.budget_id)
    assert (status.settled_nano_usd, status.held_nano_usd) == (held.outcome.held_nano_usd, 0)
    await callers.holds.Settle(hold_pb2.SettleRequest(item=settle_item("a/1", tokens=1)), metadata=callers.service())
    assert (await standing(callers, made.budget_id)).settled_nano_usd == SMALL_OUTPUT_NANO_USD


async def test_reported_usage_is_idempotent_and_priced(callers: Callers) -> None:
    def event(event_id: str, model: str = "gpt-4o-mini", tokens: int = 1_000) -> spend_pb2.UsageEvent:
        usage = usage_pb2.TokenUsage(input_tokens=tokens)
        return spend_pb2.UsageEvent(event_id=event_id, source="app", provider="openai", model=model, usage=usage)

    request = spend_pb2.RecordUsageRequest(events=[event("e1"), event("e2", model="unheard-of")])
    first = await callers.usage.RecordUsage(request, metadata=callers.person())
    assert [(cost.cost_nano_usd, cost.unpriced_calls) for cost in first.costs] == [(150_000, 0), (0, 1)]
    again = await callers.usage.RecordUsage(request, metadata=callers.person())
    assert (list(again.costs), again.duplicates) == (list(first.costs), 2)
    other = spend_pb2.RecordUsageRequest(events=[event("e1", tokens=7), event("e3")])
    error = await refusal(callers.usage.RecordUsage(other, metadata=callers.person()))
    assert (error.code, error.reason) == ("ALREADY_EXISTS", "USAGE_EVENT_MISMATCH")
    wrong = spend_pb2.RecordUsageRequest(events=[event("e4"), event("e5", tokens=-4)])
    error = await refusal(callers.usage.RecordUsage(wrong, metadata=callers.person()))
    assert error.field == "events[1].usage.input_tokens"
    total = (await callers.usage.SummarizeSpend(spend_pb2.SummarizeSpendRequest(), metadata=callers.person())).total
    assert (total.calls, total.cost.unpriced_calls, total.cost.cost_nano_usd) == (2, 1, 150_000)


async def test_spend_is_paged_by_tokens_that_belong_to_their_question(callers: Callers) -> None:
    usage = usage_pb2.TokenUsage(output_tokens=1)
    events = [
        spend_pb2.UsageEvent(event_id=f"e{number}", source="app", provider="mock", model=model, usage=usage)
        for number, model in enumerate(("small", "medium", "large"))
    ]
    await callers.usage.RecordUsage(spend_pb2.RecordUsageRequest(events=events), metadata=callers.person())
    question = spend_pb2.SummarizeSpendRequest(group_by=[spend_pb2.SPEND_DIMENSION_MODEL], page_size=2)
    first = await callers.usage.SummarizeSpend(question, metadata=callers.person())
    question.page_token = first.next_page_token
    second = await callers.usage.SummarizeSpend(question, metadata=callers.person())
    names = [row.keys[0] for row in [*first.rows, *second.rows]]
    assert names == ["mock/large", "mock/medium", "mock/small"]
    assert (second.next_page_token, second.total) == ("", first.total)
    question.group_by[:] = [spend_pb2.SPEND_DIMENSION_PROVIDER]
    error = await refusal(callers.usage.SummarizeSpend(question, metadata=callers.person()))
    assert error.reason == "INVALID_PAGE_TOKEN"


async def test_wrong_questions_about_spend(callers: Callers) -> None:
    later, earlier = Timestamp(seconds=NOVEMBER_US // 10**6), Timestamp(seconds=NOVEMBER_US // 10**6 - 60)
    backwards = spend_pb2.SummarizeSpendRequest(start_time=later, end_time=earlier)
    error = await refusal(callers.usage.SummarizeSpend(backwards, metadata=callers.person()))
    assert error.field == "start_time"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"period": "2026-13"}, "period"),
        ({"period": "2026-11", "start_time": earlier}, "period"),
        ({"start_time": earlier, "rolling": Duration(seconds=900)}, "period"),
        ({"rolling": Duration(seconds=-900)}, "rolling"),
        ({"filter": spend_pb2.SpendFilter(tag="research")}, "filter.tag"),
        ({"tag_share": spend_pb2.TAG_SHARE_SPLIT}, "tag_share"),
        ({"group_by": [spend_pb2.SPEND_DIMENSION_DAY, spend_pb2.SPEND_DIMENSION_MONTH]}, "group_by"),
        ({"group_by": [spend_pb2.SPEND_DIMENSION_DAY], "compare": True}, "compare"),
        ({"page_size": 1_001}, "page_size"),
    ]
    for fields, field in wrong:
        question = spend_pb2.SummarizeSpendRequest(**fields)
        error = await refusal(callers.usage.SummarizeSpend(question, metadata=callers.person()))
        assert (error.code, error.field) == ("INVALID_ARGUMENT", field), fields


async def test_prices_are_told_by_tier(callers: Callers) -> None:
    request = price_pb2.GetModelPriceRequest(model="anthropic/claude-sonnet-4-5")
    found = await callers.prices.GetModelPrice(request, metadata=callers.person())
    assert [tier.input_tokens_from for tier in found.tiers] == [0, 200_001]
    assert found.tiers[0].cache_write_1h_nano_usd_per_mtok == 6 * USD
    malformed = price_pb2.GetModelPriceRequest(model="no-slash")
    assert (await refusal(callers.prices.GetModelPrice(malformed, metadata=callers.person()))).field == "model"
    unpriced = price_pb2.GetModelPriceRequest(model="openai/unheard-of")
    assert (await refusal(callers.prices.GetModelPrice(unpriced, metadata=callers.person()))).reason == "NOT_FOUND"


async def test_budgets_from_creation_to_deletion(callers: Callers) -> None:
    person = callers.person()
    create = budget_pb2.CreateBudgetRequest(
        request_id="req-1", budget=budget_pb2.Budget(name="monthly", limit_nano_usd=USD, time_zone="Asia/Kathmandu")
    )
    made = await callers.budgets.CreateBudget(create, metadata=person)
    assert await callers.budgets.CreateBudget(create, metadata=person) == made
    assert made.budget.status.resets_at.ToJsonString() == "2026-11-30T18:15:00Z"
    create.budget.name = "another"
    assert (await refusal(callers.budgets.CreateBudget(create, metadata=person))).reason == "REQUEST_ID_REUSED"
    periods = (budget_pb2.BUDGET_PERIOD_DAILY, budget_pb2.BUDGET_PERIOD_TOTAL)
    others = [await budget(callers, period=period) for period in periods]
    first = await callers.budgets.ListBudgets(budget_pb2.ListBudgetsRequest(page_size=2), metadata=person)
    rest = await callers.budgets.ListBudgets(
        budget_pb2.ListBudgetsRequest(page_size=2, page_token=first.next_page_token), metadata=person
    )
    assert [one.budget_id for one in [*first.budgets, *rest.budgets]] == [
        made.budget.budget_id,
        *[one.budget_id for one in others],
    ]
    of_user = budget_pb2.BudgetScope(user_id="usr_1")
    too_many = budget_pb2.CreateBudgetRequest(
        budget=budget_pb2.Budget(name="one too many", limit_nano_usd=1, scope=of_user)
    )
    assert (await refusal(callers.budgets.CreateBudget(too_many, metadata=person))).reason == "LIMIT_REACHED"
    update = budget_pb2.UpdateBudgetRequest(
        budget_id=made.budget.budget_id,
        budget=budget_pb2.Budget(limit_nano_usd=5),
        update_mask=FieldMask(paths=["limit_nano_usd"]),
    )
    changed = (await callers.budgets.UpdateBudget(update, metadata=person)).budget
    assert (changed.name, changed.limit_nano_usd) == ("monthly", 5)
    assert not others[1].status.HasField("resets_at")
    delete = budget_pb2.DeleteBudgetRequest(budget_id=made.budget.budget_id)
    await callers.budgets.DeleteBudget(delete, metadata=person)
    assert (await refusal(callers.budgets.DeleteBudget(delete, metadata=person))).reason == "NOT_FOUND"


async def test_budgets_of_a_scope_are_listed_and_charged(callers: Callers) -> None:
    person = callers.person()
    of_run = await budget(
        callers,
        scope=budget_pb2.BudgetScope(run_id="run_1", model="mock/small"),
        period=budget_pb2.BUDGET_PERIOD_TOTAL,
        thresholds_percent=[90, 20],
    )
    of_team = await budget(callers, scope=budget_pb2.BudgetScope(tag="team=research"), soft=True)
    await budget(callers, scope=budget_pb2.BudgetScope(tag="team=sales"))
    assert (list(of_run.thresholds_percent), list(of_team.thresholds_percent)) == ([20, 90], [50, 80, 100])
    assert (of_run.period, of_team.period) == (budget_pb2.BUDGET_PERIOD_TOTAL, budget_pb2.BUDGET_PERIOD_MONTHLY)
    await callers.holds.Hold(hold_pb2.HoldRequest(item=hold_item("a/1")), metadata=callers.service())
    await callers.holds.Settle(hold_pb2.SettleRequest(item=settle_item("a/1", tokens=250)), metadata=callers.service())
    listed = await callers.budgets.ListBudgets(budget_pb2.ListBudgetsRequest(), metadata=person)
    settled = [one.status.settled_nano_usd for one in listed.budgets]
    assert settled == [250 * SMALL_OUTPUT_NANO_USD, 250 * SMALL_OUTPUT_NANO_USD, 0]
    of_this_run = budget_pb2.ListBudgetsRequest(scope=budget_pb2.BudgetScope(run_id="run_1"), page_size=1)
    found = await callers.budgets.ListBudgets(of_this_run, metadata=person)
    assert [one.budget_id for one in found.budgets] == [of_run.budget_id]
    everything = budget_pb2.ListBudgetsRequest(page_size=1)
    of_this_run.page_token = (await callers.budgets.ListBudgets(everything, metadata=person)).next_page_token
    error = await refusal(callers.budgets.ListBudgets(of_this_run, metadata=person))
    assert error.reason == "INVALID_PAGE_TOKEN"
    twice = budget_pb2.CreateBudgetRequest(
        budget=budget_pb2.Budget(name="again", limit_nano_usd=1, scope=of_team.scope, time_zone="Asia/Kathmandu")
    )
    error = await refusal(callers.budgets.CreateBudget(twice, metadata=person))
    assert (error.code, error.reason) == ("ALREADY_EXISTS", "BUDGET_OVERLAPS")
    assert of_team.budget_id in error.message


async def test_a_nul_that_the_database_cannot_keep_is_the_callers_fault(
    callers: Callers, settings: CostSettings
) -> None:
    make = callers.budgets.CreateBudget(
        budget_pb2.CreateBudgetRequest(budget=budget_pb2.Budget(name="a\0b", limit_nano_usd=USD)),
        metadata=callers.person(),
    )
    if settings.database_url.startswith("sqlite"):
        assert (await make).budget.name == "a\0b"
        return
    error = await refusal(make)
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")


async def test_wrong_budgets_are_refused_by_their_field_and_not_made(callers: Callers) -> None:
    refused = [
        (budget_pb2.Budget(name="b", limit_nano_usd=0), "budget.limit_nano_usd"),
        (budget_pb2.Budget(name="b", limit_nano_usd=-5), "budget.limit_nano_usd"),
        (budget_pb2.Budget(name="b", limit_nano_usd=10**18), "budget.limit_nano_usd"),
        (budget_pb2.Budget(name="", limit_nano_usd=1), "budget.name"),
        (budget_pb2.Budget(name="b", limit_nano_usd=1, time_zone="Mars/Olympus"), "budget.time_zone"),
        (budget_pb2.Budget(name="b", limit_nano_usd=1, scope=budget_pb2.BudgetScope(tag="team")), "budget.scope.tag"),
        (budget_pb2.Budget(name="b", limit_nano_usd=1, scope=budget_pb2.BudgetScope(model="m")), "budget.scope.model"),
        (budget_pb2.Budget(name="b", limit_nano_usd=1, thresholds_percent=[0]), "budget.thresholds_percent[0]"),
        (budget_pb2.Budget(name="b", limit_nano_usd=1, thresholds_percent=[5, 5]), "budget.thresholds_percent"),
        (budget_pb2.Budget(name="b", limit_nano_usd=1, period=99), "budget.period"),  # type: ignore[arg-type]
    ]
    for wanted, field in refused:
        create = budget_pb2.CreateBudgetRequest(budget=wanted)
        error = await refusal(callers.budgets.CreateBudget(create, metadata=callers.person()))
        assert (error.code, error.reason, error.field) == ("INVALID_ARGUMENT", "INVALID_FIELD", field)
    listed = await callers.budgets.ListBudgets(budget_pb2.ListBudgetsRequest(), metadata=callers.person())
    assert not listed.budgets


async def test_wrong_updates_are_refused_by_their_field_and_change_nothing(callers: Callers) -> None:
    made = await budget(callers)
    refused = [
        ([], 5, "update_mask"),
        (["time_zone"], 5, "update_mask"),
        (["period"], 5, "update_mask"),
        (["limit_nano_usd"], 0, "budget.limit_nano_usd"),
        (["name"], 5, "budget.name"),
    ]
    for paths, limit, field in refused:
        update = budget_pb2.UpdateBudgetRequest(
            budget_id=made.budget_id, budget=budget_pb2.Budget(limit_nano_usd=limit), update_mask=FieldMask(paths=paths)
        )
        error = await refusal(callers.budgets.UpdateBudget(update, metadata=callers.person()))
        assert error.field == field
    assert (await standing(callers, made.budget_id)).remaining_nano_usd == USD


async def test_a_foreign_project_sees_and_changes_nothing(callers: Callers) -> None:
    made = await budget(callers)
    await callers.holds.Hold(hold_pb2.HoldRequest(item=hold_item("a/1")), metadata=callers.service())
    stranger = callers.person("prj_2")
    mine = {"budget_id": made.budget_id}
    mask = FieldMask(paths=["name"])
    for call in (
        callers.budgets.GetBudget(budget_pb2.GetBudgetRequest(**mine), metadata=stranger),
        callers.budgets.DeleteBudget(budget_pb2.DeleteBudgetRequest(**mine), metadata=stranger),
        callers.budgets.UpdateBudget(
            budget_pb2.UpdateBudgetRequest(**mine, budget=budget_pb2.Budget(name="x"), update_mask=mask),
            metadata=stranger,
        ),
        callers.holds.Settle(hold_pb2.SettleRequest(item=settle_item("a/1")), metadata=callers.service("prj_2")),
    ):
        assert (await refusal(call)).reason == "NOT_FOUND"
    spend = await callers.usage.SummarizeSpend(spend_pb2.SummarizeSpendRequest(), metadata=stranger)
    assert (spend.total.calls, spend.held_nano_usd) == (0, 0)


async def test_permissions_are_those_of_the_contract(callers: Callers) -> None:
    item = hold_pb2.HoldRequest(item=hold_item("a/1"))
    everything = callers.person()
    assert (await refusal(callers.holds.Hold(item, metadata=everything))).reason == "PERMISSION_DENIED"
    assert (await refusal(callers.holds.Hold(item))).reason == "CREDENTIAL_MISSING"
    reader = callers.person("prj_1", "READ")
    create = budget_pb2.CreateBudgetRequest(budget=budget_pb2.Budget(name="b", limit_nano_usd=1))
    assert (await refusal(callers.budgets.CreateBudget(create, metadata=reader))).reason == "PERMISSION_DENIED"
    service = callers.service()
    summary = callers.usage.SummarizeSpend(spend_pb2.SummarizeSpendRequest(), metadata=service)
    assert (await refusal(summary)).reason == "PERMISSION_DENIED"


async def test_what_was_acknowledged_is_there_after_a_restart(settings: CostSettings, clock: ManualClock) -> None:
    items = [hold_item(f"a{number}/1") for number in range(20)]
    async with build(settings, clock=clock) as first, grpc.aio.insecure_channel(first.address) as channel:
        callers = Callers(channel)
        await callers.holds.HoldBatch(hold_pb2.HoldBatchRequest(items=items), metadata=callers.service())
        settles = [settle_item(f"a{number}/1") for number in range(10)]
        await callers.holds.SettleBatch(hold_pb2.SettleBatchRequest(items=settles), metadata=callers.service())
    async with build(settings, clock=clock) as second, grpc.aio.insecure_channel(second.address) as channel:
        callers = Callers(channel)
        request = hold_pb2.ResolveAttemptsRequest(attempt_ids=[item.attempt_id for item in items])
        known = await callers.holds.ResolveAttempts(request, metadata=callers.service())
    states = [one.state for one in known.attempts]
    assert states == [hold_pb2.ATTEMPT_STATE_SETTLED] * 10 + [hold_pb2.ATTEMPT_STATE_HELD] * 10
