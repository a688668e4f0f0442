"""What a server does when it is full, and when it stops."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc.aio import AioRpcError
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime.errors import DomainError
from services.runtime.status import error_from_rpc
from tests.support.echo import Echo, EchoServicer, request, running_echo

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Gate:
    """Handlers wait behind it; tests see how many do."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.waiting = asyncio.Semaphore(0)
        self.cleaned_up = 0

    async def answer(self, _: Any) -> str:
        self.waiting.release()
        try:
            await self.open.wait()
            return "done"
        finally:
            self.cleaned_up += 1

    async def stream(self, _: Any) -> AsyncIterator[str]:
        yield await self.answer(None)

    async def wait_for(self, callers: int) -> None:
        for _ in range(callers):
            await self.waiting.acquire()


@pytest.fixture
def gate() -> Gate:
    return Gate()


async def refusal(call: Any) -> DomainError:
    with pytest.raises(AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value)


async def health_of(echo: Echo, name: str) -> int:
    stub: Any = health_pb2_grpc.HealthStub(echo.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
    return int(answer.status)


async def test_calls_above_the_limit_are_asked_to_come_back(gate: Gate) -> None:
    async with running_echo(EchoServicer(answer=gate.answer), max_concurrent_rpcs=2, overload_retry_ms=70) as echo:
        calls = [asyncio.ensure_future(echo.stub.Echo(request(), metadata=echo.metadata())) for _ in range(2)]
        await gate.wait_for(2)
        error = await refusal(echo.stub.Echo(request(), metadata=echo.metadata()))
        # Streams have a limit of their own, and health is no work.
        streamed = [answer.text async for answer in echo.stub.Count(request(), metadata=echo.metadata())]
        assert len(streamed) == 3
        assert await health_of(echo, "liveness") == SERVING
        gate.open.set()
        assert [answer.text for answer in await asyncio.gather(*calls)] == ["done", "done"]
        assert (await echo.stub.Echo(request(), metadata=echo.metadata())).text == "done"

    assert (error.code, error.reason, error.retry_after_ms) == ("RESOURCE_EXHAUSTED", "OVERLOADED", 70)
    assert "LLMLAB_MAX_CONCURRENT_RPCS" in error.message


async def test_streams_above_the_limit_are_asked_to_come_back(gate: Gate) -> None:
    servicer = EchoServicer(stream=gate.stream)
    async with running_echo(servicer, max_streams=1) as echo:
        first = echo.stub.Watch(request(), metadata=echo.metadata())
        await gate.wait_for(1)
        error = await refusal(echo.stub.Count(request(), metadata=echo.metadata()).read())
        assert (await echo.stub.Echo(request("unary"), metadata=echo.metadata())).text == "unary"
        first.cancel()
        await echo.server.load.wait_idle()
        gate.open.set()
        assert (await echo.stub.Count(request(), metadata=echo.metadata()).read()).text == "done"

    assert error.reason == "OVERLOADED"
    assert "LLMLAB_MAX_STREAMS" in error.message


async def test_refused_and_failed_calls_give_their_place_back() -> None:
    async with running_echo(max_concurrent_rpcs=1) as echo:
        for _ in range(3):
            assert (await refusal(echo.stub.Echo(request()))).reason == "CREDENTIAL_MISSING"
        assert (await echo.stub.Echo(request("in"), metadata=echo.metadata())).text == "in"
        assert echo.server.load.in_progress == 0


async def test_a_stopping_server_ends_what_it_began_and_begins_nothing(gate: Gate) -> None:
    async with running_echo(EchoServicer(answer=gate.answer, stream=gate.stream)) as echo:
        unary = asyncio.ensure_future(echo.stub.Echo(request(), metadata=echo.metadata()))
        finite = asyncio.ensure_future(echo.stub.Count(request(), metadata=echo.metadata()).read())
        endless = asyncio.ensure_future(echo.stub.Watch(request(), metadata=echo.metadata()).read())
        await gate.wait_for(3)
        await echo.server.health.stop()
        draining = asyncio.create_task(echo.server.load.drain(60))

        watching = await refusal(endless)
        new = await refusal(echo.stub.Echo(request(), metadata=echo.metadata()))
        assert await health_of(echo, "") == NOT_SERVING
        assert await health_of(echo, "liveness") == SERVING
        assert not draining.done()
        gate.open.set()
        assert ((await unary).text, (await finite).text) == ("done", "done")
        await draining

    for error in (watching, new):
        assert (error.code, error.reason) == ("UNAVAILABLE", "SHUTTING_DOWN")


async def test_what_outlasts_the_grace_period_is_cut_and_cleans_up(gate: Gate) -> None:
    async with running_echo(EchoServicer(answer=gate.answer, stream=gate.stream), grace_s=0.05) as echo:
        calls = [
            asyncio.ensure_future(echo.stub.Echo(request(), metadata=echo.metadata())),
            asyncio.ensure_future(echo.stub.Count(request(), metadata=echo.metadata()).read()),
        ]
        await gate.wait_for(2)
        await echo.server.load.drain(0.05)
        errors = [await refusal(call) for call in calls]

    assert [error.reason for error in errors] == ["SHUTTING_DOWN"] * 2
    assert gate.cleaned_up == 2


async def test_leaving_the_context_stops_within_the_grace_period(gate: Gate) -> None:
    async with running_echo(EchoServicer(answer=gate.answer), grace_s=0.05, retry_attempts=1) as echo:
        call = asyncio.ensure_future(echo.stub.Echo(request(), metadata=echo.metadata()))
        await gate.wait_for(1)

    with pytest.raises((AioRpcError, asyncio.CancelledError)):
        await call
    assert gate.cleaned_up == 1
