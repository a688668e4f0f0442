"""Channels to peers: deadlines, retries, addresses."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc.aio import AioRpcError

from llmlab.api.common.v1 import content_pb2
from llmlab.api.cost.v1 import budget_pb2, budget_pb2_grpc
from llmlab.api.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from llmlab.client.channels import open_channel as open_client_channel
from services.runtime.channel import call_metadata, channel_options, open_channel
from services.runtime.context import current_call, remaining_s
from services.runtime.errors import DomainError, Unavailable
from services.runtime.server import RunningServer, serve, server_options
from services.runtime.status import error_from_rpc
from tests.support.cluster import free_ports
from tests.support.echo import EchoServicer, echo_settings, request, running_echo


async def refusal(call: Any) -> DomainError:
    with pytest.raises(AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value)


async def say_remaining(_: Any) -> str:
    return str(remaining_s())


# A test serves the RPC that it is about; a type checker wants all of them.
GatewayServicer: Any = gateway_pb2_grpc.GatewayServiceServicer
BudgetServicer: Any = budget_pb2_grpc.BudgetServiceServicer


class Restarting(GatewayServicer):  # type: ignore[misc]
    """A gateway that is going down."""

    def __init__(self) -> None:
        self.calls = 0

    async def Complete(self, _request: Any, _context: Any) -> Any:  # noqa: N802 (the contract names it)
        self.calls += 1
        raise Unavailable("SHUTTING_DOWN", "going down")


class Recovering(BudgetServicer):  # type: ignore[misc]
    """A cost service that answers from the third call on."""

    def __init__(self) -> None:
        self.calls = 0

    async def GetBudget(self, _request: Any, _context: Any) -> Any:  # noqa: N802 (the contract names it)
        self.calls += 1
        if self.calls < 3:
            raise Unavailable("SHUTTING_DOWN", "coming up")
        return budget_pb2.GetBudgetResponse()


def service_channel(target: str, **overrides: Any) -> grpc.aio.Channel:
    return open_channel(target, echo_settings(**overrides))


@asynccontextmanager
async def channel_to(
    servicer: object, connect: Callable[..., grpc.aio.Channel] = service_channel, **overrides: Any
) -> AsyncIterator[grpc.aio.Channel]:
    settings = echo_settings(auth_required=False)
    async with (
        serve(settings, [servicer], verifier=None) as server,
        connect(server.address, **overrides) as channel,
    ):
        yield channel


async def test_every_call_has_a_deadline() -> None:
    async def stream(_: Any) -> AsyncIterator[str]:
        yield await say_remaining(None)

    servicer = EchoServicer(answer=say_remaining, stream=stream)
    async with running_echo(servicer, default_deadline_ms=7_000, default_stream_deadline_ms=90_000) as echo:
        unary = await echo.stub.Echo(request(), metadata=echo.metadata())
        streamed = await echo.stub.Count(request(), metadata=echo.metadata()).read()
        chosen = await echo.stub.Echo(request(), metadata=echo.metadata(), timeout=3)

    # On the wire a timeout is rounded up to a few digits.
    assert 0 < float(chosen.text) < 4 < float(unary.text) < 8 < float(streamed.text) < 100


async def test_a_peer_gets_no_more_time_than_the_caller_has() -> None:
    async with running_echo(EchoServicer(answer=say_remaining)) as peer:

        async def ask_peer(_: Any) -> str:
            return str((await peer.stub.Echo(request(), metadata=peer.metadata(), timeout=600)).text)

        async with running_echo(EchoServicer(answer=ask_peer)) as echo:
            answer = await echo.stub.Echo(request(), metadata=echo.metadata(), timeout=20)

    assert 0 < float(answer.text) <= 20


async def test_a_deadline_that_passes_ends_the_handler_and_says_so() -> None:
    ended = asyncio.Event()

    async def answer(_: Any) -> str:
        try:
            await asyncio.Event().wait()
            return ""
        finally:
            ended.set()

    async with running_echo(EchoServicer(answer=answer)) as echo:
        error = await refusal(echo.stub.Echo(request(), metadata=echo.metadata(), timeout=0.2))
        await ended.wait()

    assert (error.code, error.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")


async def test_no_peer_is_asked_after_the_deadline() -> None:
    outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async with running_echo() as peer:

        async def ask_peer(_: Any) -> str:
            try:
                await asyncio.Event().wait()
            finally:
                left_s = remaining_s()
                while left_s is not None and left_s > 0:
                    await asyncio.sleep(left_s)
                    left_s = remaining_s()
                try:
                    await peer.stub.Echo(request(), metadata=peer.metadata())
                except DomainError as error:
                    outcome.set_result(error.reason)
            return ""

        async with running_echo(EchoServicer(answer=ask_peer)) as echo:
            await refusal(echo.stub.Echo(request(), metadata=echo.metadata(), timeout=0.2))
            assert await outcome == "DEADLINE_EXCEEDED"
        assert peer.servicer.requests == []


async def test_an_idempotent_call_is_retried() -> None:
    servicer = Recovering()
    async with channel_to(servicer) as channel:
        stub = budget_pb2_grpc.BudgetServiceStub(channel)
        await stub.GetBudget(budget_pb2.GetBudgetRequest(budget_id="bud_1"))

    assert servicer.calls == 3


async def test_retries_are_bounded_by_a_setting() -> None:
    servicer = Recovering()
    async with channel_to(servicer, retry_attempts=2) as channel:
        stub = budget_pb2_grpc.BudgetServiceStub(channel)
        error = await refusal(stub.GetBudget(budget_pb2.GetBudgetRequest(budget_id="bud_1")))

    assert error.reason == "SHUTTING_DOWN"
    assert servicer.calls == 2


class Closing(BudgetServicer):  # type: ignore[misc]
    """A cost service whose first answer is what gRPC says where a server closes under a call."""

    def __init__(self) -> None:
        self.calls = 0
        self.asked = asyncio.Event()

    async def GetBudget(self, _request: Any, context: Any) -> Any:  # noqa: N802 (the contract names it)
        self.calls += 1
        self.asked.set()
        if self.calls == 1:
            await context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")
        return budget_pb2.GetBudgetResponse()

    async def ListBudgets(self, _request: Any, _context: Any) -> Any:  # noqa: N802 (the contract names it)
        self.calls += 1
        self.asked.set()
        await asyncio.Event().wait()


EACH_CHANNEL = pytest.mark.parametrize("connect", [service_channel, open_client_channel])


@EACH_CHANNEL
async def test_a_call_that_a_closing_server_dropped_is_retried(connect: Callable[[str], grpc.aio.Channel]) -> None:
    servicer = Closing()
    async with channel_to(servicer, connect) as channel:
        stub = budget_pb2_grpc.BudgetServiceStub(channel)
        await stub.GetBudget(budget_pb2.GetBudgetRequest(budget_id="bud_1"), timeout=10)

    assert servicer.calls == 2


@EACH_CHANNEL
async def test_a_call_that_its_caller_gave_up_is_not_retried(connect: Callable[[str], grpc.aio.Channel]) -> None:
    servicer = Closing()
    async with channel_to(servicer, connect) as channel:
        stub = budget_pb2_grpc.BudgetServiceStub(channel)
        call = stub.ListBudgets(budget_pb2.ListBudgetsRequest(), timeout=10)
        await servicer.asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        # Longer than the longest first back-off of a retry.
        await asyncio.sleep(0.3)

    assert servicer.calls == 1


@EACH_CHANNEL
async def test_no_idempotent_call_fails_while_one_server_after_the_other_restarts(
    connect: Callable[[str], grpc.aio.Channel],
) -> None:
    class Steady(BudgetServicer):  # type: ignore[misc]
        async def GetBudget(self, _request: Any, _context: Any) -> Any:  # noqa: N802 (the contract names it)
            return budget_pb2.GetBudgetResponse()

    def server(port: int) -> AbstractAsyncContextManager[RunningServer]:
        return serve(echo_settings(auth_required=False, port=port), [Steady()], verifier=None)

    async def ask(stub: Any, stopping: asyncio.Event) -> int:
        answers = 0
        while not stopping.is_set():
            await stub.GetBudget(budget_pb2.GetBudgetRequest(budget_id="bud_1"), timeout=30)
            answers += 1
        return answers

    ports = free_ports(2)
    stopping = asyncio.Event()
    async with AsyncExitStack() as stack:
        stacks = [await stack.enter_async_context(AsyncExitStack()) for _ in ports]
        for own, port in zip(stacks, ports, strict=True):
            await own.enter_async_context(server(port))
        target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
        stub = budget_pb2_grpc.BudgetServiceStub(await stack.enter_async_context(connect(target)))
        # As many that several calls are on their way whenever a server closes.
        asking = [asyncio.create_task(ask(stub, stopping)) for _ in range(16)]
        for own, port in [*zip(stacks, ports, strict=True)] * 2:
            await asyncio.sleep(0.3)
            await own.aclose()
            await own.enter_async_context(server(port))
        stopping.set()
        answers = await asyncio.gather(*asking)

    assert min(answers) > 0


async def test_a_paid_call_is_never_retried() -> None:
    servicer = Restarting()
    message = content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.ContentPart(text="hi")])
    call = gateway_pb2.Call(model="mock/echo", messages=[message])
    async with channel_to(servicer) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        error = await refusal(stub.Complete(gateway_pb2.CompleteRequest(call=call)))

    assert error.reason == "SHUTTING_DOWN"
    assert servicer.calls == 1


@pytest.mark.parametrize("form", ["{}", "dns:///{}", "ipv4:{}"])
async def test_targets_are_plain_or_named(form: str) -> None:
    async with running_echo() as echo:
        target = form.format(echo.server.address)
        async with open_channel(target, echo_settings()) as channel:
            await channel.channel_ready()
            assert channel.get_state() is grpc.ChannelConnectivity.READY
            await channel.close()
            assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN


async def test_calls_go_round_all_addresses_of_a_target() -> None:
    async with running_echo() as one, running_echo() as two:
        target = f"ipv4:{one.server.address},{two.server.address}"
        async with open_channel(target, echo_settings()) as channel:
            stub = type(one.stub)(channel)
            token = call_metadata(one.minter.token("prj_1", permissions=["READ"]))
            while not (one.servicer.requests and two.servicer.requests):
                await stub.Echo(request(), metadata=token)
            one.servicer.requests.clear()
            two.servicer.requests.clear()
            for _ in range(10):
                await stub.Echo(request(), metadata=token)

    assert (len(one.servicer.requests), len(two.servicer.requests)) == (5, 5)


async def test_a_peer_that_is_not_there_is_unavailable_at_once() -> None:
    settings = echo_settings(retry_attempts=1)
    async with running_echo() as gone:
        address = gone.server.address
    async with open_channel(address, settings) as channel:
        error = await refusal(type(gone.stub)(channel).Echo(request()))

    assert (error.code, error.reason) == ("UNAVAILABLE", "DEPENDENCY_UNAVAILABLE")


async def test_a_connection_is_replaced_at_its_age_and_no_call_is_lost() -> None:
    async def answer(_: Any) -> str:
        call = current_call()
        return "" if call is None else str(call.context.peer())

    async with running_echo(EchoServicer(answer=answer), max_connection_age_s=0.1) as echo:
        peers: set[str] = set()
        while len(peers) < 3:
            peers.add((await echo.stub.Echo(request(), metadata=echo.metadata())).text)


def test_both_sides_keep_the_connection_alive_in_step() -> None:
    settings = echo_settings(keepalive_s=20, keepalive_timeout_s=7)
    server, channel = dict(server_options(settings)), dict(channel_options(settings))

    for name, value in {"grpc.keepalive_time_ms": 20_000, "grpc.keepalive_timeout_ms": 7_000}.items():
        assert (server[name], channel[name]) == (value, value)
    # A server that allowed fewer pings than its clients send would cut them off.
    assert server["grpc.http2.min_ping_interval_without_data_ms"] == 10_000
    assert server["grpc.so_reuseport"] == 0


async def test_a_large_refusal_arrives_whole() -> None:
    async def answer(_: Any) -> str:
        raise Unavailable("STREAM_TRUNCATED", "cut", details=[gateway_pb2.CompleteRequest(), big])

    big = budget_pb2.GetBudgetRequest(budget_id="x" * 20_000)
    async with running_echo(EchoServicer(answer=answer)) as echo:
        error = await refusal(echo.stub.Echo(request(), metadata=echo.metadata()))

    received = budget_pb2.GetBudgetRequest()
    assert error.details[1].Unpack(received)
    assert received == big
