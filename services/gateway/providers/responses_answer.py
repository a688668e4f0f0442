"""An answer of OpenAI's responses API, streamed or whole, as events. Unknown items (tools of OpenAI's own) are skipped.

Reference: https://platform.openai.com/docs/api-reference/responses-streaming
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
from services.gateway.failures import CallFailed, Failure, classify
from services.gateway.providers.http_call import parse_json
from services.gateway.providers.json_fields import count_of, index_of, object_of, objects_of, text_of
from services.gateway.providers.openai_answer import error_event, openai_fault
from services.gateway.providers.sse import SseEvent
from services.gateway.tiers import reported_tier
from services.gateway.usage import TokenUsage

INCOMPLETE_REASONS: Mapping[str, FinishReason] = {
    "max_output_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}
"""Why an answer is incomplete -> ours."""

# A custom tool takes any text where a function takes JSON.
_TOOL_CALLS = ("function_call", "custom_tool_call")
_ARGUMENTS = frozenset({"response.function_call_arguments.delta", "response.custom_tool_call_input.delta"})
_LAST_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed"})


class ResponsesDecoder:
    """Reads one answer; one instance per call."""

    __slots__ = ("_refused", "_tools", "_with_arguments", "done")

    def __init__(self) -> None:
        self.done = False
        self._refused = False
        # Index of an output item -> index of its tool call among the tool calls.
        self._tools: dict[int, int] = {}
        self._with_arguments: set[int] = set()

    def stream_event(self, event: SseEvent, into: list[Event]) -> None:
        """Append what one event means. Raises CallFailed where it reports an error."""
        if event.event == b"error":
            raise error_event(event)
        if event.data.startswith(b"[DONE]"):
            # OpenRouter ends with it, as chat completions do.
            self.done = True
            return
        body = parse_json(event.data, "an event of the stream")
        if not isinstance(body, dict):
            return
        kind, index = text_of(body.get("type")), index_of(body.get("output_index"))
        match kind:
            case "response.output_item.added":
                self._tool_begins(index, object_of(body.get("item")), into)
            case "response.output_item.done":
                self._item_ends(index, object_of(body.get("item")), into)
            case "response.created":
                into.append(_started(object_of(body.get("response")), streamed=True))
            case "error":
                raise CallFailed(classify(openai_fault(0, body, {})))
            case _ if kind in _LAST_EVENTS:
                self._finish(object_of(body.get("response")), into)
            case _ if piece := text_of(body.get("delta")):
                self._delta(kind, index, piece, into)

    def whole_answer(self, body: Any) -> list[Event]:
        """The events of an answer that was not streamed."""
        if isinstance(body, dict) and body.get("error"):
            raise CallFailed(classify(openai_fault(0, body, {})))
        if not isinstance(body, dict) or not isinstance(body.get("output"), list):
            message = "the provider's answer is not a response: it has no output"
            raise CallFailed(Failure("PROVIDER_ERROR", message, dispatched=True))
        events: list[Event] = [_started(body, streamed=False)]
        for index, item in enumerate(body["output"]):
            self._whole_item(index, object_of(item), events)
        self._finish(body, events)
        return events

    def _delta(self, kind: str, index: int, piece: str, into: list[Event]) -> None:
        match kind:
            case "response.output_text.delta":
                into.append(TextDelta(piece))
            case "response.refusal.delta":
                self._refused = True
                into.append(TextDelta(piece))
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                into.append(ReasoningDelta(piece))
            case _ if kind in _ARGUMENTS and index in self._tools:
                self._with_arguments.add(index)
                into.append(ToolCallDelta(self._tools[index], arguments_json=piece))

    def _whole_item(self, index: int, item: dict[str, Any], into: list[Event]) -> None:
        for part in objects_of(item.get("content")) if item.get("type") == "message" else ():
            self._refused = self._refused or part.get("type") == "refusal"
            if text := text_of(part.get("text")) or text_of(part.get("refusal")):
                into.append(TextDelta(text))
        if item.get("type") == "reasoning":
            texts = [*objects_of(item.get("summary")), *objects_of(item.get("content"))]
            if thought := "".join(text_of(part.get("text")) for part in texts):
                into.append(ReasoningDelta(thought))
        self._tool_begins(index, item, into)
        self._item_ends(index, item, into)

    def _tool_begins(self, index: int, item: dict[str, Any], into: list[Event]) -> None:
        if item.get("type") in _TOOL_CALLS and index not in self._tools:
            tool = self._tools[index] = len(self._tools)
            into.append(ToolCallDelta(tool, text_of(item.get("call_id")), text_of(item.get("name"))))

    def _item_ends(self, index: int, item: dict[str, Any], into: list[Event]) -> None:
        if item.get("type") == "reasoning":
            # The item goes back whole: its id and encrypted content belong together.
            into.append(ReasoningDelta("", orjson.dumps({"format": "openai_responses", "item": item})))
        elif item.get("type") in _TOOL_CALLS:
            self._tool_begins(index, item, into)
            if index not in self._with_arguments:
                self._with_arguments.add(index)
                arguments = text_of(item.get("arguments")) or text_of(item.get("input"))
                into.append(ToolCallDelta(self._tools[index], arguments_json=arguments))

    def _finish(self, response: dict[str, Any], into: list[Event]) -> None:
        """The last word: usage and the reason. Without a known status there is no reason, and the answer is cut."""
        self.done = True
        if (usage := responses_usage(object_of(response.get("usage")))).counted:
            into.append(UsageSoFar(usage, reported_tier(response)))
        match response.get("status"):
            case "completed" | "complete":
                finish = FinishReason.TOOL_CALLS if self._tools else FinishReason.STOP
                into.append(Finished(FinishReason.CONTENT_FILTER if self._refused else finish))
            case "incomplete":
                word = text_of(object_of(response.get("incomplete_details")).get("reason"))
                into.append(Finished(INCOMPLETE_REASONS.get(word, FinishReason.LENGTH)))
            case "failed" | "cancelled" as status:
                error = response.get("error") or f"the provider ended the answer as {status}; try again"
                raise CallFailed(classify(openai_fault(0, error, {})))


def responses_usage(usage: dict[str, Any]) -> TokenUsage:
    """Usage with our meaning, which is theirs: input includes cached tokens, output includes reasoning."""
    read, written = object_of(usage.get("input_tokens_details")), object_of(usage.get("output_tokens_details"))
    total, output = count_of(usage.get("input_tokens")), count_of(usage.get("output_tokens"))
    return TokenUsage(
        input_tokens=total,
        cache_read_tokens=min(total, count_of(read.get("cached_tokens"))),
        cache_write_5m_tokens=min(total, count_of(read.get("cache_write_tokens"))),
        input_audio_tokens=min(total, count_of(read.get("audio_tokens"))),
        output_tokens=output,
        reasoning_tokens=min(output, count_of(written.get("reasoning_tokens"))),
        output_audio_tokens=min(output, count_of(written.get("audio_tokens"))),
    )


def _started(response: dict[str, Any], *, streamed: bool) -> Started:
    return Started(text_of(response.get("model")), text_of(response.get("id")), streamed)
