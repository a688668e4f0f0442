"""Gemini's answers: signatures where they were, finish reasons, and shapes that nobody expects."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.calls import ReasoningPart, TextPart, ToolCallPart
from services.gateway.chunks import Event, FinishReason, UsageSoFar
from services.gateway.collector import Collector
from services.gateway.failures import CallFailed
from services.gateway.providers.gemini_answer import GeminiDecoder, gemini_usage
from services.gateway.providers.sse import SseEvent
from services.gateway.usage import TokenUsage


def read(*parts: Any, finish: str = "STOP", **more: Any) -> Collector:
    """A whole answer with these parts."""
    candidate = {"content": {"parts": list(parts)}, "finishReason": finish}
    answer = Collector()
    answer.add(GeminiDecoder().whole_answer({"candidates": [candidate], "responseId": "r", **more}))
    return answer


def call(name: str, **more: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, "args": {}}, **more}


def test_a_signature_stays_beside_its_part() -> None:
    answer = read(
        {"text": "Hm.", "thought": True},
        call("first", thoughtSignature="a"),
        call("second"),
        {"text": "So", "thoughtSignature": "b"},
        {"toolResponse": {"id": "x"}, "thoughtSignature": "c"},
    )
    assert answer.parts() == (
        ReasoningPart("Hm.", b'{"format":"gemini"}'),
        ReasoningPart("", b'{"format":"gemini","call_signature":"a"}'),
        ToolCallPart("r-0", "first", "{}"),
        ToolCallPart("r-1", "second", "{}"),
        TextPart("So"),
        ReasoningPart("", b'{"format":"gemini","part":{"text":"","thoughtSignature":"b"}}'),
        ReasoningPart("", b'{"format":"gemini","part":{"toolResponse":{"id":"x"},"thoughtSignature":"c"}}'),
    )


def streamed(*calls: dict[str, Any], finish: str = "STOP") -> tuple[ToolCallPart, ...]:
    """The tool calls of a stream that has each of these as a part of its own."""
    answer, decoder, events = Collector(), GeminiDecoder(), list[Event]()
    for call in calls:
        body = {"candidates": [{"content": {"parts": [{"functionCall": call}]}}], "responseId": "r"}
        decoder.stream_event(SseEvent(b"", orjson.dumps(body)), events)
    decoder.stream_event(SseEvent(b"", orjson.dumps({"candidates": [{"finishReason": finish}]})), events)
    answer.add(events)
    assert answer.finish_reason is FinishReason.TOOL_CALLS
    return tuple(part for part in answer.parts() if isinstance(part, ToolCallPart))


def pieces(*named: tuple[str, Any], more: bool = True) -> dict[str, Any]:
    kinds = {str: "stringValue", float: "numberValue", bool: "boolValue", type(None): "nullValue"}
    partial = [{"jsonPath": path, kinds[type(value)]: value, "willContinue": True} for path, value in named]
    return {"partialArgs": partial, "willContinue": more}


def test_arguments_that_vertex_streams_are_put_together() -> None:
    calls = streamed(
        {"name": "look", "willContinue": True},
        pieces(("$.city", "New"), ("$.days", 3.5)),
        pieces(("$.city", " York"), ("$.at[1].name", "b"), ("$['a.b']", True)),
        pieces(("$.at[0]", None), ("$.at[1].name", "c"), more=False),
        {"name": "hear", "args": {"x": 1}, "willContinue": True},
        {},
        {"name": "feel", **pieces(("$.soft", True))},
    )
    assert [(call.id, call.name) for call in calls] == [("r-0", "look"), ("r-1", "hear"), ("r-2", "feel")]
    assert [orjson.loads(call.arguments_json) for call in calls] == [
        {"city": "New York", "days": 3.5, "at": [None, {"name": "bc"}], "a.b": True},
        {"x": 1},
        {"soft": True},
    ]


@pytest.mark.parametrize(
    "path", ["", "$", "city", "$..city", "$.at[*]", "$.at[10000]", "$[0]", "$.city.name", "$" + ".a" * 101]
)
def test_an_argument_without_a_place_is_an_error(path: str) -> None:
    with pytest.raises(CallFailed, match="place that cannot be read"):
        streamed({"name": "look", "willContinue": True}, pieces(("$.city", "x"), (path, "y")))


def test_a_signature_on_a_thought_ends_it() -> None:
    answer = read({"text": "Hm.", "thought": True, "thoughtSignature": "a"}, {"text": "So"})
    assert answer.parts() == (ReasoningPart("Hm.", b'{"format":"gemini","signature":"a"}'), TextPart("So"))


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("STOP", FinishReason.STOP),
        ("MAX_TOKENS", FinishReason.LENGTH),
        ("SAFETY", FinishReason.CONTENT_FILTER),
        ("RECITATION", FinishReason.CONTENT_FILTER),
        ("PROHIBITED_CONTENT", FinishReason.CONTENT_FILTER),
        ("SOMETHING_NEW", FinishReason.STOP),
        ("FINISH_REASON_UNSPECIFIED", None),
        ("", None),
    ],
)
def test_finish_reasons(finish: str, reason: FinishReason | None) -> None:
    assert read({"text": "x"}, finish=finish).finish_reason is reason


def test_a_filter_is_not_hidden_by_tool_calls() -> None:
    assert read(call("x")).finish_reason is FinishReason.TOOL_CALLS
    assert read(call("x"), finish="SAFETY").finish_reason is FinishReason.CONTENT_FILTER


@pytest.mark.parametrize("finish", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "OTHER"])
def test_answers_that_are_none(finish: str) -> None:
    with pytest.raises(CallFailed, match=finish):
        read(finish=finish)


def test_a_blocked_prompt_is_a_content_filter() -> None:
    answer = Collector()
    answer.add(GeminiDecoder().whole_answer({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {}}))
    assert (answer.finish_reason, answer.text(), answer.usage) == (FinishReason.CONTENT_FILTER, "", None)


def test_an_answer_streamed_as_a_list() -> None:
    pieces = [
        {"candidates": [{"content": {"parts": [{"text": "a"}]}}], "usageMetadata": {"promptTokenCount": 2}},
        {"candidates": [{"content": {"parts": [{"text": "b"}]}, "finishReason": "STOP"}]},
    ]
    answer = Collector()
    answer.add(GeminiDecoder().whole_answer(pieces))
    assert (answer.text(), answer.finish_reason) == ("ab", FinishReason.STOP)
    assert answer.usage == TokenUsage(input_tokens=2)


def test_later_figures_replace_earlier_ones() -> None:
    decoder, events = GeminiDecoder(), []
    for usage in ({"promptTokenCount": 5, "thoughtsTokenCount": 3}, {"promptTokenCount": 5, "candidatesTokenCount": 2}):
        events += decoder.whole_answer({"usageMetadata": usage})
    assert [event.usage.output_tokens for event in events if isinstance(event, UsageSoFar)] == [3, 5]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["candidates", "content", "parts", "text", "thought", "functionCall", "args", "usageMetadata"]
            )
            | st.sampled_from(
                ["promptTokenCount", "promptTokensDetails", "thoughtsTokenCount", "finishReason", "error"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(body=JSON)
def test_no_shape_is_a_fault_of_ours(body: Any) -> None:
    with suppress(CallFailed):
        GeminiDecoder().whole_answer(body)


@given(
    usage=st.dictionaries(st.sampled_from(["promptTokenCount", "cachedContentTokenCount", "thoughtsTokenCount"]), JSON)
)
def test_parts_are_never_above_their_totals(usage: dict[str, Any]) -> None:
    read_usage = gemini_usage(usage)
    assert read_usage.input_tokens >= max(read_usage.cache_read_tokens, read_usage.input_audio_tokens)
    assert read_usage.output_tokens >= read_usage.reasoning_tokens + read_usage.output_audio_tokens
