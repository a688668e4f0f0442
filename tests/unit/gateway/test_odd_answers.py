"""Answers with shapes that nobody documents: unknown parts are skipped, and none is a fault of the gateway's own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.gateway.calls import ToolCallPart
from services.gateway.chunks import Event, FinishReason, UsageSoFar
from services.gateway.collector import Collector
from services.gateway.failures import CallFailed, classify
from services.gateway.providers.anthropic_answer import AnthropicDecoder, anthropic_fault
from services.gateway.providers.gemini_answer import GeminiDecoder
from services.gateway.providers.gemini_errors import GeminiErrors
from services.gateway.providers.http_call import Decoder
from services.gateway.providers.openai_answer import OpenAiDecoder, openai_fault
from services.gateway.providers.responses_answer import ResponsesDecoder
from services.gateway.providers.sse import SseEvent, SseParser
from tests.support.provider_streams import KINDS, STREAMS, delta

DECODERS: dict[str, type[Decoder]] = {
    "anthropic": AnthropicDecoder,
    "gemini": GeminiDecoder,
    "openai": OpenAiDecoder,
    "responses": ResponsesDecoder,
}
BODIES: dict[str, list[Any]] = {
    kind: [
        orjson.loads(event.data)
        for event in SseParser(100_000).feed(b"".join(stream))
        if not event.data.startswith(b"[DONE]")
    ]
    for kind, stream in STREAMS.items()
}
ODD: tuple[Any, ...] = (None, True, -1, 2**63 - 1, 1e300, "", "x", [], {}, [None], [[]], ["x"], [{}], {"x": None})


def places(body: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in a body."""
    yield way
    inner = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for step, value in inner:
        yield from places(value, (*way, step))


def with_odd(body: Any, way: tuple[Any, ...], odd: Any) -> Any:
    """The body with another value at one place."""
    if not way:
        return odd
    changed = copy.deepcopy(body)
    inner = changed
    for step in way[:-1]:
        inner = inner[step]
    inner[way[-1]] = odd
    return changed


def read(kind: str, *bodies: Any, name: bytes = b"") -> list[Event]:
    decoder, events = DECODERS[kind](), list[Event]()
    for body in bodies:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        decoder.stream_event(SseEvent(name, data), events)
    return events


def sound(events: list[Event]) -> None:
    """Every part of a usage is within its total."""
    for event in events:
        if isinstance(event, UsageSoFar):
            usage = event.usage
            assert usage.input_tokens >= max(usage.cache_read_tokens, usage.input_audio_tokens)
            assert usage.output_tokens >= max(usage.reasoning_tokens, usage.output_audio_tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_no_odd_value_at_any_place_of_a_stream_is_a_fault_of_ours(kind: str) -> None:
    for index, body in enumerate(BODIES[kind]):
        for way in places(body):
            for odd in ODD:
                bodies = list(BODIES[kind])
                bodies[index] = with_odd(body, way, odd)
                with suppress(CallFailed):
                    sound(read(kind, *bodies))


WHOLE: dict[str, Any] = {
    "anthropic": {
        "type": "message",
        "content": [
            {"type": "thinking", "thinking": "Hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "d"},
            {"type": "text", "text": "Blü", "citations": [{"type": "web_search_result_location"}]},
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
            {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"type": "web_search_result"}]},
            {"type": "tool_use", "id": "t", "name": "look", "input": {"up": True}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 3, "cache_creation": {"ephemeral_1h_input_tokens": 1}, "output_tokens": 2},
    },
    "gemini": {
        "candidates": [
            {
                "content": {
                    "parts": [
                        {"text": "Hm", "thought": True, "thoughtSignature": "s"},
                        {"text": "Blü"},
                        {"inlineData": {"mimeType": "image/png", "data": "aa"}},
                        {"executableCode": {"code": "1"}},
                        {"functionCall": {"name": "look", "args": {"up": True}}},
                    ]
                },
                "finishReason": "STOP",
                "groundingMetadata": {"webSearchQueries": ["q"]},
            }
        ],
        "usageMetadata": {"promptTokenCount": 3, "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 1}]},
    },
    "openai": {
        "choices": [
            {
                "message": {
                    "content": [{"type": "text", "text": "Blü"}, {"type": "thinking", "thinking": [{"text": "Hm"}]}],
                    "reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "Hm"}],
                    "tool_calls": [{"id": "t", "function": {"name": "look", "arguments": '{"up": true}'}}],
                    "annotations": [{"type": "url_citation"}],
                    "images": [{"type": "image_url"}],
                },
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}},
        "x_groq": {"usage": None},
    },
    "responses": {
        "status": "completed",
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}], "encrypted_content": "s"},
            {"type": "web_search_call", "action": {"query": "q"}},
            {"type": "message", "content": [{"type": "output_text", "text": "Blü", "annotations": []}]},
            {"type": "function_call", "call_id": "t", "name": "look", "arguments": '{"up": true}'},
            {"type": "custom_tool_call", "call_id": "u", "name": "shout", "input": "hey"},
        ],
        "usage": {"input_tokens": 3, "input_tokens_details": {"cached_tokens": 1}, "output_tokens": 2},
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_odd_value_at_any_place_of_a_whole_answer_is_a_fault_of_ours(kind: str) -> None:
    answer = Collector()
    answer.add(DECODERS[kind]().whole_answer(WHOLE[kind]))
    assert (answer.text(), answer.finish_reason) == ("Blü", FinishReason.TOOL_CALLS)
    for way in places(WHOLE[kind]):
        for odd in ODD:
            with suppress(CallFailed):
                sound(DECODERS[kind]().whole_answer(with_odd(WHOLE[kind], way, odd)))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.binary(max_size=20) | st.sampled_from(ODD).map(lambda odd: repr(odd).encode()))
@example(data=b"[DONE]")
def test_an_event_that_is_named_error_is_an_error_whatever_is_in_it(kind: str, data: bytes) -> None:
    with pytest.raises(CallFailed):
        read(kind, data, name=b"error")


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_event_is_told_in_its_own_words(kind: str) -> None:
    for data in (b'{"error": {"message": "boom"}}', b'{"error": "boom"}', b'{"message": "boom"}', b"boom", b'"boom"'):
        with pytest.raises(CallFailed, match="boom"):
            read(kind, data, name=b"error")


@pytest.mark.parametrize(
    ("status", "body", "reason", "message"),
    [
        (404, {"error": {"message": "no", "code": "model_not_found"}}, "MODEL_NOT_FOUND", "no"),
        # Ollama, Hugging Face.
        (404, {"error": "model 'x' not found"}, "MODEL_NOT_FOUND", "model 'x' not found"),
        (422, {"error": "Input validation error", "error_type": "validation"}, "INVALID_REQUEST", "Input validation"),
        (429, {"error": "overloaded", "error_type": "overloaded"}, "RATE_LIMITED", "overloaded"),
        # Mistral, Cerebras: the same fields without `error`.
        (400, {"object": "error", "message": "bad", "type": "invalid_request_error", "code": "3000"}, "", "bad"),
        (400, {"message": "too long", "type": "x", "code": "context_length_exceeded"}, "CONTEXT_LENGTH_EXCEEDED", ""),
        (401, {"message": "Unauthorized", "request_id": "r"}, "PROVIDER_AUTH", "Unauthorized"),
        # Servers that are written with FastAPI.
        (422, {"detail": [{"loc": ["body"], "msg": "field required"}, 7]}, "INVALID_REQUEST", "field required"),
        (403, {"detail": "Not allowed"}, "PROVIDER_FORBIDDEN", "Not allowed"),
        # xAI: the code is beside the text.
        (429, {"code": "insufficient_quota", "error": "used up"}, "PROVIDER_QUOTA", "used up"),
        # OpenRouter: what the provider behind it said.
        (
            502,
            {"error": {"message": "Provider returned error", "code": 502, "metadata": {"raw": "boom"}}},
            "PROVIDER_UNAVAILABLE",
            "Provider returned error: boom",
        ),
        (503, "Service Unavailable", "PROVIDER_UNAVAILABLE", "Service Unavailable"),
        (400, [], "INVALID_REQUEST", "status 400"),
        (400, {"error": {"message": 7, "code": [1], "type": {}}}, "INVALID_REQUEST", "status 400"),
    ],
)
def test_error_bodies_of_servers_that_speak_the_openai_format(
    status: int, body: Any, reason: str, message: str
) -> None:
    failure = classify(openai_fault(status, body, {"retry-after-ms": "1500"}))
    assert failure.reason == (reason or "INVALID_REQUEST")
    assert message in failure.message
    assert failure.retry_after_ms == (1_500 if failure.retryable else 0)


def test_error_bodies_of_the_others() -> None:
    said = anthropic_fault(400, {"message": "from a proxy"}, {"retry-after-ms": "2000"})
    assert (said.message, said.retry_after) == ("from a proxy", "2.0")
    errors = GeminiErrors()
    assert errors.status_failure(503, {}, b"<h1>Bad gateway</h1>").message == "<h1>Bad gateway</h1>"
    assert errors.status_failure(400, {}, b'[{"error": {"message": "no", "details": 7}}]').message == "no"


@pytest.mark.parametrize(
    "error", [{"object": "error", "message": "boom", "code": 500}, {"error": {"message": "boom"}}, {"error": "boom"}]
)
def test_an_error_without_a_name_inside_a_stream_is_one_too(error: dict[str, Any]) -> None:
    with pytest.raises(CallFailed, match="boom"):
        read("openai", delta(content="Bl"), error)


def test_tool_calls_in_older_and_newer_forms() -> None:
    answer = Collector()
    answer.add(read("openai", delta(function_call={"name": "look"}), delta(function_call={"arguments": "{}"})))
    assert answer.parts() == (ToolCallPart("", "look", "{}"),)
    answer = Collector()
    custom = [{"index": 0, "id": "t", "type": "custom", "custom": {"name": "shout", "input": "he"}}]
    answer.add(read("openai", delta(tool_calls=custom), delta(tool_calls=[{"index": 0, "custom": {"input": "y"}}])))
    assert answer.parts() == (ToolCallPart("t", "shout", "hey"),)
    answer = Collector()
    item = {"type": "custom_tool_call", "call_id": "u", "name": "shout", "input": "hey"}
    answer.add(
        read(
            "responses",
            {"type": "response.output_item.added", "output_index": 3, "item": {**item, "input": ""}},
            {"type": "response.custom_tool_call_input.delta", "output_index": 3, "delta": "hey"},
            {"type": "response.output_item.done", "output_index": 3, "item": item},
        )
    )
    assert answer.parts() == (ToolCallPart("u", "shout", "hey"),)


def test_an_empty_function_call_and_a_blank_finish_reason_are_none() -> None:
    """As Snowflake writes every answer that was not streamed."""
    message: dict[str, Any] = {"content": "Blü", "function_call": {"name": "", "arguments": ""}, "refusal": ""}
    message["reasoning_details"] = [{"type": "reasoning.text", "index": 0, "text": "Hm", "signature": "s"}]
    call = {"id": "t", "function": {"name": "look", "arguments": "{}"}, "custom": {"name": "", "input": ""}}
    for tool_calls, finish in ((None, FinishReason.STOP), ([call], FinishReason.TOOL_CALLS)):
        answer, body = Collector(), {**message, "tool_calls": tool_calls}
        answer.add(OpenAiDecoder().whole_answer({"choices": [{"message": body, "finish_reason": ""}]}))
        assert (answer.text(), answer.reasoning(), answer.finish_reason) == ("Blü", "Hm", finish)
        assert sum(isinstance(part, ToolCallPart) for part in answer.parts()) == len(tool_calls or ())


@pytest.mark.parametrize(
    ("names_finish", "counted", "finish"),
    [(False, True, FinishReason.STOP), (False, False, None), (True, True, None)],
)
def test_a_stream_without_a_finish_reason_is_whole_only_where_the_server_never_names_one(
    names_finish: bool, counted: bool, finish: FinishReason | None
) -> None:
    decoder, events = OpenAiDecoder(names_finish=names_finish), list[Event]()
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    for body in (delta(content="Blü"), *([usage] if counted else [])):
        decoder.stream_event(SseEvent(b"", orjson.dumps(body)), events)
    decoder.stream_event(SseEvent(b"", b"[DONE]"), events)
    answer = Collector()
    answer.add(events)
    assert (answer.text(), answer.finish_reason) == ("Blü", finish)


def test_plain_reasoning_is_not_said_again_by_its_details() -> None:
    answer, details = Collector(), [{"type": "reasoning.text", "index": 0, "text": "Hm"}]
    answer.add(read("openai", delta(reasoning="Hm", reasoning_details=details), delta(reasoning_details=details)))
    assert answer.reasoning() == "Hm"


def test_responses_end_with_the_mark_of_chat_completions_where_a_proxy_sends_it() -> None:
    completed = {"type": "response.completed", "response": {"status": "complete"}}
    for bodies, finish in (([completed], FinishReason.STOP), ([], None)):
        answer = Collector()
        answer.add(read("responses", *bodies, b"[DONE]"))
        assert answer.finish_reason is finish


def test_a_stop_for_compaction_asks_to_go_on() -> None:
    answer = Collector()
    answer.add(read("anthropic", {"type": "message_delta", "delta": {"stop_reason": "compaction"}}))
    assert answer.finish_reason is FinishReason.PAUSE


NOTHING_COUNTED: dict[str, Any] = {
    "anthropic": {"type": "message_delta", "usage": {"input_tokens": 0, "output_tokens": 0}},
    "gemini": {"usageMetadata": {"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0}},
    "openai": {"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}},
    "responses": {"type": "response.completed", "response": {"usage": {"input_tokens": 0, "output_tokens": 0}}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_count_of_nothing_at_all_is_none_so_that_an_estimate_takes_its_place(kind: str) -> None:
    assert not any(isinstance(event, UsageSoFar) for event in read(kind, NOTHING_COUNTED[kind]))


def test_vertex_names_its_tiers_by_traffic() -> None:
    for said, tier in (("ON_DEMAND_FLEX", "flex"), ("ON_DEMAND", ""), (7, "")):
        answer = Collector()
        answer.add(read("gemini", {"usageMetadata": {"promptTokenCount": 1, "trafficType": said}}))
        assert answer.service_tier == tier
