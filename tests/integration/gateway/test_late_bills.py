"""A direct call while the cost service is away: answered, and billed exactly once when it is back."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import grpc

from llmlab.api.cost.v1 import hold_pb2
from llmlab.api.gateway.v1 import gateway_pb2_grpc
from services.cost import wiring as cost_wiring
from services.cost.settings import CostSettings
from services.gateway import wiring as gateway_wiring
from services.gateway.settings import GatewaySettings
from services.gateway.store.journal import BillJournal
from tests.support.gateway_rpc import SERVICE_KEY, TRACED, Caller, refusal_of, rpc_call
from tests.support.spans import spans_of, way


async def test_a_call_without_the_cost_service_is_billed_when_it_is_back(tmp_path: Path) -> None:
    home = tmp_path / "home"
    journal = BillJournal(home / "gateway-late-bills.db", 10)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(AsyncExitStack())
        books = CostSettings(port=0, home=home, auth_service_key=SERVICE_KEY)
        cost = await first.enter_async_context(cost_wiring.build(books))
        costs = await stack.enter_async_context(grpc.aio.insecure_channel(cost.address))
        settings = GatewaySettings(
            port=0,
            home=home,
            auth_service_key=SERVICE_KEY,
            cost_target=cost.address,
            hold_wait_ms=1,
            cost_timeout_ms=500,
            trace_file=tmp_path / "spans",
            trace_ratio=0,
        )
        gateway = await stack.enter_async_context(gateway_wiring.build(settings, environ={}))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(gateway.address))
        caller = Caller(gateway_pb2_grpc.GatewayServiceStub(channel), costs)
        await caller.complete(rpc_call(call_id="before"))
        port = int(cost.address.rpartition(":")[2])
        await first.aclose()

        answer = await caller.complete(rpc_call(call_id="meanwhile", traceparent=TRACED))
        assert not answer.HasField("cost")
        assert [attempt_id for attempt_id, _ in await journal.oldest(10)] == ["meanwhile/1"]
        error, call_error = await refusal_of(caller.complete(rpc_call(call_id="run/1/1", run_id="run_1")))
        assert (error.reason, call_error.dispatched) == ("DEPENDENCY_UNAVAILABLE", False)

        await stack.enter_async_context(cost_wiring.build(books.model_copy(update={"port": port})))
        for _ in range(600):
            if not await journal.oldest(10):
                break
            await asyncio.sleep(0.1)
        settled = await caller.attempt_state("meanwhile/1")
        assert settled.state == hold_pb2.ATTEMPT_STATE_SETTLED
        assert settled.usage == answer.usage
        assert (await caller.spend()).total.calls == 2
    later = way(spans_of(tmp_path / "spans"))[-2:]
    assert later == [("hold", "call"), ("settle", "call")], "the call's trace goes on after its end"
