"""Errors, request ids, validation and clean-up around handlers of all four kinds, over real gRPC."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2 as rich
from grpc.aio import AioRpcError
from grpc_status import rpc_status

from llmlab.api.common.v1 import content_pb2
from services.runtime import telemetry
from services.runtime.channel import open_channel
from services.runtime.context import current_principal, current_request_id
from services.runtime.errors import DomainError, NotFound, Unauthenticated, Unavailable
from services.runtime.interceptors import standard_stages
from services.runtime.interceptors.overload import OverloadStage
from services.runtime.status import error_from_rpc
from tests.support.echo import EchoServicer, echo_pb2, echo_pb2_grpc, echo_settings, request, running_echo

GOOD_PART = content_pb2.ContentPart(text="hi")


def info_of(error: AioRpcError) -> rich.ErrorInfo:
    """The one ErrorInfo of a refusal, read as any foreign client reads it."""
    status = rpc_status.from_call(error)
    assert status is not None
    infos = []
    for packed in status.details:
        info = rich.ErrorInfo()
        if packed.Unpack(info):
            infos.append(info)
    (only,) = infos
    return only


def raising(error: BaseException) -> Any:
    async def answer(_: Any) -> str:
        raise error

    return answer


async def finished(call: Any) -> list[Any]:
    """All answers of a call of any kind."""
    if not hasattr(call, "__aiter__"):
        return [await call]
    return [answer async for answer in call]


async def refusal(call: Any) -> DomainError:
    with pytest.raises(AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value)


def test_the_order_of_the_stages_is_the_architecture_s() -> None:
    overload = OverloadStage(max_rpcs=1, max_streams=1, retry_after_ms=1)
    stages = standard_stages(echo_settings(), None, overload)

    assert [type(stage).__name__.removesuffix("Stage") for stage in stages] == [
        "RequestId",
        "Log",
        "Metrics",
        "Overload",
        "Auth",
        "Validation",
        "Error",
    ]


async def test_all_four_kinds_of_rpc_are_served() -> None:
    async with running_echo() as echo:
        metadata = echo.metadata()
        requests = [request("a"), request("b")]

        assert (await echo.stub.Echo(request("a"), metadata=metadata)).text == "a"
        assert [answer.text async for answer in echo.stub.Count(request("n"), metadata=metadata)] == ["n0", "n1", "n2"]
        chat = echo.stub.Chat(iter(requests), metadata=metadata)
        assert [answer.text async for answer in chat] == ["a", "b"]
        echo.servicer.requests.clear()
        assert (await echo.stub.Collect(iter(requests), metadata=metadata)).text == "ab"


@pytest.mark.parametrize(
    "error",
    [
        NotFound("run", "run_1"),
        Unavailable("CIRCUIT_OPEN", "open", retry_after_ms=1_500),
        DomainError("INTERNAL", "odd", code="DATA_LOSS"),
    ],
    ids=lambda error: error.reason,
)
@pytest.mark.parametrize("kind", ["Echo", "Count", "Chat"])
async def test_a_domain_error_reaches_the_caller_whole(error: DomainError, kind: str) -> None:
    async def stream(_: Any) -> AsyncIterator[str]:
        yield "first"
        raise error

    async with running_echo(EchoServicer(answer=raising(error), stream=stream)) as echo:
        sent = iter([request()]) if kind == "Chat" else request()
        call = getattr(echo.stub, kind)(sent, metadata=echo.metadata())
        with pytest.raises(AioRpcError) as caught:
            await finished(call)

    received = error_from_rpc(caught.value)
    assert info_of(caught.value).domain == "llmlab"
    assert received.metadata.pop("request_id").startswith("req_")
    for name in ("code", "reason", "message", "retry_after_ms", "metadata"):
        assert getattr(received, name) == getattr(error, name)


async def test_an_unexpected_error_is_logged_and_its_text_stays_inside(caplog: pytest.LogCaptureFixture) -> None:
    servicer = EchoServicer(answer=raising(ZeroDivisionError("the secret of the database")))
    async with running_echo(servicer) as echo:
        metadata = (*echo.metadata(), ("x-request-id", "req-42"))
        error = await refusal(echo.stub.Echo(request(), metadata=metadata))

    assert (error.code, error.reason) == ("INTERNAL", "INTERNAL")
    assert "req-42" in error.message
    assert "secret" not in error.message
    assert "Traceback" not in str(error.__dict__)
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


async def test_a_peer_s_refusal_is_passed_on() -> None:
    async with running_echo(EchoServicer(answer=raising(NotFound("budget", "bud_1")))) as peer:

        async def ask_peer(_: Any) -> str:
            return str(await peer.stub.Echo(request(), metadata=peer.metadata()))

        async with running_echo(EchoServicer(answer=ask_peer)) as echo:
            error = await refusal(echo.stub.Echo(request(), metadata=echo.metadata()))

    assert (error.code, error.reason) == ("NOT_FOUND", "NOT_FOUND")
    assert "Budget 'bud_1'" in error.message


async def test_a_peer_that_rejects_this_server_s_credential_is_this_server_s_fault() -> None:
    rejected = Unauthenticated("CREDENTIAL_INVALID", "not you")
    async with running_echo(EchoServicer(answer=raising(rejected))) as peer:

        async def ask_peer(_: Any) -> str:
            return str(await peer.stub.Echo(request(), metadata=peer.metadata()))

        async with running_echo(EchoServicer(answer=ask_peer)) as echo:
            error = await refusal(echo.stub.Echo(request(), metadata=echo.metadata()))

    assert (error.code, error.reason) == ("INTERNAL", "INTERNAL")


async def test_a_peer_that_is_away_is_named_as_a_dependency() -> None:
    async with running_echo() as gone:
        address, metadata = gone.server.address, gone.metadata()

    async with open_channel(address, echo_settings(retry_attempts=1)) as channel:

        async def ask_peer(_: Any) -> str:
            return str(await echo_pb2_grpc.EchoServiceStub(channel).Echo(request(), metadata=metadata))

        async with running_echo(EchoServicer(answer=ask_peer)) as echo:
            error = await refusal(echo.stub.Echo(request(), metadata=echo.metadata()))

    assert (error.code, error.reason) == ("UNAVAILABLE", "DEPENDENCY_UNAVAILABLE")


class TestRequestId:
    async def answer(self, _: Any) -> str:
        return current_request_id()

    async def test_the_caller_s_id_is_kept(self) -> None:
        async with running_echo(EchoServicer(answer=self.answer)) as echo:
            metadata = (*echo.metadata(), ("x-request-id", "trace/7"))
            assert (await echo.stub.Echo(request(), metadata=metadata)).text == "trace/7"

    @pytest.mark.parametrize("bad", ["", "two words", 'forged" level="ERROR', "x" * 200])
    async def test_an_id_that_could_forge_a_log_line_is_replaced(self, bad: str) -> None:
        async with running_echo(EchoServicer(answer=self.answer)) as echo:
            metadata = (*echo.metadata(), ("x-request-id", bad))
            assert (await echo.stub.Echo(request(), metadata=metadata)).text.startswith("req_")

    async def test_every_call_has_its_own(self) -> None:
        async with running_echo(EchoServicer(answer=self.answer)) as echo:
            calls = [echo.stub.Echo(request(), metadata=echo.metadata()) for _ in range(5)]
            assert len({answer.text for answer in await asyncio.gather(*calls)}) == 5

    async def test_a_peer_is_called_under_the_same_id(self) -> None:
        async with running_echo(EchoServicer(answer=self.answer)) as peer:

            async def ask_peer(_: Any) -> str:
                return str((await peer.stub.Echo(request(), metadata=peer.metadata())).text)

            async with running_echo(EchoServicer(answer=ask_peer)) as echo:
                metadata = (*echo.metadata(), ("x-request-id", "req-7"))
                assert (await echo.stub.Echo(request(), metadata=metadata)).text == "req-7"


class TestValidation:
    BAD = (
        content_pb2.Message(role=content_pb2.ROLE_USER, parts=[GOOD_PART]),
        content_pb2.Message(role=content_pb2.ROLE_USER, parts=[]),
        content_pb2.Message(parts=[GOOD_PART, content_pb2.ContentPart(image=content_pb2.Image(url=""))]),
    )

    @pytest.mark.parametrize("off_loop_bytes", [65_536, 1], ids=["on the loop", "in a thread"])
    @pytest.mark.parametrize("kind", ["Echo", "Count", "Collect", "Chat"])
    async def test_every_field_that_is_wrong_is_named(self, kind: str, off_loop_bytes: int) -> None:
        async with running_echo(validate_off_loop_bytes=off_loop_bytes) as echo:
            bad = request(messages=self.BAD)
            sent = iter([bad]) if kind in ("Collect", "Chat") else bad
            call = getattr(echo.stub, kind)(sent, metadata=echo.metadata())
            with pytest.raises(AioRpcError) as caught:
                await finished(call)
            assert echo.servicer.requests == []

        error = error_from_rpc(caught.value)
        assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
        assert {violation.field for violation in error.violations} == {
            "messages[1].parts",
            "messages[2].role",
            "messages[2].parts[1].image.url",
        }
        assert all(violation.description for violation in error.violations)
        assert "messages[1].parts" in error.message
        assert "(and 2 more)" in error.message
        assert info_of(caught.value).reason == "INVALID_FIELD"

    async def test_a_good_request_passes_in_a_thread_too(self) -> None:
        async with running_echo(validate_off_loop_bytes=1) as echo:
            answer = await echo.stub.Echo(request("ok", messages=self.BAD[:1]), metadata=echo.metadata())
            assert answer.text == "ok"

    async def test_who_may_not_call_learns_nothing_about_the_rules(self) -> None:
        async with running_echo() as echo:
            error = await refusal(echo.stub.Echo(request(messages=self.BAD)))

        assert error.reason == "CREDENTIAL_MISSING"
        assert error.violations == ()


class TestStreams:
    async def test_a_caller_that_leaves_closes_the_handler_s_generator(self) -> None:
        closed = asyncio.Event()
        seen: list[str] = []

        async def stream(_: Any) -> AsyncIterator[str]:
            try:
                yield "first"
                await asyncio.Event().wait()
            finally:
                seen.append(current_principal().project_id)
                closed.set()

        async with running_echo(EchoServicer(stream=stream)) as echo:
            call = echo.stub.Count(request(), metadata=echo.metadata())
            assert (await call.read()).text == "first"
            call.cancel()
            await closed.wait()
            await echo.server.load.wait_idle()

        # It ran in the call's own context, not in the garbage collector's.
        assert seen == ["prj_1"]

    async def test_a_caller_that_does_not_read_cannot_make_the_server_hoard(self) -> None:
        produced = 0
        closed = asyncio.Event()

        async def stream(_: Any) -> AsyncIterator[str]:
            nonlocal produced
            try:
                while produced < 10_000:
                    produced += 1
                    yield "x" * 10_000
            finally:
                closed.set()

        async with running_echo(EchoServicer(stream=stream)) as echo:
            call = echo.stub.Count(request(), metadata=echo.metadata())
            await call.read()
            call.cancel()
            await closed.wait()

        assert produced < 10_000

    async def test_cancelling_reaches_a_unary_handler(self) -> None:
        started, cancelled = asyncio.Event(), asyncio.Event()

        async def answer(_: Any) -> str:
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise
            return ""

        async with running_echo(EchoServicer(answer=answer)) as echo:
            call = echo.stub.Echo(request(), metadata=echo.metadata())
            await started.wait()
            call.cancel()
            await cancelled.wait()
            await echo.server.load.wait_idle()

        assert telemetry.snapshot()["rpcs{code=CANCELLED,method=EchoService/Echo,service=echo}"] >= 1


class TestLimitsOfTheWire:
    async def test_an_unknown_method_says_what_to_check(self) -> None:
        async with running_echo() as echo:
            call = echo.channel.unary_unary(
                "/llmlab.test.v1.EchoService/Nothing",
                request_serializer=echo_pb2.EchoRequest.SerializeToString,
                response_deserializer=echo_pb2.EchoResponse.FromString,
            )
            error = await refusal(call(request()))

        assert (error.code, error.reason) == ("UNIMPLEMENTED", "UNKNOWN_METHOD")
        assert "/llmlab.test.v1.EchoService/Nothing" in error.message

    @pytest.mark.parametrize("garbage", [b"\x0a\x02\xff\xfe", b"\x0a\x03\xed\xa0\x80", b"\x0a\xff\xff\xff\xff\x0f"])
    async def test_what_is_no_message_or_no_text_is_an_invalid_request(self, garbage: bytes) -> None:
        async with running_echo() as echo:
            for open_call, message in (
                (echo.channel.unary_unary, garbage),
                (echo.channel.stream_unary, iter([garbage])),
            ):
                method = "Echo" if message is garbage else "Collect"
                call = open_call(f"/llmlab.test.v1.EchoService/{method}", response_deserializer=bytes)
                error = await refusal(call(message, metadata=echo.metadata()))
                assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
                assert "not UTF-8" in error.message

    async def test_a_message_above_the_limit_names_the_setting(self) -> None:
        async with running_echo(max_message_bytes=1_024) as echo:
            async with grpc.aio.insecure_channel(echo.server.address) as careless:
                stub = echo_pb2_grpc.EchoServiceStub(careless)
                error = await refusal(stub.Echo(request("x" * 2_000), metadata=echo.metadata()))
            assert (await echo.stub.Echo(request("x" * 900), metadata=echo.metadata())).text
            careful = await refusal(echo.stub.Echo(request("x" * 2_000), metadata=echo.metadata()))

        for each in (error, careful):
            assert (each.code, each.reason) == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
            assert "LLMLAB_MAX_MESSAGE_BYTES" in each.message


async def test_a_refusal_is_logged_without_what_was_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "llmlab.rpc")
    async with running_echo(EchoServicer(answer=raising(NotFound("run", "run_1")))) as echo:
        await refusal(echo.stub.Echo(request("a private prompt"), metadata=echo.metadata()))

    (record,) = [record for record in caplog.records if record.name == "llmlab.rpc"]
    fields = record.__dict__["fields"]
    assert (fields["method"], fields["code"], fields["reason"]) == ("EchoService/Echo", "NOT_FOUND", "NOT_FOUND")
    assert fields["project_id"] == "prj_1"
    assert "private" not in json.dumps(fields)
    assert record.levelno == logging.INFO
