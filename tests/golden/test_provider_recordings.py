"""Real providers' answers, replayed: what comes out of the gateway's providers is what is in the file.

The expected values are read from the recordings by plain JSON and string operations, not by the product's parsers
(tests/support/expected_answers.py). Which recordings fit is decided by the endpoint that they called.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from services.gateway.calls import Call, Message, ProviderRequest, TextPart, ToolCallPart
from services.gateway.collector import Collector
from services.gateway.failures import CallFailed
from services.gateway.providers.openai_request import OpenAiDialect
from services.gateway.providers.port import Provider
from tests.support.expected_answers import Expected, error_within, expected
from tests.support.provider_kinds import KEY, KINDS, provider_of
from tests.support.recordings import FOLDER, Recording, recordings
from tests.support.replay import Asked, Reply, replay_server

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"the recordings of real providers are not at {FOLDER}: nothing to replay"
)

ALL = recordings() if FOLDER.is_dir() else ()
FITTING = [recording for recording in ALL if recording.format]

ERROR_CLASSES = {
    400: "invalid_request",
    402: "rate_limit",
    408: "network_error",
    409: "server_error",
    429: "rate_limit",
}


# The endpoints that answer a completion: what is recorded of them has to be replayed.
COMPLETIONS = re.compile(r"(/chat/completions|/messages|/responses|:generateContent|:streamGenerateContent)$")


def test_only_recordings_of_other_endpoints_are_left_out() -> None:
    left_out = [recording.path for recording in ALL if not recording.format]
    assert [path for path in left_out if COMPLETIONS.search(path)] == []
    assert len(left_out) < len(FITTING)


def test_all_formats_are_replayed() -> None:
    assert {recording.format for recording in FITTING} == set(KINDS)


@pytest.mark.parametrize("recording", FITTING, ids=lambda recording: recording.name)
async def test_replay(recording: Recording) -> None:
    kept = {name: value for name, value in recording.headers.items() if name in ("content-type", "retry-after")}
    reply = Reply(recording.status, kept, _torn(recording.body, 7))
    async with replay_server(lambda asked: reply) as server:
        # Snowflake's streams name no finish reason, as its catalogue entry says.
        dialect = OpenAiDialect(names_finish="/cortex/" not in recording.path)
        provider = provider_of(recording.format, server.base_url, dialect=dialect)
        try:
            answer, failure = await _ask(provider)
        finally:
            await provider.close()
        _check_request(server.asked[0], recording)
    if recording.status != 200:
        assert failure is not None
        default = "server_error" if recording.status >= 500 else "invalid_request"
        assert failure.failure.rule.error_class == ERROR_CLASSES.get(recording.status, default)
        assert failure.failure.provider_status == recording.status
        assert failure.failure.dispatched
        assert _words_of_error(recording.whole) in failure.failure.message
        return
    wanted = expected(recording)
    if wanted is None:
        # Not a completion at all, or an error in the middle of a stream: an error, not an empty answer.
        assert failure is not None
        said = error_within(recording)
        if said is None:
            assert failure.failure.reason == "PROVIDER_ERROR"
        else:
            # What the provider said, not that its stream came to no end.
            assert failure.failure.reason != "STREAM_TRUNCATED"
            assert _words_of_error(said) in failure.failure.message
        return
    assert failure is None, failure
    _compare(answer, wanted)


def _compare(answer: Collector, wanted: Expected) -> None:
    assert answer.text() == wanted.text
    assert answer.reasoning() == wanted.reasoning
    calls = [part for part in answer.parts() if isinstance(part, ToolCallPart)]
    assert [(call.id, call.name, json.loads(call.arguments_json or "{}")) for call in calls] == wanted.tool_calls
    assert (answer.finish_reason.name if answer.finish_reason else "") == wanted.finish
    assert answer.provider_model == wanted.model
    if not any(wanted.usage.values()):
        assert answer.usage is None
        return
    assert answer.usage is not None
    assert answer.usage.measured
    got = {name: getattr(answer.usage, name) for name in wanted.usage}
    assert got == wanted.usage


async def _ask(provider: Provider) -> tuple[Collector, CallFailed | None]:
    call = Call("call", "recorded/model", (Message("user", (TextPart("What was recorded?"),)),), 10_000)
    answer = Collector()
    try:
        async for events in provider.stream(ProviderRequest("call/1", "model", call, 100), 0.0):
            answer.add(events)
    except CallFailed as failed:
        return answer, failed
    return answer, None


def _check_request(asked: Asked, recording: Recording) -> None:
    assert asked.headers["idempotency-key"] == "call/1"
    assert KEY in asked.headers.get("authorization", "") + str(asked.headers.get("x-api-key")) + str(
        asked.headers.get("x-goog-api-key")
    )
    ends = {
        "anthropic": "/v1/messages",
        "gemini": ":streamGenerateContent?alt=sse",
        "openai": "/chat/completions",
        "responses": "/responses",
    }
    assert asked.path.endswith(ends[recording.format])


def _torn(body: bytes, pieces: int) -> tuple[bytes, ...]:
    size = max(1, -(-len(body) // pieces))
    return tuple(body[start : start + size] for start in range(0, len(body), size))


def _words_of_error(body: Any) -> str:
    """What the body of an error says, in the forms that servers have for it; empty where it is none of them."""
    body = body[0] if isinstance(body, list) else body
    said = body.get("error") or body if isinstance(body, dict) else body
    said = said.get("message") or "" if isinstance(said, dict) else said or ""
    return str(said)[:200]
