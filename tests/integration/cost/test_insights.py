"""Anomalies and forecasts over real gRPC, on both databases."""

from __future__ import annotations

import asyncio
import random

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from llmlab.api.common.v1 import usage_pb2
from llmlab.api.cost.v1 import budget_pb2, insight_pb2, spend_pb2
from services.cost.settings import CostSettings
from services.cost.wiring import build
from services.runtime.clock import ManualClock
from services.runtime.errors import DomainError
from services.runtime.status import error_from_rpc
from tests.support.cost import HOUR_US, NOVEMBER_US, Callers

USD = 1_000_000_000
TOKEN_NANO_USD = 400
"""A token of output of mock/small."""
ORIGIN_US = NOVEMBER_US // HOUR_US * HOUR_US
HISTORY_HOURS = 3 * 168


@pytest.fixture
def settings(settings: CostSettings) -> CostSettings:
    return settings.model_copy(update={"anomaly_interval_s": 0.02, "watch_poll_ms": 20})


def usage_event(number: int, at_us: int, tokens: int, model: str = "small") -> spend_pb2.UsageEvent:
    return spend_pb2.UsageEvent(
        event_id=f"{model}/{number}",
        source="app",
        provider="mock",
        model=model,
        usage=usage_pb2.TokenUsage(output_tokens=tokens, source=usage_pb2.USAGE_SOURCE_MEASURED),
        attribution=spend_pb2.Attribution(user_id="ann"),
        occurred_at=timestamp(at_us),
    )


def timestamp(at_us: int) -> Timestamp:
    return Timestamp(seconds=at_us // 1_000_000)


async def spend_for_weeks(callers: Callers, spike_hours_ago: int = 0, hours: int = HISTORY_HOURS) -> int:
    """About 4 USD an hour until the last full hour, and 40 in one of them; returns nano-USD."""
    noise = random.Random(1)
    total = 0
    events = []
    for hours_ago in range(hours, 0, -1):
        tokens = 100_000_000 if hours_ago == spike_hours_ago else round(10_000_000 * noise.uniform(0.9, 1.1))
        events.append(usage_event(hours_ago, ORIGIN_US - hours_ago * HOUR_US, tokens))
        total += tokens * TOKEN_NANO_USD
    # In one transaction: a search that comes between two would judge hours that have only a part of their usage.
    await callers.usage.RecordUsage(spend_pb2.RecordUsageRequest(events=events), metadata=callers.person())
    return total


async def first_anomalies(callers: Callers, after: int = 0) -> insight_pb2.WatchAnomaliesResponse:
    request = insight_pb2.WatchAnomaliesRequest(after_sequence=after)
    watch = callers.insights.WatchAnomalies(request, metadata=callers.person())
    async for message in watch:
        if message.anomalies:
            watch.cancel()
            return message
    raise AssertionError("the stream ended")


async def listed(callers: Callers, project_id: str = "prj_1", **wanted: object) -> list[insight_pb2.Anomaly]:
    request = insight_pb2.ListAnomaliesRequest(**wanted)  # type: ignore[arg-type]
    answer = await callers.insights.ListAnomalies(request, metadata=callers.person(project_id))
    return list(answer.anomalies)


async def refusal(call: object) -> DomainError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call  # type: ignore[misc]
    return error_from_rpc(refused.value)


async def test_a_spike_is_found_told_once_listed_and_resumed(callers: Callers) -> None:
    await spend_for_weeks(callers, spike_hours_ago=2)
    message = await first_anomalies(callers)
    found = {(one.provider, one.model): one for one in message.anomalies}
    assert set(found) == {("", ""), ("mock", ""), ("mock", "small")}
    spike = found["", ""]
    assert spike.start_time == timestamp(ORIGIN_US - 2 * HOUR_US)
    assert spike.observed_nano_usd == 40 * USD
    assert spike.expected_nano_usd == pytest.approx(4 * USD, rel=0.1)
    assert spike.lower_nano_usd < spike.expected_nano_usd < spike.upper_nano_usd < 5 * USD
    assert spike.impact_nano_usd == spike.observed_nano_usd - spike.expected_nano_usd
    assert 0.5 <= spike.score <= 1
    assert message.latest_sequence == 3
    assert {one.sequence for one in await listed(callers)} == {1, 2, 3}
    assert [one.model for one in await listed(callers, model="small")] == ["small"]
    assert len(await listed(callers, provider="mock")) == 2
    assert await listed(callers, impact_min_nano_usd=37 * USD) == []
    assert len(await listed(callers, impact_min_nano_usd=30 * USD)) == 3
    assert await listed(callers, end_time=timestamp(ORIGIN_US - 2 * HOUR_US)) == []
    assert await listed(callers, "prj_2") == []
    rest = await first_anomalies(callers, after=2)
    assert [one.sequence for one in rest.anomalies] == [3]


async def test_lists_are_paged(callers: Callers) -> None:
    await spend_for_weeks(callers, spike_hours_ago=2)
    await first_anomalies(callers)
    sequences, token = [], ""
    while True:
        request = insight_pb2.ListAnomaliesRequest(page_size=2, page_token=token)
        page = await callers.insights.ListAnomalies(request, metadata=callers.person())
        sequences += [one.sequence for one in page.anomalies]
        token = page.next_page_token
        if not token:
            break
    assert sequences == [3, 2, 1]
    wrong = insight_pb2.ListAnomaliesRequest(page_size=2, page_token="x", provider="mock")
    error = await refusal(callers.insights.ListAnomalies(wrong, metadata=callers.person()))
    assert error.reason == "INVALID_PAGE_TOKEN"


async def test_replicas_find_each_anomaly_once(
    settings: CostSettings, callers: Callers, clock: ManualClock, database_url: str
) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("one process has the file")
    await spend_for_weeks(callers, spike_hours_ago=2)
    async with build(settings, clock=clock) as other, grpc.aio.insecure_channel(other.address) as channel:
        there, here = await asyncio.gather(first_anomalies(Callers(channel)), first_anomalies(callers))
        assert [one.sequence for one in there.anomalies] == [one.sequence for one in here.anomalies] == [1, 2, 3]


async def test_a_month_is_forecast_to_its_end(callers: Callers) -> None:
    total = await spend_for_weeks(callers)
    answer = await callers.insights.GetForecast(insight_pb2.GetForecastRequest(), metadata=callers.person())
    found = answer.forecast
    assert found.period == "2026-11"
    assert found.end_time.ToJsonString() == "2026-12-01T00:00:00Z"
    assert found.method == "seasonal-smoothing"
    assert found.history_hours == HISTORY_HOURS
    assert found.level_percent == 80
    hours_of_november = (ORIGIN_US // 1_000_000 - found.start_time.seconds) // 3_600
    assert found.spent_nano_usd == pytest.approx(total * hours_of_november / HISTORY_HOURS, rel=0.02)
    assert found.total_nano_usd == pytest.approx(30 * 24 * 4 * USD, rel=0.02)
    assert found.spent_nano_usd < found.lower_nano_usd < found.total_nano_usd < found.upper_nano_usd
    wide = insight_pb2.GetForecastRequest(level_percent=99, period=budget_pb2.BUDGET_PERIOD_WEEKLY)
    week = (await callers.insights.GetForecast(wide, metadata=callers.person())).forecast
    assert (week.period, week.level_percent) == ("2026-W47", 99)


async def test_a_budget_is_forecast_in_its_own_scope_and_period(callers: Callers) -> None:
    await spend_for_weeks(callers)
    other = usage_event(1, ORIGIN_US - HOUR_US, 1_000_000_000)
    other.attribution.user_id = "bob"
    other.event_id = "bob/1"
    await callers.usage.RecordUsage(spend_pb2.RecordUsageRequest(events=[other]), metadata=callers.person())
    wanted = budget_pb2.Budget(
        name="ann's day",
        limit_nano_usd=100 * USD,
        period=budget_pb2.BUDGET_PERIOD_DAILY,
        time_zone="Asia/Kathmandu",
        scope=budget_pb2.BudgetScope(user_id="ann", model="mock/small"),
    )
    made = await callers.budgets.CreateBudget(budget_pb2.CreateBudgetRequest(budget=wanted), metadata=callers.person())
    request = insight_pb2.GetForecastRequest(budget_id=made.budget.budget_id)
    found = (await callers.insights.GetForecast(request, metadata=callers.person())).forecast
    assert (found.period, found.limit_nano_usd) == ("2026-11-18", 100 * USD)
    assert found.end_time.ToJsonString() == "2026-11-18T18:15:00Z"
    assert found.total_nano_usd == pytest.approx(24 * 4 * USD, rel=0.05)
    both = insight_pb2.GetForecastRequest(budget_id=made.budget.budget_id, time_zone="UTC")
    error = await refusal(callers.insights.GetForecast(both, metadata=callers.person()))
    assert (error.reason, error.field) == ("INVALID_FIELD", "budget_id")
    foreign = callers.insights.GetForecast(request, metadata=callers.person("prj_2"))
    assert (await refusal(foreign)).reason == "NOT_FOUND"


async def test_a_young_project_is_told_what_is_missing(callers: Callers) -> None:
    await spend_for_weeks(callers, hours=100)
    error = await refusal(callers.insights.GetForecast(insight_pb2.GetForecastRequest(), metadata=callers.person()))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "INSUFFICIENT_HISTORY")
    assert error.metadata["history_hours"] == "100"
    assert error.metadata["needed_hours"] == "336"
    assert "two weeks" in error.message


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"period": budget_pb2.BUDGET_PERIOD_TOTAL}, "period"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"level_percent": 49}, "level_percent"),
        ({"level_percent": 100}, "level_percent"),
    ],
)
async def test_wrong_questions_are_refused(callers: Callers, wanted: dict[str, object], field: str) -> None:
    request = insight_pb2.GetForecastRequest(**wanted)  # type: ignore[arg-type]
    error = await refusal(callers.insights.GetForecast(request, metadata=callers.person()))
    assert error.code == "INVALID_ARGUMENT"
    assert field in str(error.violations) + str(getattr(error, "field", ""))
