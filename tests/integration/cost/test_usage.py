"""Usage and spend over real gRPC, on both databases: streams, lists, exports, foreign tenants."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Awaitable
from decimal import Decimal
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from llmlab.api.common.v1 import usage_pb2
from llmlab.api.cost.v1 import budget_pb2
from llmlab.api.cost.v1 import spend_pb2 as pb
from services.runtime.errors import DomainError
from services.runtime.status import error_from_rpc
from tests.support.cost import NOVEMBER_US, USD, Callers

DAY_S = 86_400
NOW_S = NOVEMBER_US // 1_000_000


async def refusal(call: Awaitable[Any]) -> DomainError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return error_from_rpc(refused.value)


def event(number: int, **more: Any) -> pb.UsageEvent:
    """Event number so-and-so: as many tokens of output, so many hours ago, by one of two users."""
    made = pb.UsageEvent(
        event_id=f"e{number}",
        source="app",
        provider="mock",
        model="small",
        usage=usage_pb2.TokenUsage(output_tokens=number),
        attribution=pb.Attribution(user_id=f"usr_{number % 2}", tags={"team": "a", "env": f"{number % 3}"}),
        occurred_at=Timestamp(seconds=NOW_S - 3_600 * number),
        metadata={"number": str(number)},
    )
    made.MergeFrom(pb.UsageEvent(**more))
    return made


async def stream(*batches: list[pb.UsageEvent]) -> AsyncIterator[pb.StreamUsageRequest]:
    for events in batches:
        yield pb.StreamUsageRequest(events=events)


async def listed(callers: Callers, **question: Any) -> list[pb.RecordedUsage]:
    request = pb.ListUsageEventsRequest(**question)
    found: list[pb.RecordedUsage] = []
    while True:
        page = await callers.usage.ListUsageEvents(request, metadata=callers.person())
        found += page.usage
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return found


async def exported(callers: Callers, file_format: pb.SpendFormat.ValueType, **question: Any) -> str:
    request = pb.ExportSpendRequest(question=pb.SummarizeSpendRequest(**question), format=file_format)
    pieces = [piece.data async for piece in callers.usage.ExportSpend(request, metadata=callers.person())]
    return b"".join(pieces).decode()


async def test_a_stream_is_acknowledged_and_counted_once(callers: Callers) -> None:
    person = callers.person()
    events = [event(number) for number in range(250)]
    batches = [events[start : start + 100] for start in range(0, 250, 100)]
    first = await callers.usage.StreamUsage(stream(*batches), metadata=person)
    assert (first.acknowledged, first.duplicates) == (250, 0)
    again = await callers.usage.StreamUsage(stream(events[::-1], events[100:]), metadata=person)
    assert (again.acknowledged, again.duplicates) == (400, 400)
    window = pb.SummarizeSpendRequest(rolling=Duration(seconds=30 * DAY_S))
    total = (await callers.usage.SummarizeSpend(window, metadata=person)).total
    assert (total.calls, total.cost) == (250, first.cost)


async def test_a_stream_ends_at_its_first_wrong_message(callers: Callers) -> None:
    wrong = event(3, usage=usage_pb2.TokenUsage(output_tokens=10**12))
    error = await refusal(
        callers.usage.StreamUsage(stream([event(1)], [event(2), wrong], [event(4)]), metadata=callers.person())
    )
    assert (error.code, error.field) == ("INVALID_ARGUMENT", "events[1].usage.output_tokens")
    assert [usage.event.event_id for usage in await listed(callers)] == ["e1"]
    error = await refusal(callers.usage.StreamUsage(stream([event(5)], []), metadata=callers.person()))
    assert error.field == "events"
    other = event(1, model="large")
    error = await refusal(callers.usage.StreamUsage(stream([event(6)], [other]), metadata=callers.person()))
    assert (error.code, error.reason) == ("ALREADY_EXISTS", "USAGE_EVENT_MISMATCH")


async def test_events_are_found_again(callers: Callers) -> None:
    person = callers.person()
    events = [event(number) for number in range(30)]
    await callers.usage.RecordUsage(pb.RecordUsageRequest(events=events), metadata=person)
    request = pb.GetUsageEventRequest(source="app", event_id="e7")
    one = (await callers.usage.GetUsageEvent(request, metadata=person)).usage
    assert one.event == event(7, usage=usage_pb2.TokenUsage())
    assert (one.cost.cost_nano_usd, one.succeeded) == (7 * 400, True)
    assert sum(one.cost_parts.values()) == one.cost.cost_nano_usd
    assert (await refusal(callers.usage.GetUsageEvent(request, metadata=callers.person("prj_2")))).reason == "NOT_FOUND"
    every = await listed(callers, page_size=7)
    assert [usage.event.event_id for usage in every] == [f"e{number}" for number in range(30)]
    odd = await listed(callers, page_size=4, filter=pb.SpendFilter(user_id="usr_1", tag="env=0"))
    assert [usage.event.event_id for usage in odd] == [f"e{number}" for number in range(30) if number % 6 == 3]
    since = Timestamp(seconds=NOW_S - 3_600 * 5)
    recent = await listed(callers, start_time=since, end_time=Timestamp(seconds=NOW_S), source="app")
    assert [usage.event.event_id for usage in recent] == ["e1", "e2", "e3", "e4", "e5"]
    assert await listed(callers, source="other") == []
    backwards = pb.ListUsageEventsRequest(start_time=Timestamp(seconds=NOW_S), end_time=since)
    assert (await refusal(callers.usage.ListUsageEvents(backwards, metadata=person))).field == "start_time"
    stranger = await callers.usage.ListUsageEvents(pb.ListUsageEventsRequest(), metadata=callers.person("prj_2"))
    assert not stranger.usage


async def test_a_late_event_is_in_its_own_day_and_absurd_ones_are_nowhere(callers: Callers) -> None:
    person = callers.person()
    late = Timestamp(seconds=NOW_S - 40 * DAY_S)
    record = pb.RecordUsageRequest(events=[event(1, occurred_at=late), event(2)])
    await callers.usage.RecordUsage(record, metadata=person)
    by_day = pb.SummarizeSpendRequest(period="2026-10", group_by=[pb.SPEND_DIMENSION_DAY], time_zone="Asia/Kathmandu")
    october = await callers.usage.SummarizeSpend(by_day, metadata=person)
    assert [(list(row.keys), row.calls) for row in october.rows] == [(["2026-10-09"], 1)]
    for wrong, field in [
        (event(3, occurred_at=Timestamp(seconds=NOW_S + 2 * 3_600)), "events[0].occurred_at"),
        (event(3, occurred_at=Timestamp(seconds=NOW_S - 400 * DAY_S)), "events[0].occurred_at"),
        (event(3, usage=usage_pb2.TokenUsage(reasoning_tokens=99)), "events[0].usage.output_tokens"),
    ]:
        request = pb.RecordUsageRequest(events=[wrong])
        assert (await refusal(callers.usage.RecordUsage(request, metadata=person))).field == field
    assert len(await listed(callers)) == 2


async def test_exports_add_up_to_the_summary(callers: Callers) -> None:
    person = callers.person()
    events = [event(number, attribution=pb.Attribution(tags={"+cmd": "x"})) for number in range(1, 40)]
    events.append(event(40, provider="mock", model="unheard-of"))
    await callers.usage.RecordUsage(pb.RecordUsageRequest(events=events), metadata=person)
    dimensions = [pb.SPEND_DIMENSION_DAY, pb.SPEND_DIMENSION_TAG]
    question: dict[str, Any] = {"group_by": dimensions, "tag_share": pb.TAG_SHARE_SPLIT}
    total = (await callers.usage.SummarizeSpend(pb.SummarizeSpendRequest(**question), metadata=person)).total
    lines = list(csv.DictReader(io.StringIO(await exported(callers, pb.SPEND_FORMAT_CSV, **question))))
    assert sum(int(line["cost_nano_usd"] or 0) for line in lines) == total.cost.cost_nano_usd
    assert {line["tag"] for line in lines} >= {"'+cmd=x", "team=a", "env=1"}
    written = await exported(callers, pb.SPEND_FORMAT_JSON_LINES, **question)
    objects = [json.loads(line) for line in written.splitlines()]
    assert [one["day"] for one in objects] == [line["day"] for line in lines]
    assert [one["calls"] for one in objects] == [int(line["calls"]) for line in lines]
    assert "+cmd=x" in {one["tag"] for one in objects}


async def test_a_focus_export_has_its_columns_and_every_dollar(callers: Callers) -> None:
    events = [event(number) for number in range(1, 40)] + [event(40, model="unheard-of")]
    await callers.usage.RecordUsage(pb.RecordUsageRequest(events=events), metadata=callers.person())
    question = {"group_by": [pb.SPEND_DIMENSION_TAG], "time_zone": "Asia/Kathmandu", "period": "2026-11"}
    lines = list(csv.DictReader(io.StringIO(await exported(callers, pb.SPEND_FORMAT_FOCUS_CSV, **question))))
    costs = [line["BilledCost"] for line in lines]
    assert "" in costs, "an unpriced call is not free"
    summary = pb.SummarizeSpendRequest(period="2026-11", time_zone="Asia/Kathmandu")
    total = (await callers.usage.SummarizeSpend(summary, metadata=callers.person())).total
    assert sum(Decimal(cost) for cost in costs if cost) * 10**9 == total.cost.cost_nano_usd
    first = lines[0]
    assert (first["BillingPeriodStart"], first["BillingPeriodEnd"]) == ("2026-10-31T18:15:00Z", "2026-11-30T18:15:00Z")
    assert first["ChargePeriodStart"].endswith("T18:15:00Z")
    assert (first["ServiceCategory"], first["BillingCurrency"]) == ("AI and Machine Learning", "USD")
    assert [name for name in first if not name.startswith("x_")][:2] == ["BilledCost", "EffectiveCost"]
    assert {line["x_Tag"] for line in lines} == {"team=a", "env=0", "env=1", "env=2"}


async def test_an_export_takes_no_page_and_no_week_in_focus(callers: Callers) -> None:
    cases: list[tuple[dict[str, Any], pb.SpendFormat.ValueType, str]] = [
        ({"page_size": 5}, pb.SPEND_FORMAT_CSV, "question.page_size"),
        ({"compare": True}, pb.SPEND_FORMAT_CSV, "question.compare"),
        ({"group_by": [pb.SPEND_DIMENSION_WEEK]}, pb.SPEND_FORMAT_FOCUS_CSV, "question.group_by"),
        ({"tag_share": pb.TAG_SHARE_FULL}, pb.SPEND_FORMAT_FOCUS_CSV, "question.tag_share"),
        ({}, pb.SPEND_FORMAT_UNSPECIFIED, "format"),
    ]
    for question, file_format, field in cases:
        assert (await refusal(exported(callers, file_format, **question))).field == field


async def test_what_the_database_cannot_keep_is_refused_and_harms_nobody_else(callers: Callers) -> None:
    create = budget_pb2.CreateBudgetRequest(budget=budget_pb2.Budget(name="month", limit_nano_usd=USD))
    await callers.budgets.CreateBudget(create, metadata=callers.person())
    bad = [
        event(1, occurred_at=Timestamp(seconds=253_402_300_799)),
        event(1, occurred_at=Timestamp(seconds=2**62)),
        event(1, attribution=pb.Attribution(tags={"a": "x\0"})),
        event(1, attribution=pb.Attribution(tags={"a=b": "c"})),
        event(1, metadata={"a": "\0"}),
        event(1, source="app\0"),
        event(1, usage=usage_pb2.TokenUsage(steps=1_000_000)),
    ]
    reports = [callers.usage.RecordUsage(pb.RecordUsageRequest(events=[one]), metadata=callers.person()) for one in bad]
    good = callers.usage.RecordUsage(pb.RecordUsageRequest(events=[event(2)]), metadata=callers.person())
    for report in reports:
        assert (await refusal(report)).code == "INVALID_ARGUMENT"
    assert len((await good).costs) == 1
    assert [one.event.event_id for one in await listed(callers)] == ["e2"]
