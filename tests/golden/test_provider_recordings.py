"""Real providers' answers, replayed: what comes out of the gateway's providers is what is in the file.

The expected values are read from the recordings here, by plain JSON and string operations, not by the product's
parsers. Which recordings fit is decided by the endpoint that they called.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from services.gateway.calls import Call, Message, ProviderRequest, TextPart, ToolCallPart
from services.gateway.collector import Collector
from services.gateway.failures import CallFailed
from services.gateway.providers.anthropic import Anthropic
from services.gateway.providers.openai_compatible import OpenAiCompatible
from services.gateway.providers.openai_request import OpenAiDialect
from services.gateway.providers.port import Provider
from services.gateway.providers.transport import HttpTransport
from tests.support.recordings import FOLDER, Recording, recordings
from tests.support.replay import Asked, Reply, replay_server

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"the recordings of real providers are not at {FOLDER}: nothing to replay"
)

ALL = recordings() if FOLDER.is_dir() else ()
FITTING = [recording for recording in ALL if recording.format]
OTHERS = Counter(re.split("[/:]", recording.path)[-1] for recording in ALL if not recording.format)

OPENAI_FINISHES = {"stop": "STOP", "length": "LENGTH", "tool_calls": "TOOL_CALLS", "content_filter": "CONTENT_FILTER"}
ANTHROPIC_FINISHES = {"end_turn": "STOP", "max_tokens": "LENGTH", "tool_use": "TOOL_CALLS", "refusal": "CONTENT_FILTER"}
ERROR_CLASSES = {400: "invalid_request", 429: "rate_limit"}


@dataclass(frozen=True)
class Expected:
    """What a recording says."""

    text: str
    reasoning: str
    tool_calls: list[tuple[str, str, Any]]
    finish: str
    model: str
    usage: dict[str, int]


def test_recordings_of_other_endpoints() -> None:
    listed = ", ".join(f"{count} {endpoint}" for endpoint, count in OTHERS.most_common(8))
    pytest.skip(f"{OTHERS.total()} exchanges with endpoints that the gateway does not call: {listed} ...")


def test_both_formats_are_replayed() -> None:
    assert {recording.format for recording in FITTING} == {"openai", "anthropic"}


@pytest.mark.parametrize("recording", FITTING, ids=lambda recording: recording.name)
async def test_replay(recording: Recording) -> None:
    kept = {name: value for name, value in recording.headers.items() if name in ("content-type", "retry-after")}
    reply = Reply(recording.status, kept, _torn(recording.body, 7))
    async with replay_server(lambda asked: reply) as server:
        provider = _provider(recording.format, server.base_url)
        try:
            answer, failure = await _ask(provider)
        finally:
            await provider.close()
        _check_request(server.asked[0], recording)
    if recording.status != 200:
        assert failure is not None
        assert failure.failure.rule.error_class == ERROR_CLASSES[recording.status]
        assert failure.failure.provider_status == recording.status
        assert failure.failure.dispatched
        assert _words_of_error(recording.whole) in failure.failure.message
        return
    expected = _expected(recording)
    if expected is None:
        # Not a completion at all: an error, not an empty answer.
        assert failure is not None
        assert failure.failure.reason == "PROVIDER_ERROR"
        return
    assert failure is None, failure
    _compare(answer, expected)


def _compare(answer: Collector, expected: Expected) -> None:
    assert answer.text() == expected.text
    assert answer.reasoning() == expected.reasoning
    calls = [part for part in answer.parts() if isinstance(part, ToolCallPart)]
    assert [(call.id, call.name, json.loads(call.arguments_json or "{}")) for call in calls] == expected.tool_calls
    assert answer.finish_reason is not None
    assert answer.finish_reason.name == expected.finish
    assert answer.provider_model == expected.model
    assert answer.usage is not None
    assert answer.usage.measured
    got = {name: getattr(answer.usage, name) for name in expected.usage}
    assert got == expected.usage


async def _ask(provider: Provider) -> tuple[Collector, CallFailed | None]:
    call = Call("call", "recorded/model", (Message("user", (TextPart("What was recorded?"),)),), 10_000)
    answer = Collector()
    try:
        async for events in provider.stream(ProviderRequest("call/1", "model", call, 100), 0.0):
            answer.add(events)
    except CallFailed as failed:
        return answer, failed
    return answer, None


def _provider(kind: str, base_url: str) -> Provider:
    if kind == "anthropic":
        return Anthropic(HttpTransport(), api_key="key", base_url=base_url)
    return OpenAiCompatible(HttpTransport(), api_key="key", base_url=f"{base_url}/v1", dialect=OpenAiDialect())


def _check_request(asked: Asked, recording: Recording) -> None:
    assert asked.headers["idempotency-key"] == "call/1"
    assert asked.headers["authorization"] == "Bearer key" or asked.headers["x-api-key"] == "key"
    assert asked.json["stream"] is True
    assert asked.path.endswith("/v1/messages" if recording.format == "anthropic" else "/chat/completions")


def _torn(body: bytes, pieces: int) -> tuple[bytes, ...]:
    size = max(1, -(-len(body) // pieces))
    return tuple(body[start : start + size] for start in range(0, len(body), size))


def _words_of_error(body: Any) -> str:
    return str(body["error"]["message"])[:200]


def _expected(recording: Recording) -> Expected | None:
    if recording.whole is not None:
        if recording.format == "anthropic":
            return _anthropic_whole(recording.whole)
        return _openai_whole(recording.whole) if "choices" in recording.whole else None
    data = [
        json.loads(line[5:])
        for line in recording.body.decode().splitlines()
        if line.startswith("data:") and "[DONE]" not in line
    ]
    if not data:
        return None
    return _anthropic_stream(data) if recording.format == "anthropic" else _openai_stream(data)


def _openai_whole(body: Any) -> Expected:
    message = body["choices"][0]["message"]
    return Expected(
        text=message.get("content") or "",
        reasoning=message.get("reasoning_content") or message.get("reasoning") or "",
        tool_calls=[
            (call["id"], call["function"]["name"], json.loads(call["function"].get("arguments", "{}")))
            for call in message.get("tool_calls") or []
        ],
        finish=OPENAI_FINISHES[body["choices"][0]["finish_reason"]],
        model=body["model"],
        usage=_openai_usage(body["usage"]),
    )


def _openai_stream(chunks: list[Any]) -> Expected:
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    deltas = [choice["delta"] for choice in choices]
    assert not any(delta.get("tool_calls") for delta in deltas), "a recording with streamed tool calls: read them here"
    return Expected(
        text="".join(delta.get("content") or "" for delta in deltas),
        reasoning="".join(delta.get("reasoning") or delta.get("reasoning_content") or "" for delta in deltas),
        tool_calls=[],
        finish=OPENAI_FINISHES[[choice["finish_reason"] for choice in choices if choice["finish_reason"]][-1]],
        model=chunks[0]["model"],
        usage=_openai_usage([chunk["usage"] for chunk in chunks if chunk.get("usage")][-1]),
    )


def _openai_usage(usage: Any) -> dict[str, int]:
    prompt = usage.get("prompt_tokens_details") or {}
    completion = usage.get("completion_tokens_details") or {}
    output = usage["completion_tokens"]
    reasoning = completion.get("reasoning_tokens") or 0
    if usage["total_tokens"] == usage["prompt_tokens"] + output + reasoning:
        # Reasoning is counted beside the completion.
        output += reasoning
    return {
        "input_tokens": usage["prompt_tokens"],
        "output_tokens": output,
        "cache_read_tokens": prompt.get("cached_tokens") or usage.get("prompt_cache_hit_tokens") or 0,
        "cache_write_5m_tokens": prompt.get("cache_write_tokens") or 0,
        "reasoning_tokens": reasoning,
    }


def _anthropic_whole(body: Any) -> Expected:
    content = body["content"]
    return Expected(
        text="".join(block["text"] for block in content if block["type"] == "text"),
        reasoning="".join(block["thinking"] for block in content if block["type"] == "thinking"),
        tool_calls=[(block["id"], block["name"], block["input"]) for block in content if block["type"] == "tool_use"],
        finish=ANTHROPIC_FINISHES[body["stop_reason"]],
        model=body["model"],
        usage=_anthropic_usage(body["usage"]),
    )


def _anthropic_stream(events: list[Any]) -> Expected:
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert not any(block["type"] == "tool_use" for block in starts), "a recording with streamed tools: read them here"
    (start,) = (event["message"] for event in events if event["type"] == "message_start")
    (end,) = (event for event in events if event["type"] == "message_delta")
    return Expected(
        text="".join(delta["text"] for delta in deltas if delta["type"] == "text_delta"),
        reasoning="".join(delta["thinking"] for delta in deltas if delta["type"] == "thinking_delta"),
        tool_calls=[],
        finish=ANTHROPIC_FINISHES[end["delta"]["stop_reason"]],
        model=start["model"],
        usage=_anthropic_usage(start["usage"] | {k: v for k, v in end["usage"].items() if v is not None}),
    )


def _anthropic_usage(usage: Any) -> dict[str, int]:
    read, written = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    hour = (usage.get("cache_creation") or {}).get("ephemeral_1h_input_tokens") or 0
    return {
        "input_tokens": usage["input_tokens"] + read + written,
        "output_tokens": usage["output_tokens"],
        "cache_read_tokens": read,
        "cache_write_5m_tokens": written - hour,
        "cache_write_1h_tokens": hour,
        "reasoning_tokens": (usage.get("output_tokens_details") or {}).get("thinking_tokens") or 0,
    }
