"""kill -9 of the cost process right after a commit: the caller repeats itself and nothing is counted twice."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from llmlab.api.common.v1 import usage_pb2
from llmlab.api.cost.v1 import alert_pb2, budget_pb2, hold_pb2, spend_pb2
from tests.support.cost import SERVICE_KEY, Callers, hold_item, raise_alert, settle_item
from tests.support.processes import start_child
from tests.support.receiver import always, receiving

USD = 1_000_000_000
Batches = list[list[spend_pb2.UsageEvent]]


@asynccontextmanager
async def running(
    home: Path, failpoints: str = "", **settings: str
) -> AsyncIterator[tuple[Callers, "subprocess.Popen[bytes]"]]:
    """The cost service as a process; without a database_url on the SQLite file in `home`."""
    environ = os.environ | {
        "LLMLAB_HOME": str(home),
        "LLMLAB_COST_PORT": "0",
        "LLMLAB_AUTH_SERVICE_KEY": SERVICE_KEY,
        "LLMLAB_FAILPOINTS": failpoints,
        **{f"LLMLAB_COST_{name.upper()}": value for name, value in settings.items()},
    }
    command = [sys.executable, "-m", "services.cost"]
    process = start_child(command, on_parent_death=signal.SIGKILL, env=environ, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = await asyncio.to_thread(process.stdout.readline)
        async with grpc.aio.insecure_channel(line.decode().split()[-1]) as channel:
            yield Callers(channel), process
    finally:
        process.kill()
        await asyncio.to_thread(process.communicate)


async def test_a_hold_and_a_settlement_survive_the_death_of_the_service(tmp_path: Path) -> None:
    hold = hold_pb2.HoldRequest(item=hold_item("a/1"))
    settle = hold_pb2.SettleRequest(item=settle_item("a/1", tokens=250))
    async with running(tmp_path, "cost.hold_committed=kill") as (callers, process):
        create = budget_pb2.CreateBudgetRequest(budget=budget_pb2.Budget(name="b", limit_nano_usd=USD))
        made = (await callers.budgets.CreateBudget(create, metadata=callers.person())).budget
        with pytest.raises(grpc.aio.AioRpcError) as lost:
            await callers.holds.Hold(hold, metadata=callers.service())
        assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await asyncio.to_thread(process.wait) == -signal.SIGKILL
    async with running(tmp_path, "cost.settle_committed=kill") as (callers, process):
        held = (await callers.holds.Hold(hold, metadata=callers.service())).outcome
        status = (
            await callers.budgets.GetBudget(
                budget_pb2.GetBudgetRequest(budget_id=made.budget_id), metadata=callers.person()
            )
        ).budget.status
        assert status.held_nano_usd == held.held_nano_usd > 0
        with pytest.raises(grpc.aio.AioRpcError):
            await callers.holds.Settle(settle, metadata=callers.service())
        assert await asyncio.to_thread(process.wait) == -signal.SIGKILL
    async with running(tmp_path) as (callers, _):
        settled = (await callers.holds.Settle(settle, metadata=callers.service())).outcome
        spend = await callers.usage.SummarizeSpend(spend_pb2.SummarizeSpendRequest(), metadata=callers.person())
        status = (
            await callers.budgets.GetBudget(
                budget_pb2.GetBudgetRequest(budget_id=made.budget_id), metadata=callers.person()
            )
        ).budget.status
    assert spend.total.calls == 1
    assert spend.total.cost.cost_nano_usd == settled.cost.cost_nano_usd == status.settled_nano_usd == 100_000
    assert (spend.held_nano_usd, status.held_nano_usd) == (0, 0)


async def test_an_alert_whose_delivery_was_not_put_down_is_delivered_again_under_its_id(tmp_path: Path) -> None:
    settings = {"webhook_private_receivers": "true", "webhook_timeout_s": "2.9", "webhook_lease_s": "3"}
    async with receiving(always(200)) as receiver:
        async with running(tmp_path, "cost.webhook_posted=kill", **settings) as (callers, process):
            create = alert_pb2.CreateWebhookRequest(webhook=alert_pb2.Webhook(url=receiver.url))
            made = await callers.alerts.CreateWebhook(create, metadata=callers.person())
            await raise_alert(callers, "unheard-of")
            await receiver.until(1)
            assert await asyncio.to_thread(process.wait) == -signal.SIGKILL
        async with running(tmp_path, **settings) as (callers, _):
            await receiver.until(2, delivered=False)
            await raise_alert(callers, "unseen")
            await receiver.until(2)
    first, again, other = receiver.messages
    assert first.message_id == again.message_id != other.message_id
    assert first.body == again.body
    assert all(message.is_signed_with(made.secret) for message in receiver.messages)


async def test_no_acknowledged_usage_is_lost_and_a_replay_changes_nothing(tmp_path: Path, database_url: str) -> None:
    seed = random.randrange(2**32)
    shuffled = random.Random(seed)
    now_s = int(time.time())
    batches = [[_reported(20 * number + index, now_s) for index in range(20)] for number in range(60)]
    acknowledged: set[str] = set()

    async def send(callers: Callers, mine: Batches, process: "subprocess.Popen[bytes]") -> None:
        for events in mine:
            request = spend_pb2.RecordUsageRequest(events=events)
            try:
                await callers.usage.RecordUsage(request, metadata=callers.person(), timeout=10)
            except grpc.aio.AioRpcError:
                return
            acknowledged.update(event.event_id for event in events)
            if len(acknowledged) >= 600:
                process.kill()

    async with running(tmp_path, database_url=database_url) as (callers, process):
        await asyncio.gather(*[send(callers, batches[number::4], process) for number in range(4)])
        assert await asyncio.to_thread(process.wait) == -signal.SIGKILL
    totals = []
    async with running(tmp_path, database_url=database_url) as (callers, _):
        kept = {usage.event.event_id async for usage in _all_usage(callers)}
        assert acknowledged <= kept, f"seed {seed}"
        for _ in range(3):
            shuffled.shuffle(batches)
            answer = await callers.usage.StreamUsage(_messages(batches), metadata=callers.person())
            assert answer.acknowledged == 1_200
            question = spend_pb2.SummarizeSpendRequest(
                group_by=[spend_pb2.SPEND_DIMENSION_DAY, spend_pb2.SPEND_DIMENSION_TAG], page_size=1_000
            )
            summary = await callers.usage.SummarizeSpend(question, metadata=callers.person())
            totals.append((list(summary.rows), summary.total))
    assert totals[0] == totals[1] == totals[2], f"seed {seed}"
    assert totals[0][1].calls == 1_200
    assert totals[0][1].cost.cost_nano_usd == 400 * sum(range(1_200))


def _reported(number: int, now_s: int) -> spend_pb2.UsageEvent:
    return spend_pb2.UsageEvent(
        event_id=f"e{number}",
        source="app",
        provider="mock",
        model="small",
        usage=usage_pb2.TokenUsage(output_tokens=number),
        attribution=spend_pb2.Attribution(tags={"team": str(number % 3), "env": "x"}),
        occurred_at=Timestamp(seconds=now_s - 60 * number),
    )


async def _messages(batches: list[list[spend_pb2.UsageEvent]]) -> AsyncIterator[spend_pb2.StreamUsageRequest]:
    for events in batches:
        yield spend_pb2.StreamUsageRequest(events=events)


async def _all_usage(callers: Callers) -> AsyncIterator[spend_pb2.RecordedUsage]:
    request = spend_pb2.ListUsageEventsRequest(page_size=500)
    while True:
        page = await callers.usage.ListUsageEvents(request, metadata=callers.person())
        for usage in page.usage:
            yield usage
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return
