"""An Anthropic messages answer, streamed or whole, as events. Unknown blocks (server tools, their results) are skipped.

Reference: https://docs.anthropic.com/en/api/messages-streaming
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from services.gateway.chunks import (
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageSoFar,
)
from services.gateway.failures import CallFailed, Failure, ProviderFault, classify, retry_after_of
from services.gateway.providers.http_call import parse_json
from services.gateway.providers.json_fields import count_of, index_of, list_of, object_of, text_of, value_of
from services.gateway.providers.sse import SseEvent
from services.gateway.tiers import reported_tier
from services.gateway.usage import TokenUsage

FINISH_REASONS: Mapping[str, FinishReason] = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
    "pause_turn": FinishReason.PAUSE,
    # The conversation was summed up, and the answer comes when it is sent again.
    "compaction": FinishReason.PAUSE,
}
"""Their stop reason -> ours. An unknown one still says that the model stopped: STOP."""


class AnthropicDecoder:
    """Reads one answer; one instance per call."""

    __slots__ = ("_blocks", "_signatures", "_tool_inputs", "_tools", "_usage", "done")

    def __init__(self) -> None:
        self.done = False
        self._usage: dict[str, Any] = {}
        # Index of a content block -> index of its tool call among the tool calls.
        self._tools: dict[int, int] = {}
        self._tool_inputs: dict[int, str] = {}
        self._signatures: dict[int, str] = {}
        self._blocks: dict[int, str] = {}

    def stream_event(self, event: SseEvent, into: list[Event]) -> None:
        """Append what one event means. Raises CallFailed for an `error` event, which can come inside a 200 stream."""
        if event.event == b"error":
            raise CallFailed(classify(anthropic_fault(0, value_of(event.data), {})))
        body = parse_json(event.data, "an event of the stream")
        if not isinstance(body, dict):
            return
        match body.get("type"):
            case "content_block_delta":
                self._delta(index_of(body.get("index")), object_of(body.get("delta")), into)
            case "content_block_start":
                self._block_start(index_of(body.get("index")), object_of(body.get("content_block")), into)
            case "content_block_stop":
                self._block_stop(index_of(body.get("index")), into)
            case "message_start":
                message = object_of(body.get("message"))
                into.append(Started(text_of(message.get("model")), text_of(message.get("id"))))
                self._take_usage(object_of(message.get("usage")), into)
            case "message_delta":
                self._take_usage(object_of(body.get("usage")), into)
                self._finish(object_of(body.get("delta")).get("stop_reason"), into)
            case "message_stop":
                self.done = True
            case "error":
                raise CallFailed(classify(anthropic_fault(0, body, {})))

    def whole_answer(self, body: Any) -> list[Event]:
        """The events of an answer that was not streamed."""
        if not isinstance(body, dict) or body.get("type") != "message":
            if isinstance(body, dict) and body.get("type") == "error":
                raise CallFailed(classify(anthropic_fault(0, body, {})))
            message = "the provider's answer is not an Anthropic message"
            raise CallFailed(Failure("PROVIDER_ERROR", message, dispatched=True))
        events: list[Event] = [Started(text_of(body.get("model")), text_of(body.get("id")), streamed=False)]
        for index, content in enumerate(list_of(body.get("content"))):
            block = object_of(content)
            self._block_start(index, block, events)
            if block.get("type") == "thinking":
                self._signatures[index] = text_of(block.get("signature"))
            self._block_stop(index, events)
        self._take_usage(object_of(body.get("usage")), events)
        self._finish(body.get("stop_reason"), events)
        self.done = True
        return events

    def _block_start(self, index: int, block: dict[str, Any], into: list[Event]) -> None:
        kind = text_of(block.get("type"))
        self._blocks[index] = kind
        if kind == "text" and (text := text_of(block.get("text"))):
            into.append(TextDelta(text))
        elif kind == "thinking" and (thought := text_of(block.get("thinking"))):
            into.append(ReasoningDelta(thought))
        elif kind == "redacted_thinking":
            data = {"format": "anthropic", "redacted": block.get("data")}
            into.append(ReasoningDelta("", orjson.dumps(data)))
        elif kind == "tool_use":
            tool = self._tools[index] = len(self._tools)
            into.append(ToolCallDelta(tool, text_of(block.get("id")), text_of(block.get("name"))))
            if block.get("input"):
                # Streams start with an empty input and send its text; whole answers have it here.
                self._tool_inputs[index] = orjson.dumps(block["input"]).decode()

    def _delta(self, index: int, delta: dict[str, Any], into: list[Event]) -> None:
        match delta.get("type"):
            case "text_delta":
                if text := text_of(delta.get("text")):
                    into.append(TextDelta(text))
            case "thinking_delta":
                if thought := text_of(delta.get("thinking")):
                    into.append(ReasoningDelta(thought))
            case "signature_delta":
                self._signatures[index] = self._signatures.get(index, "") + text_of(delta.get("signature"))
            case "input_json_delta":
                # Server tools stream their input too; they are not the caller's.
                if index in self._tools and (piece := text_of(delta.get("partial_json"))):
                    self._tool_inputs.pop(index, None)
                    into.append(ToolCallDelta(self._tools[index], arguments_json=piece))

    def _block_stop(self, index: int, into: list[Event]) -> None:
        if self._blocks.get(index) == "thinking":
            data = {"format": "anthropic", "signature": self._signatures.pop(index, "")}
            into.append(ReasoningDelta("", orjson.dumps(data)))
        elif index in self._tool_inputs:
            into.append(ToolCallDelta(self._tools[index], arguments_json=self._tool_inputs.pop(index)))

    def _take_usage(self, usage: dict[str, Any], into: list[Event]) -> None:
        """Their figures are cumulative: later ones replace earlier ones, and null means no news."""
        if not usage:
            return
        self._usage.update({name: value for name, value in usage.items() if value is not None})
        if (read := anthropic_usage(self._usage)).counted:
            into.append(UsageSoFar(read, reported_tier(self._usage)))

    def _finish(self, word: Any, into: list[Event]) -> None:
        if isinstance(word, str) and word:
            into.append(Finished(FINISH_REASONS.get(word, FinishReason.STOP)))


def anthropic_usage(usage: dict[str, Any]) -> TokenUsage:
    """Usage with our meaning: their `input_tokens` exclude what was read from and written to the cache."""
    read = count_of(usage.get("cache_read_input_tokens"))
    written = count_of(usage.get("cache_creation_input_tokens"))
    for_an_hour = min(written, count_of(object_of(usage.get("cache_creation")).get("ephemeral_1h_input_tokens")))
    output = count_of(usage.get("output_tokens"))
    thinking = count_of(object_of(usage.get("output_tokens_details")).get("thinking_tokens"))
    return TokenUsage(
        input_tokens=count_of(usage.get("input_tokens")) + read + written,
        cache_read_tokens=read,
        cache_write_5m_tokens=written - for_an_hour,
        cache_write_1h_tokens=for_an_hour,
        output_tokens=output,
        reasoning_tokens=min(output, thinking),
    )


def anthropic_fault(status: int, body: Any, headers: Mapping[str, str]) -> ProviderFault:
    """What an error body says; any shape is accepted."""
    outer = object_of(body)
    error = outer.get("error")
    inner = object_of(error)
    return ProviderFault(
        status=status,
        message=text_of(inner.get("message")) or text_of(error) or text_of(outer.get("message")) or text_of(body),
        type=text_of(inner.get("type")),
        code=text_of(object_of(inner.get("details")).get("error_code")),
        retry_after=retry_after_of(headers),
        request_id=headers.get("request-id", "") or text_of(outer.get("request_id")),
    )
