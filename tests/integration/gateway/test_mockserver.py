"""The mock as a process of its own: all wire formats through the gateway's own providers, and the call log."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from services.gateway.attempts import Completion, FailedCall
from services.gateway.calls import Call, Message, OptionValue, Parameters, TextPart, Tool, ToolCallPart
from services.gateway.collector import Collector
from services.gateway.mockserver.server import serve_mock
from services.gateway.providers.mock import MockProvider
from services.gateway.providers.port import Provider
from tests.support.gateway import OWNER, InMemoryLedger, call, collected, pipeline, request, text_of
from tests.support.processes import start_child
from tests.support.provider_kinds import provider_of

KINDS = ("openai", "anthropic", "gemini", "responses")
PATHS = {
    "openai": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/instant:generateContent",
    "responses": "/v1/responses",
}


@pytest.fixture
async def base_url(tmp_path: Path) -> AsyncIterator[str]:
    async with serve_mock(call_log=tmp_path / "calls.jsonl") as url:
        yield url


def made(kind: str, base_url: str) -> Provider:
    return provider_of(kind, base_url if kind in ("openai", "responses") else base_url.removesuffix("/v1"))


async def run(kind: str, base_url: str, asked: Call) -> Completion | FailedCall:
    provider = made(kind, base_url)
    try:
        pipe, _ = pipeline(provider, InMemoryLedger())
        # The route's model is "model"; the mock's own name is what its server is asked for.
        return await pipe.run(asked, OWNER)
    finally:
        await provider.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_same_answer_as_in_process(base_url: str, kind: str) -> None:
    asked = request(call("Why is the sky blue?"), model="mock/instant", max_output_tokens=1_000)
    provider = made(kind, base_url)
    over_the_wire, failed = await collected(provider.stream(asked, 0))
    await provider.close()
    assert failed is None
    in_process, _ = await collected(
        MockProvider().stream(request(asked.call, model="instant", max_output_tokens=1_000), 0)
    )
    assert text_of(over_the_wire) == text_of(in_process)
    assert [event for event in over_the_wire if event in in_process[-2:]]


@pytest.mark.parametrize("kind", KINDS)
async def test_tools_reasoning_and_usage_over_the_wire(base_url: str, kind: str) -> None:
    schema = json.dumps({"type": "object", "properties": {"city": {"type": "string"}}})
    options: dict[str, OptionValue] = {
        "reasoning": "Hmm.",
        "input_tokens": 500,
        "cached_tokens": 400,
        "output_tokens": 30,
        "service_tier": "flex",
    }
    asked = call(
        parameters=Parameters(provider_options=options),
        tools=(Tool("weather", "Tells it.", schema),),
        tool_choice="required",
    )
    provider = made(kind, base_url)
    answer = Collector()
    async for events in provider.stream(request(asked, model="instant"), 0):
        answer.add(events)
    await provider.close()
    (tool,) = (part for part in answer.parts() if isinstance(part, ToolCallPart))
    assert tool.name == "weather"
    assert json.loads(tool.arguments_json)["city"]
    assert answer.reasoning() == "Hmm."
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.cache_read_tokens, answer.usage.output_tokens) == (500, 400, 30)
    assert answer.service_tier == "flex"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"error_rate": 1.0, "error_kinds": "rate_limit"}, "RATE_LIMITED"),
        ({"error_rate": 1.0, "error_kinds": "server_error"}, "PROVIDER_ERROR"),
        ({"error_rate": 1.0, "error_kinds": "overloaded"}, "PROVIDER_OVERLOADED"),
        ({"error_rate": 1.0, "error_kinds": "auth"}, "PROVIDER_AUTH"),
        ({"error_rate": 1.0, "error_kinds": "network"}, "NETWORK_ERROR"),
        ({"truncation_rate": 1.0, "chunk_size": 4}, "STREAM_TRUNCATED"),
    ],
)
async def test_errors_over_the_wire(base_url: str, kind: str, options: dict[str, OptionValue], reason: str) -> None:
    provider = made(kind, base_url)
    asked = request(call(parameters=Parameters(provider_options=options)), model="instant")
    events, failed = await collected(provider.stream(asked, 0))
    await provider.close()
    assert failed is not None
    assert failed.failure.reason == reason
    assert failed.failure.dispatched
    if reason == "RATE_LIMITED":
        assert failed.failure.retry_after_ms == 1_000
    if reason == "STREAM_TRUNCATED":
        assert text_of(events)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_unknown_model_and_a_bad_body_are_client_errors(base_url: str, kind: str) -> None:
    outcome = await run(kind, base_url, call())
    assert isinstance(outcome, FailedCall)
    assert outcome.failure.reason == "MODEL_NOT_FOUND"
    url = base_url.removesuffix("/v1") + PATHS[kind]
    async with aiohttp.ClientSession() as session:
        for body in (
            b"{",
            b"[]",
            b'{"messages": []}',
            b'{"messages": [{"role": "pope"}], "contents": [{"role": "pope"}], "input": [7], "max_tokens": 1}',
        ):
            async with session.post(url, data=body) as reply:
                assert reply.status == 400
                assert "error" in await reply.json()


@pytest.mark.parametrize("kind", KINDS)
async def test_unary_answers(base_url: str, kind: str) -> None:
    body = {
        "model": "instant",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": "hi"}],
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
        "input": "hi",
        "text": "Hello there.",
    }
    url = base_url.removesuffix("/v1") + PATHS[kind]
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as reply:
        answer = await reply.json()
    if kind == "openai":
        assert answer["choices"][0]["message"]["content"] == "Hello there."
        assert answer["usage"]["completion_tokens"] == 3
    elif kind == "responses":
        assert answer["output"][0]["content"][0]["text"] == "Hello there."
        assert (answer["status"], answer["usage"]["output_tokens"]) == ("completed", 3)
    elif kind == "gemini":
        assert answer["candidates"][0]["content"]["parts"] == [{"text": "Hello there."}]
        assert answer["usageMetadata"]["candidatesTokenCount"] == 3
    else:
        assert answer["content"] == [{"type": "text", "text": "Hello there."}]
        assert answer["usage"]["output_tokens"] == 3


@pytest.mark.parametrize("kind", KINDS)
async def test_a_conversation_is_understood(base_url: str, kind: str) -> None:
    provider = made(kind, base_url)
    messages = (
        Message("system", (TextPart("Be exact."),)),
        Message("user", (TextPart("And now?"),)),
        Message("assistant", (ToolCallPart("t1", "look", "{}"),)),
        Message("user", (TextPart("What is 2 + 2? Answer with the number only."),)),
    )
    asked = call(messages=messages, parameters=Parameters(temperature=0.0))
    events, failed = await collected(provider.stream(request(asked, model="large"), 0))
    await provider.close()
    assert failed is None
    assert text_of(events).isdigit()


def test_every_call_is_in_the_log_before_it_is_answered_also_at_a_kill(tmp_path: Path) -> None:
    log = tmp_path / "calls.jsonl"
    command = [sys.executable, "-m", "services.gateway.mockserver", "--port", "0", "--call-log", str(log)]
    process = start_child(
        [*command, "--ttft-ms", "0", "--tokens-per-second", "0"],
        on_parent_death=signal.SIGKILL,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[3],
    )
    assert process.stdout is not None
    base_url = json.loads(process.stdout.readline())["base_url"]
    answered = asyncio.run(_answered_ids(base_url, 40))
    process.kill()
    process.wait()
    process.stdout.close()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted(line["idempotency_key"] for line in lines) == sorted(answered)
    assert {line["model"] for line in lines} == {"small"}
    assert all(line["received_at_us"] > 0 for line in lines)


async def _answered_ids(base_url: str, count: int) -> list[str]:
    provider = made("openai", base_url)

    async def one(number: int) -> str:
        asked = request(call(call_id=f"run_1/{number}/1"), model="small")
        events, failed = await collected(provider.stream(asked, 0))
        assert failed is None
        assert text_of(events)
        return asked.attempt_id

    try:
        return await asyncio.gather(*(one(number) for number in range(count)))
    finally:
        await provider.close()
