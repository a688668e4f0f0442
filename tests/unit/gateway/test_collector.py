"""The unary answer is the collected stream."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from protovalidate import Validator

from llmlab.api.cost.v1 import hold_pb2
from services.gateway.calls import ReasoningPart, TextPart, ToolCallPart
from services.gateway.chunks import (
    Event,
    Finished,
    FinishReason,
    RawBytes,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageSoFar,
)
from services.gateway.collector import PROVIDER_MODEL_MAX, RAW_MAX_BYTES, Collector
from services.gateway.usage import TokenUsage


def collect(*events: Event) -> Collector:
    collector = Collector()
    collector.add(events)
    return collector


def test_parts_keep_their_order_and_pieces_join() -> None:
    answer = collect(
        Started("model-1", "req-1"),
        ReasoningDelta("Let me "),
        ReasoningDelta("think."),
        ReasoningDelta("", b"signature"),
        TextDelta("It is "),
        TextDelta("blue."),
        ToolCallDelta(0, "call_1", "look"),
        ToolCallDelta(1, "call_2", "listen"),
        ToolCallDelta(0, arguments_json='{"at":'),
        ToolCallDelta(1, arguments_json="{}"),
        ToolCallDelta(0, arguments_json=' "sky"}'),
        UsageSoFar(TokenUsage(input_tokens=1)),
        UsageSoFar(TokenUsage(input_tokens=3, output_tokens=9)),
        Finished(FinishReason.TOOL_CALLS),
    )
    assert answer.parts() == (
        ReasoningPart("Let me think.", b"signature"),
        TextPart("It is blue."),
        ToolCallPart("call_1", "look", '{"at": "sky"}'),
        ToolCallPart("call_2", "listen", "{}"),
    )
    assert answer.usage == TokenUsage(input_tokens=3, output_tokens=9)
    assert answer.finish_reason is FinishReason.TOOL_CALLS
    assert (answer.provider_model, answer.provider_request_id) == ("model-1", "req-1")
    assert answer.output() == 'It is blue.{"at": "sky"}{}'


def test_provider_data_ends_a_block_of_reasoning() -> None:
    answer = collect(
        ReasoningDelta("one"),
        ReasoningDelta("", b"a"),
        ReasoningDelta("", b"redacted"),
        ReasoningDelta("two"),
        ReasoningDelta("", b"b"),
    )
    assert answer.parts() == (ReasoningPart("one", b"a"), ReasoningPart("", b"redacted"), ReasoningPart("two", b"b"))


def test_provider_data_may_come_after_the_visible_answer() -> None:
    answer = collect(ReasoningDelta("thought"), TextDelta("said"), ReasoningDelta("", b"details"))
    assert answer.parts() == (ReasoningPart("thought", b"details"), TextPart("said"))


def test_raw_bytes_are_bounded() -> None:
    answer = collect(*(RawBytes(b"x" * 100_000) for _ in range(4)))
    assert len(answer.raw()) == RAW_MAX_BYTES


@given(st.lists(st.text(min_size=1), max_size=20), st.integers(1, 5))
def test_how_text_is_cut_changes_nothing(pieces: list[str], reads: int) -> None:
    collector = Collector()
    for start in range(0, len(pieces), reads):
        collector.add([TextDelta(piece) for piece in pieces[start : start + reads]])
    assert collector.text() == "".join(pieces)
    assert collector.content_events == len(pieces)


def test_a_model_name_of_any_length_fits_into_a_settlement() -> None:
    # One that is too long would have the cost service refuse the settlements of all calls in its batch.
    collector = collect(Started("/models/" + "\0x" * 1_000, "id"))

    assert len(collector.provider_model) == PROVIDER_MODEL_MAX
    assert "\0" not in collector.provider_model
    item = hold_pb2.SettleItem(attempt_id="a/1", provider_model=collector.provider_model)
    assert Validator().collect_violations(item) == []
