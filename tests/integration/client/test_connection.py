"""Credentials, deadlines, retries and errors of the client, against a real server that does what the test says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo

from llmlab.api.gateway.v1 import gateway_pb2
from llmlab.api.identity.v1 import identity_pb2
from llmlab.api.orchestrator.v1 import experiment_pb2, run_pb2
from llmlab.client import (
    AuthenticationError,
    Client,
    DeadlineError,
    Endpoints,
    InvalidRequestError,
    NetworkError,
    RateLimitError,
    StreamTruncatedError,
    SyncClient,
)
from tests.support.scripted_server import Failure, Script, Silence, scripted_server

Code = grpc.StatusCode
EXCHANGE = "IdentityService/ExchangeApiKey"
WHO_AM_I = "IdentityService/WhoAmI"
GET_RUN = "RunService/GetRun"
WATCH = "RunService/WatchRun"


def endpoints(target: str) -> Endpoints:
    return Endpoints(gateway=target, orchestrator=target, metrics=target, cost=target, identity=target)


@pytest.fixture
async def scripted() -> AsyncIterator[tuple[Script, str]]:
    async with scripted_server() as pair:
        yield pair


@pytest.fixture
def script(scripted: tuple[Script, str]) -> Script:
    return scripted[0]


@pytest.fixture
async def client(scripted: tuple[Script, str]) -> AsyncIterator[Client]:
    async with Client(endpoints(scripted[1]), api_key="llmlab_test_key") as client:
        yield client


def exchanged(token: str, life_s: float = 900) -> identity_pb2.ExchangeApiKeyResponse:
    expires_at = Timestamp()
    expires_at.FromNanoseconds(int((time.time() + life_s) * 1e9))
    tokens = identity_pb2.TokenSet(access_token=token, access_expires_at=expires_at)
    return identity_pb2.ExchangeApiKeyResponse(tokens=tokens)


def refusal(code: grpc.StatusCode, reason: str, message: str = "") -> Failure:
    return Failure(code, message, [ErrorInfo(reason=reason, domain="llmlab")])


def tokens_sent(script: Script, method: str) -> list[str]:
    return [received.metadata.get("authorization", "") for received in script.calls[method]]


async def test_the_key_is_exchanged_once_however_many_calls_wait(client: Client, script: Script) -> None:
    script.on(EXCHANGE, exchanged("first"))
    for _ in range(20):
        script.on(WHO_AM_I, identity_pb2.WhoAmIResponse())
    await asyncio.gather(*(client.who_am_i() for _ in range(20)))
    assert [received.request.api_key for received in script.calls[EXCHANGE]] == ["llmlab_test_key"]
    assert tokens_sent(script, WHO_AM_I) == ["Bearer first"] * 20
    assert tokens_sent(script, EXCHANGE) == [""]


async def test_a_token_near_its_end_is_renewed_before_the_call(client: Client, script: Script) -> None:
    script.on(EXCHANGE, exchanged("first", life_s=0))
    script.on(EXCHANGE, exchanged("second"))
    for _ in range(3):
        script.on(WHO_AM_I, identity_pb2.WhoAmIResponse())
        await client.who_am_i()
    assert tokens_sent(script, WHO_AM_I) == ["Bearer first", "Bearer second", "Bearer second"]


async def test_a_token_that_the_server_calls_expired_is_renewed_once(client: Client, script: Script) -> None:
    script.on(EXCHANGE, exchanged("first"))
    script.on(EXCHANGE, exchanged("second"))
    script.on(WHO_AM_I, refusal(Code.UNAUTHENTICATED, "CREDENTIAL_EXPIRED"))
    script.on(WHO_AM_I, identity_pb2.WhoAmIResponse())
    await client.who_am_i()
    assert tokens_sent(script, WHO_AM_I) == ["Bearer first", "Bearer second"]
    for token in ("third", "fourth"):
        script.on(EXCHANGE, exchanged(token))
        script.on(WHO_AM_I, refusal(Code.UNAUTHENTICATED, "CREDENTIAL_EXPIRED"))
    with pytest.raises(AuthenticationError):
        await client.who_am_i()
    assert len(script.calls[WHO_AM_I]) == 4


async def test_a_refused_key_is_an_error_of_its_own_and_nothing_is_called(client: Client, script: Script) -> None:
    script.on(EXCHANGE, refusal(Code.UNAUTHENTICATED, "CREDENTIAL_INVALID", "make another"))
    with pytest.raises(AuthenticationError, match="make another"):
        await client.who_am_i()
    assert not script.calls[WHO_AM_I]


async def test_an_access_token_is_sent_as_it_is_and_none_at_all_too(scripted: tuple[Script, str]) -> None:
    script, target = scripted
    for given in ("given", ""):
        script.on(WHO_AM_I, identity_pb2.WhoAmIResponse())
        async with Client(endpoints(target), access_token=given) as client:
            await client.who_am_i()
    assert tokens_sent(script, WHO_AM_I) == ["Bearer given", ""]


@pytest.fixture
async def anonymous(scripted: tuple[Script, str]) -> AsyncIterator[Client]:
    async with Client(endpoints(scripted[1])) as client:
        yield client


async def test_an_idempotent_call_is_repeated_while_the_server_is_away(anonymous: Client, script: Script) -> None:
    for _ in range(3):
        script.on(GET_RUN, Failure(Code.UNAVAILABLE, "stopping"))
    script.on(GET_RUN, run_pb2.GetRunResponse(run=run_pb2.Run(run_id="run_1")))
    assert (await anonymous.get_run("run_1")).run_id == "run_1"
    assert len(script.calls[GET_RUN]) == 4


async def test_a_call_that_pays_is_sent_once(anonymous: Client, script: Script) -> None:
    for _ in range(2):
        script.on("GatewayService/Complete", Failure(Code.UNAVAILABLE, "stopping"))
    with pytest.raises(NetworkError):
        await anonymous.complete("mock/small", "Hello")
    assert len(script.calls["GatewayService/Complete"]) == 1


async def test_every_call_has_a_deadline(anonymous: Client, script: Script) -> None:
    script.on(GET_RUN, run_pb2.GetRunResponse())
    script.on("GatewayService/Complete", gateway_pb2.CompleteResponse())
    script.on("GatewayService/StreamComplete", gateway_pb2.StreamCompleteResponse())
    await anonymous.get_run("run_1")
    await anonymous.complete("mock/small", "Hello", timeout_s=7)
    assert [chunk async for chunk in anonymous.stream_complete("mock/small", "Hello")] == []
    for calls in script.calls.values():
        assert all(received.remaining_s is not None for received in calls)
    (complete,) = script.calls["GatewayService/Complete"]
    assert complete.remaining_s is not None
    assert complete.remaining_s < 30, "the call's own deadline, not the default one"
    assert complete.request.call.timeout_ms == 7000


async def test_a_deadline_that_passes_ends_the_call_at_the_server_too(anonymous: Client, script: Script) -> None:
    script.on("GatewayService/Complete", Silence())
    with pytest.raises(DeadlineError):
        await anonymous.complete("mock/small", "Hello", timeout_s=0.2)
    async with asyncio.timeout(10):
        await script.abandoned.wait()


async def test_a_refusal_comes_with_field_reason_and_time(anonymous: Client, script: Script) -> None:
    violation = BadRequest.FieldViolation(field="spec.models", description="is empty")
    details = [ErrorInfo(reason="EMPTY_PRODUCT"), BadRequest(field_violations=[violation])]
    script.on("ExperimentService/CreateExperiment", Failure(Code.INVALID_ARGUMENT, "nothing to run", details))
    with pytest.raises(InvalidRequestError, match="nothing to run") as caught:
        await anonymous.create_experiment("sweep", experiment_pb2.ExperimentSpec())
    assert caught.value.fields == {"spec.models": "is empty"}
    retry = RetryInfo()
    retry.retry_delay.FromMilliseconds(1500)
    limit = [ErrorInfo(reason="RATE_LIMITED"), retry]
    script.on("GatewayService/Complete", Failure(Code.RESOURCE_EXHAUSTED, "", limit))
    with pytest.raises(RateLimitError) as limited:
        await anonymous.complete("mock/small", "Hello")
    assert limited.value.retry_after_ms == 1500


def chunk(text: str) -> gateway_pb2.StreamCompleteResponse:
    return gateway_pb2.StreamCompleteResponse(chunks=[gateway_pb2.Chunk(text=text)])


async def test_a_truncated_stream_gives_what_came_and_then_the_error(anonymous: Client, script: Script) -> None:
    script.on(
        "GatewayService/StreamComplete", chunk("Once"), chunk(" upon"), refusal(Code.UNAVAILABLE, "STREAM_TRUNCATED")
    )
    texts: list[str] = []

    async def read() -> None:
        async for piece in anonymous.stream_complete("mock/small", "Tell me a story."):
            texts.append(piece.text)  # noqa: PERF401 (what came before the error is the point)

    with pytest.raises(StreamTruncatedError):
        await read()
    assert texts == ["Once", " upon"]


async def test_leaving_a_stream_stops_it_at_the_server(anonymous: Client, script: Script) -> None:
    script.on("GatewayService/StreamComplete", chunk("Once"), Silence())
    stream = anonymous.stream_complete("mock/small", "Tell me a story.")
    assert (await anext(stream)).text == "Once"
    await stream.aclose()  # type: ignore[attr-defined]  # it is an async generator
    async with asyncio.timeout(10):
        await script.abandoned.wait()


async def test_pages_are_joined_and_their_tokens_passed_on(anonymous: Client, script: Script) -> None:
    for number, token in ((1, "next"), (2, "")):
        page = run_pb2.ListRunsResponse(runs=[run_pb2.Run(run_id=f"run_{number}")], next_page_token=token)
        script.on("RunService/ListRuns", page)
    assert [run.run_id async for run in anonymous.list_runs(experiment_id="exp_1")] == ["run_1", "run_2"]
    asked = [received.request for received in script.calls["RunService/ListRuns"]]
    assert [request.page_token for request in asked] == ["", "next"]
    assert {request.experiment_id for request in asked} == {"exp_1"}


def events(*sequences: int, last: bool = False) -> run_pb2.WatchRunResponse:
    batch = [run_pb2.RunEvent(sequence=number, progress=run_pb2.RunProgress()) for number in sequences]
    if last:
        batch[-1].completed.SetInParent()
    return run_pb2.WatchRunResponse(events=batch)


async def test_a_cut_watch_goes_on_behind_the_last_event(anonymous: Client, script: Script) -> None:
    script.on(WATCH, events(1, 2), run_pb2.WatchRunResponse(latest_sequence=2), Failure(Code.UNAVAILABLE, "cut"))
    script.on(WATCH, events(3), refusal(Code.UNAVAILABLE, "SHUTTING_DOWN"))
    script.on(WATCH, events(4, 5, last=True))
    seen = [event.sequence async for event in anonymous.watch_run("run_1")]
    assert seen == [1, 2, 3, 4, 5]
    assert [received.request.after_sequence for received in script.calls[WATCH]] == [0, 2, 3]


async def test_a_watch_outlives_its_access_token(client: Client, script: Script) -> None:
    script.on(EXCHANGE, exchanged("first"))
    script.on(EXCHANGE, exchanged("second"))
    script.on(WATCH, events(1), refusal(Code.UNAUTHENTICATED, "CREDENTIAL_EXPIRED"))
    script.on(WATCH, events(2, last=True))
    assert [event.sequence async for event in client.watch_run("run_1")] == [1, 2]
    assert tokens_sent(script, WATCH) == ["Bearer first", "Bearer second"]


async def test_watching_an_ended_run_from_its_last_event_ends(anonymous: Client, script: Script) -> None:
    script.on(WATCH, run_pb2.WatchRunResponse(latest_sequence=5))
    assert [event async for event in anonymous.watch_run("run_1", after_sequence=5)] == []


async def test_a_watch_that_cannot_work_is_not_repeated(anonymous: Client, script: Script) -> None:
    script.on(WATCH, refusal(Code.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE", "start again from 7"))
    with pytest.raises(InvalidRequestError, match="start again from 7"):
        await anext(aiter(anonymous.watch_run("run_1", after_sequence=3)))
    assert len(script.calls[WATCH]) == 1


async def test_nobody_there() -> None:
    async with Client(endpoints("127.0.0.1:1"), access_token="x") as client:
        with pytest.raises(NetworkError, match=r"127\.0\.0\.1:1.*llmlab up"):
            await client.create_api_key("laptop")


@pytest.fixture
async def blocking(scripted: tuple[Script, str]) -> AsyncIterator[SyncClient]:
    client = await asyncio.to_thread(SyncClient, endpoints(scripted[1]), access_token="x")
    yield client
    await asyncio.to_thread(client.close)


async def test_the_blocking_face_calls_iterates_and_raises(blocking: SyncClient, script: Script) -> None:
    script.on(GET_RUN, run_pb2.GetRunResponse(run=run_pb2.Run(run_id="run_1")))
    script.on("RunService/ListRuns", run_pb2.ListRunsResponse(runs=[run_pb2.Run(run_id="a"), run_pb2.Run(run_id="b")]))
    script.on("RunService/CancelRun", refusal(Code.NOT_FOUND, "NOT_FOUND", "check the id"))

    def work() -> list[str]:
        return [blocking.get_run("run_1").run_id, *(run.run_id for run in blocking.list_runs())]

    assert await asyncio.to_thread(work) == ["run_1", "a", "b"]
    with pytest.raises(Exception, match="check the id"):
        await asyncio.to_thread(blocking.cancel_run, "run_9")


async def test_leaving_a_blocking_loop_stops_the_stream(blocking: SyncClient, script: Script) -> None:
    script.on("GatewayService/StreamComplete", chunk("Once"), chunk(" upon"), Silence())

    def first(pieces: Iterator[gateway_pb2.Chunk]) -> str:
        for piece in pieces:
            return piece.text
        return ""

    assert await asyncio.to_thread(lambda: first(blocking.stream_complete("mock/small", "Hello"))) == "Once"
    async with asyncio.timeout(10):
        await script.abandoned.wait()


async def test_a_loop_that_is_left_open_does_not_outlive_the_client(scripted: tuple[Script, str]) -> None:
    script, target = scripted
    script.on("GatewayService/StreamComplete", chunk("Once"), Silence())

    def work() -> Iterator[gateway_pb2.Chunk]:
        with SyncClient(endpoints(target), access_token="x") as client:
            pieces = client.stream_complete("mock/small", "Hello")
            next(pieces)
        return pieces

    pieces = await asyncio.to_thread(work)
    assert list(pieces) == []
