"""How answers are read: streams torn and cut anywhere, errors in all places, connections that break."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
from typing import Any

import pytest

from services.gateway.attempts import Completion, FailedCall
from services.gateway.calls import Message, ProviderRequest, ReasoningPart, TextPart, ToolCallPart
from services.gateway.chunks import Event, FinishReason, RawBytes, Started
from services.gateway.collector import Collector
from services.gateway.failures import CallFailed
from services.gateway.providers.transport import TransportLimits
from services.gateway.usage import TokenUsage
from tests.support.gateway import OWNER, InMemoryLedger, call, collected, pipeline, request
from tests.support.provider_kinds import KINDS, provider_of
from tests.support.provider_streams import JSON, OPENAI, REASONING_ITEM, SSE, STREAMS, USAGES, delta, partial, sse
from tests.support.replay import ReplayServer, Reply, replay_server


async def ask(kind: str, reply: Reply, limits: TransportLimits | None = None) -> tuple[list[Event], CallFailed | None]:
    async with replay_server(lambda _: reply) as server:
        provider = provider_of(kind, server.base_url, limits=limits)
        try:
            return await collected(provider.stream(request(), 0))
        finally:
            await provider.close()


def answer(events: list[Event]) -> Collector:
    collector = Collector()
    collector.add(events)
    return collector


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [10_000, 7, 1])
async def test_a_stream_is_read_however_it_is_torn(kind: str, size: int) -> None:
    text = b"".join(STREAMS[kind])
    pieces = tuple(text[start : start + size] for start in range(0, len(text), size))
    events, failed = await ask(kind, Reply(headers=SSE, pieces=pieces))
    assert failed is None
    got = answer(events)
    # A signature that hangs on a tool call is reasoning without text.
    parts = [part for part in got.parts() if not isinstance(part, ReasoningPart) or part.text]
    assert isinstance(parts[0], ReasoningPart)
    assert parts[0].text == "Hmm, yes."
    assert parts[0].provider_data
    assert parts[1] == TextPart("Blüe.")
    assert isinstance(parts[2], ToolCallPart)
    assert (parts[2].id, parts[2].name, json.loads(parts[2].arguments_json)) == ("t1", "look", {"up": True})
    assert isinstance(parts[3], ToolCallPart)
    assert (parts[3].id, parts[3].name) == ("t2", "hear")
    assert got.finish_reason is FinishReason.TOOL_CALLS
    assert got.usage == USAGES[kind]
    assert got.provider_model in ("gpt-x-2026", "claude-x-2026", "gemini-x-2026")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "headers", [{}, {"Content-Type": "text/plain"}, {"Content-Type": "application/octet-stream"}, JSON]
)
async def test_a_stream_that_is_not_called_one_is_read_all_the_same(kind: str, headers: dict[str, str]) -> None:
    pieces = (b"\xef\xbb\xbf", b": a comment\n\n", *STREAMS[kind])
    events, failed = await ask(kind, Reply(headers=headers, pieces=pieces))
    assert failed is None
    got = answer(events)
    assert (got.text(), got.finish_reason) == ("Blüe.", FinishReason.TOOL_CALLS)
    # It was read as a whole, so that there are no times between its chunks.
    assert not got.streamed


@pytest.mark.parametrize("kind", KINDS)
async def test_a_compressed_stream_with_other_line_ends_is_read(kind: str) -> None:
    text = b"".join(STREAMS[kind]).replace(b"\n", b"\r\n")
    packed = gzip.compress(b"\xef\xbb\xbf: a comment\r\n\r\n" + text)
    pieces = tuple(packed[start : start + 50] for start in range(0, len(packed), 50))
    events, failed = await ask(kind, Reply(headers={**SSE, "Content-Encoding": "gzip"}, pieces=pieces))
    assert failed is None
    assert (answer(events).text(), answer(events).usage) == ("Blüe.", USAGES[kind])


def cuts(stream: list[bytes]) -> list[int]:
    """Every boundary between events, and the middle of every event."""
    edges = [0, *itertools.accumulate(map(len, stream))]
    middles = [(start + end) // 2 for start, end in itertools.pairwise(edges)]
    return sorted({*edges, *middles})


@pytest.mark.parametrize("kind", KINDS)
async def test_a_connection_cut_anywhere_is_no_success(kind: str) -> None:
    text = b"".join(STREAMS[kind])
    for cut in cuts(STREAMS[kind])[:-1]:
        reply = Reply(headers=SSE, pieces=(text[:cut],), cut=True)
        async with replay_server(lambda _, reply=reply: reply) as server:  # type: ignore[misc]
            provider = provider_of(kind, server.base_url)
            ledger = InMemoryLedger()
            pipe, _ = pipeline(provider, ledger)
            outcome = await pipe.run(call(), OWNER)
            await provider.close()
        assert isinstance(outcome, FailedCall), cut
        assert outcome.failure.reason == "STREAM_TRUNCATED", cut
        assert outcome.failure.dispatched
        assert outcome.failure.partial_text in ("", "Blü", "Blüe.")
        assert outcome.failure.rule.code == "UNAVAILABLE"
        usage = outcome.failure.usage
        assert usage is not None
        assert usage.input_tokens > 0
        assert (usage.output_tokens > 0) or not outcome.failure.partial_text
        settled = ledger.settled["run_1/7/1/1"]
        assert (settled.usage, settled.succeeded) == (usage, False)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_body_that_ends_without_a_finish_reason_is_no_success(kind: str) -> None:
    for end in range(len(STREAMS[kind])):
        events, failed = await ask(kind, Reply(headers=SSE, pieces=tuple(STREAMS[kind][:end])))
        assert failed is None
        finished = answer(events).finish_reason is not None
        assert finished == any(
            word in piece
            for piece in STREAMS[kind][:end]
            for word in (b'finish_reason": "', b"stop_reason", b"finishReason", b"response.completed")
        )


@pytest.mark.parametrize(
    ("kind", "error", "reason"),
    [
        ("anthropic", {"type": "error", "error": {"type": "overloaded_error", "message": "no"}}, "PROVIDER_OVERLOADED"),
        ("anthropic", {"type": "error", "error": {"type": "api_error", "message": "no"}}, "PROVIDER_ERROR"),
        ("openai", {"error": {"code": 502, "message": "no"}, "choices": []}, "PROVIDER_UNAVAILABLE"),
        ("openai", {"error": {"type": "server_error", "message": "no"}}, "PROVIDER_ERROR"),
        ("openai", {"error": "no"}, "PROVIDER_ERROR"),
        ("openai", {"choices": [{"delta": {}, "finish_reason": "error"}]}, "PROVIDER_ERROR"),
        ("gemini", {"error": {"code": 503, "message": "no", "status": "UNAVAILABLE"}}, "PROVIDER_UNAVAILABLE"),
        ("gemini", {"error": {"code": 429, "message": "no", "status": "RESOURCE_EXHAUSTED"}}, "RATE_LIMITED"),
        ("gemini", {"error": {"status": "INTERNAL", "message": "no"}}, "PROVIDER_ERROR"),
        ("gemini", {"error": "no"}, "PROVIDER_ERROR"),
        ("responses", {"type": "error", "code": "rate_limit_exceeded", "message": "no"}, "RATE_LIMITED"),
        (
            "responses",
            {"type": "response.failed", "response": {"status": "failed", "error": {"code": "server_error"}}},
            "PROVIDER_ERROR",
        ),
        ("gemini", partial(finishReason="MALFORMED_FUNCTION_CALL", finishMessage="no"), "PROVIDER_ERROR"),
        ("gemini", partial(finishReason="OTHER"), "PROVIDER_ERROR"),
    ],
)
async def test_an_error_inside_a_stream_that_began_well(kind: str, error: dict[str, Any], reason: str) -> None:
    events, failed = await ask(kind, Reply(headers=SSE, pieces=(*STREAMS[kind][:-2], *sse(error), *STREAMS[kind][-2:])))
    assert failed is not None
    assert (failed.failure.reason, failed.failure.dispatched) == (reason, True)
    assert answer(events).text().startswith("Blü")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(headers=JSON, pieces=(b"{",)), "PROVIDER_ERROR"),
        (Reply(headers=JSON, pieces=(b"[]",)), "PROVIDER_ERROR"),
        (Reply(headers={"Content-Type": "text/html"}, pieces=(b"<html>",)), "PROVIDER_ERROR"),
        (Reply(headers=SSE, pieces=(b"data: {oops\n\n",)), "PROVIDER_ERROR"),
        (Reply(headers=JSON, pieces=(b'{"choi',), cut=True), "STREAM_TRUNCATED"),
        (Reply(503, headers={"Content-Type": "text/html"}, pieces=(b"<h1>Bad",)), "PROVIDER_UNAVAILABLE"),
        (Reply(302, headers={"Location": "http://127.0.0.1:9/elsewhere"}), "INVALID_REQUEST"),
    ],
)
async def test_answers_that_are_none(kind: str, reply: Reply, reason: str) -> None:
    _, failed = await ask(kind, reply)
    assert failed is not None
    assert (failed.failure.reason, failed.failure.dispatched) == (reason, True)


@pytest.mark.parametrize("kind", KINDS)
async def test_unknown_shapes_are_skipped(kind: str) -> None:
    odd = [*sse({"new": 1}, {"type": "new_event", "index": 9}), b"data: 7\n\n", b"data: null\n\n", b"event: x\n\n"]
    events, failed = await ask(kind, Reply(headers=SSE, pieces=(*odd, *STREAMS[kind])))
    assert failed is None
    assert answer(events).text() == "Blüe."


@pytest.mark.parametrize("kind", KINDS)
async def test_status_errors_go_through_the_sdks_exceptions(kind: str) -> None:
    body = {
        "openai": b'{"error": {"message": "Slow down", "type": "requests", "code": "rate_limit_exceeded"}}',
        "anthropic": b'{"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down"}}',
        "responses": b'{"error": {"message": "Slow down", "type": "requests", "code": "rate_limit_exceeded"}}',
        "gemini": b'{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Slow down"}}',
    }[kind]
    header = {"anthropic": "request-id", "gemini": "x-goog-request-id"}.get(kind, "x-request-id")
    _, failed = await ask(kind, Reply(429, {**JSON, "Retry-After": "3", header: "req_7"}, (body,)))
    assert failed is not None
    failure = failed.failure
    assert (failure.reason, failure.retry_after_ms, failure.provider_request_id) == ("RATE_LIMITED", 3_000, "req_7")
    assert (failure.provider_status, failure.message) == (429, "Slow down")


@pytest.mark.parametrize("kind", KINDS)
async def test_no_connection_means_not_dispatched(kind: str) -> None:
    async with replay_server(lambda _: Reply()) as server:
        pass
    provider = provider_of(kind, server.base_url)
    _, failed = await collected(provider.stream(request(), 0))
    await provider.close()
    assert failed is not None
    assert (failed.failure.reason, failed.failure.dispatched) == ("NETWORK_ERROR", False)
    assert "secret-key" not in failed.failure.message


@pytest.mark.parametrize("kind", KINDS)
async def test_a_connection_that_breaks_before_the_answer_may_have_cost(kind: str) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    replay = ReplayServer(lambda _: Reply())
    replay.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    provider = provider_of(kind, replay.base_url)
    _, failed = await collected(provider.stream(request(), 0))
    await provider.close()
    server.close()
    await server.wait_closed()
    assert failed is not None
    assert (failed.failure.reason, failed.failure.dispatched) == ("NETWORK_ERROR", True)


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelling_closes_the_providers_socket(kind: str) -> None:
    reply = Reply(headers=SSE, pieces=tuple(STREAMS[kind][:4]), hold=True)
    async with replay_server(lambda _: reply) as server:
        provider = provider_of(kind, server.base_url)
        ledger = InMemoryLedger()
        pipe, admission = pipeline(provider, ledger)
        task = asyncio.create_task(pipe.run(call(), OWNER))
        await server.answering.wait()
        await asyncio.sleep(0.05)
        admission.cancel(OWNER, ["run_1/7/1"])
        async with asyncio.timeout(10):
            await server.client_left.wait()
            outcome = await task
        await provider.close()
    assert isinstance(outcome, FailedCall)
    assert outcome.failure.reason == "CANCELLED"
    assert len(server.asked) == 1
    assert ledger.settled.keys() == {"run_1/7/1/1"}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_connection_is_used_again(kind: str) -> None:
    async with replay_server(lambda _: Reply(headers=SSE, pieces=tuple(STREAMS[kind]))) as server:
        provider = provider_of(kind, server.base_url)
        pipe, _ = pipeline(provider, InMemoryLedger())
        for number in range(3):
            assert isinstance(await pipe.run(call(call_id=f"call_{number}"), OWNER), Completion)
        await provider.close()
    assert (len(server.asked), server.connections) == (3, 1)


async def test_an_event_without_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.providers.openai_compatible.MAX_EVENT_BYTES", 1_000)
    _, failed = await ask("openai", Reply(headers=SSE, pieces=(b"data: " + b"x" * 5_000,)))
    assert failed is not None
    assert failed.failure.reason == "PROVIDER_ERROR"


async def test_a_whole_answer_is_bounded() -> None:
    _, failed = await ask(
        "openai", Reply(headers=JSON, pieces=(b" " * 5_000,)), TransportLimits(max_answer_bytes=1_000)
    )
    assert failed is not None
    assert "larger than 1000 bytes" in failed.failure.message


async def test_raw_bytes_are_kept_where_asked_for() -> None:
    async with replay_server(lambda _: Reply(headers=SSE, pieces=tuple(OPENAI))) as server:
        provider = provider_of("openai", server.base_url)
        asked = ProviderRequest("a/1", "m", call(include_raw=True), 10)
        events, _ = await collected(provider.stream(asked, 0))
        await provider.close()
    assert b"".join(event.data for event in events if isinstance(event, RawBytes)) == b"".join(OPENAI)


@pytest.mark.parametrize("kind", KINDS)
async def test_reasoning_goes_back_as_it_came(kind: str) -> None:
    async with replay_server(lambda _: Reply(headers=SSE, pieces=tuple(STREAMS[kind]))) as server:
        provider = provider_of(kind, server.base_url)
        events, _ = await collected(provider.stream(request(), 0))
        history = (*call().messages, Message("assistant", answer(events).parts()))
        await collected(provider.stream(request(call(messages=history)), 0))
        await provider.close()
    said = server.asked[1].json.get("messages", [{}, {}])[1]
    if kind == "anthropic":
        assert said["content"][0] == {"type": "thinking", "thinking": "Hmm, yes.", "signature": "sig"}
        assert said["content"][2]["input"] == {"up": True}
    elif kind == "responses":
        assert server.asked[1].json["input"][1:] == [
            REASONING_ITEM,
            {"role": "assistant", "content": [{"type": "output_text", "text": "Blüe."}]},
            {"type": "function_call", "call_id": "t1", "name": "look", "arguments": '{"up": true}'},
            {"type": "function_call", "call_id": "t2", "name": "hear", "arguments": "{}"},
        ]
    elif kind == "gemini":
        assert server.asked[1].json["contents"][1] == {
            "role": "model",
            "parts": [
                {"text": "Hmm, yes.", "thought": True},
                {"text": "Blüe."},
                {"functionCall": {"id": "t1", "name": "look", "args": {"up": True}}, "thoughtSignature": "sig"},
                {"functionCall": {"id": "t2", "name": "hear", "args": {}}},
            ],
        }
    else:
        assert said["reasoning_content"] == "Hmm, yes."
        assert said["tool_calls"][0]["function"]["arguments"] == '{"up": true}'


async def test_openrouters_reasoning_details_go_back_joined() -> None:
    pieces = sse(
        delta(reasoning="Hm", reasoning_details=[{"type": "reasoning.text", "index": 0, "text": "Hm"}]),
        delta(reasoning="m", reasoning_details=[{"type": "reasoning.text", "index": 0, "text": "m", "signature": "s"}]),
        {"model": "x", "choices": [{"delta": {"content": "ok"}, "finish_reason": "stop"}]},
    )
    async with replay_server(lambda _: Reply(headers=SSE, pieces=tuple(pieces))) as server:
        provider = provider_of("openai", server.base_url)
        events, _ = await collected(provider.stream(request(), 0))
        history = (*call().messages, Message("assistant", answer(events).parts()))
        await collected(provider.stream(request(call(messages=history)), 0))
        await provider.close()
    said = server.asked[1].json["messages"][1]
    assert said["reasoning_details"] == [{"type": "reasoning.text", "index": 0, "text": "Hmm", "signature": "s"}]
    assert said["reasoning"] == "Hmm"


async def test_shapes_of_other_servers() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}
    body = {
        "model": "magistral",
        "choices": [
            {"message": {"content": [thinking, {"type": "text", "text": "ok"}, 7]}, "finish_reason": "model_length"}
        ],
        # Reasoning counted beside the completion, as xAI and Gemini's compatible API do.
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 20, "prompt_cache_hit_tokens": 4},
    }
    events, failed = await ask("openai", Reply(headers=JSON, pieces=(json.dumps(body).encode(),)))
    assert failed is None
    got = answer(events)
    assert (got.reasoning(), got.text(), got.finish_reason) == ("Hm", "ok", FinishReason.LENGTH)
    assert got.usage == TokenUsage(input_tokens=10, cache_read_tokens=4, output_tokens=10, reasoning_tokens=8)
    assert Started("magistral", "", streamed=False) in events


async def test_a_refusal_is_text_and_a_content_filter() -> None:
    pieces = sse(delta(refusal="I can't."), {"choices": [{"delta": {}, "finish_reason": "stop"}]})
    events, _ = await ask("openai", Reply(headers=SSE, pieces=tuple(pieces)))
    assert (answer(events).text(), answer(events).finish_reason) == ("I can't.", FinishReason.CONTENT_FILTER)
