"""An OpenAI chat-completions answer, streamed or whole, as events. Unknown parts are skipped.

Reference: https://platform.openai.com/docs/api-reference/chat/streaming. What compatible servers add is read too:
`reasoning` (OpenRouter, Groq), `reasoning_content` (DeepSeek, vLLM), `reasoning_details` (OpenRouter), lists as content
(Mistral).
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
from services.gateway.failures import CallFailed, Failure, ProviderFault, classify
from services.gateway.providers.http_call import parse_json
from services.gateway.providers.json_fields import count_of, text_of
from services.gateway.providers.sse import SseEvent
from services.gateway.tiers import reported_tier
from services.gateway.usage import TokenUsage

FINISH_REASONS: Mapping[str, FinishReason] = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "end_turn": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    "safety": FinishReason.CONTENT_FILTER,
    "recitation": FinishReason.CONTENT_FILTER,
    "refusal": FinishReason.CONTENT_FILTER,
}
"""Their word (lower case) -> ours. An unknown word still says that the model stopped: STOP."""

_FAILED_FINISHES: Mapping[str, str] = {
    "error": "PROVIDER_ERROR",
    "insufficient_system_resource": "PROVIDER_OVERLOADED",
}
_REASONING_FIELDS = ("reasoning_content", "reasoning")


class OpenAiDecoder:
    """Reads one answer; one instance per call."""

    __slots__ = ("_details", "_field", "_refused", "_started", "done")

    def __init__(self) -> None:
        self.done = False
        self._started = False
        self._refused = False
        self._field = ""
        self._details: list[dict[str, Any]] = []

    def stream_event(self, event: SseEvent, into: list[Event]) -> None:
        """Append what one `data:` event means. Raises CallFailed where it reports an error."""
        if event.data.startswith(b"[DONE]"):
            self.done = True
            return
        chunk = parse_json(event.data, "an event of the stream")
        if not isinstance(chunk, dict):
            return
        raise_if_error(chunk)
        self._start(chunk, into, streamed=True)
        choice = _first_choice(chunk)
        if choice is not None:
            delta = choice.get("delta")
            if isinstance(delta, dict):
                self._content(delta, into)
            self._finish(choice, into)
        if isinstance(usage := _usage_field(chunk), dict):
            into.append(UsageSoFar(openai_usage(usage), reported_tier(chunk)))

    def whole_answer(self, body: Any) -> list[Event]:
        """The events of an answer that was not streamed."""
        events: list[Event] = []
        if isinstance(body, dict):
            raise_if_error(body)
        choice = _first_choice(body) if isinstance(body, dict) else None
        if choice is None:
            message = "the provider's answer is not a chat completion: it has no choices"
            raise CallFailed(Failure("PROVIDER_ERROR", message, dispatched=True))
        self._start(body, events, streamed=False)
        if isinstance(answer := choice.get("message"), dict):
            self._content(answer, events)
        if isinstance(usage := _usage_field(body), dict):
            events.append(UsageSoFar(openai_usage(usage), reported_tier(body)))
        self._finish(choice, events)
        self.done = True
        return events

    def _start(self, chunk: dict[str, Any], into: list[Event], *, streamed: bool) -> None:
        if not self._started:
            self._started = True
            into.append(Started(text_of(chunk.get("model")), text_of(chunk.get("id")), streamed))

    def _content(self, delta: dict[str, Any], into: list[Event]) -> None:
        self._reasoning(delta, into)
        content = delta.get("content")
        if content:
            if isinstance(content, str):
                into.append(TextDelta(content))
            elif isinstance(content, list):
                into.extend(_content_parts(content))
        if refusal := text_of(delta.get("refusal")):
            self._refused = True
            into.append(TextDelta(refusal))
        if tool_calls := delta.get("tool_calls"):
            for position, tool_call in enumerate(tool_calls):
                into.append(_tool_call(tool_call, position))

    def _reasoning(self, delta: dict[str, Any], into: list[Event]) -> None:
        for name in _REASONING_FIELDS:
            if text := text_of(delta.get(name)):
                self._field = name
                into.append(ReasoningDelta(text))
                break
        details = delta.get("reasoning_details")
        if details:
            self._details.extend(detail for detail in details if isinstance(detail, dict))

    def _finish(self, choice: dict[str, Any], into: list[Event]) -> None:
        word = choice.get("finish_reason")
        if not isinstance(word, str) or not word:
            return
        if reason := _FAILED_FINISHES.get(word.lower()):
            message = f"the provider ended the answer with {word!r}; try again"
            raise CallFailed(Failure(reason, message, dispatched=True))
        if self._field or self._details:
            into.append(ReasoningDelta("", self._provider_data()))
            self._field, self._details = "", []
        finish = FINISH_REASONS.get(word.lower(), FinishReason.STOP)
        into.append(Finished(FinishReason.CONTENT_FILTER if self._refused else finish))

    def _provider_data(self) -> bytes:
        """What `openai_request.reasoning_fields` needs to send the reasoning back."""
        data: dict[str, Any] = {"format": "openai"}
        if self._field:
            data["field"] = self._field
        if self._details:
            data["details"] = _joined_details(self._details)
        return orjson.dumps(data)


def openai_usage(usage: dict[str, Any]) -> TokenUsage:
    """Usage with our meaning.

    Their prompt includes cached tokens and their completion includes reasoning, but some servers (Gemini's compatible
    API, xAI) leave reasoning out of the completion: the total tells, because it has all of it.
    """
    prompt_details = usage.get("prompt_tokens_details") or {}
    completion_details = usage.get("completion_tokens_details") or {}
    prompt, completion = count_of(usage.get("prompt_tokens")), count_of(usage.get("completion_tokens"))
    reasoning = count_of(completion_details.get("reasoning_tokens"))
    left_out = max(0, count_of(usage.get("total_tokens")) - prompt - completion)
    cached = prompt_details.get("cached_tokens") or usage.get("cached_tokens") or usage.get("prompt_cache_hit_tokens")
    return TokenUsage(
        input_tokens=prompt,
        cache_read_tokens=min(prompt, count_of(cached)),
        cache_write_5m_tokens=min(prompt, count_of(prompt_details.get("cache_write_tokens"))),
        input_audio_tokens=min(prompt, count_of(prompt_details.get("audio_tokens"))),
        output_tokens=completion + left_out,
        reasoning_tokens=max(reasoning, left_out),
        output_audio_tokens=count_of(completion_details.get("audio_tokens")),
    )


def openai_fault(status: int, error: Any, headers: Mapping[str, str]) -> ProviderFault:
    """What the `error` member of a body says; any shape is accepted."""
    request_id = headers.get("x-request-id", "")
    retry_after = headers.get("retry-after", "")
    if not isinstance(error, dict):
        return ProviderFault(status, text_of(error), retry_after=retry_after, request_id=request_id)
    metadata = error.get("metadata")
    raw = text_of(metadata.get("raw")) if isinstance(metadata, dict) else ""
    message = text_of(error.get("message"))
    return ProviderFault(
        status=status,
        message=f"{message}: {raw}" if raw else message,
        code=str(error.get("code") or ""),
        type=text_of(error.get("type")),
        retry_after=retry_after,
        request_id=request_id,
    )


def raise_if_error(chunk: dict[str, Any]) -> None:
    """CallFailed where a 200 answer holds an error, as OpenRouter and vLLM send when a stream breaks behind them."""
    if error := chunk.get("error"):
        raise CallFailed(classify(openai_fault(0, error, {})))


def _first_choice(chunk: dict[str, Any]) -> dict[str, Any] | None:
    choices = chunk.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    return None


def _usage_field(chunk: dict[str, Any]) -> Any:
    # Groq puts the usage of a stream into `x_groq`.
    return chunk.get("usage") or (chunk.get("x_groq") or {}).get("usage")


def _content_parts(content: list[Any]) -> list[Event]:
    events: list[Event] = []
    for part in content:
        if not isinstance(part, dict):
            continue
        if part.get("type") == "text" and (text := text_of(part.get("text"))):
            events.append(TextDelta(text))
        elif part.get("type") == "thinking" and isinstance(part.get("thinking"), list):
            thought = "".join(text_of(piece.get("text")) for piece in part["thinking"] if isinstance(piece, dict))
            if thought:
                events.append(ReasoningDelta(thought))
    return events


def _tool_call(tool_call: Any, position: int) -> ToolCallDelta:
    if not isinstance(tool_call, dict):
        return ToolCallDelta(position)
    function = tool_call.get("function") or {}
    index = tool_call.get("index")
    return ToolCallDelta(
        index if isinstance(index, int) else position,
        text_of(tool_call.get("id")),
        text_of(function.get("name")),
        text_of(function.get("arguments")),
    )


def _joined_details(details: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Streamed pieces of one detail (same index and type) joined again: texts appended, other fields replaced."""
    joined: dict[tuple[Any, Any], dict[str, Any]] = {}
    for detail in details:
        kept = joined.setdefault((detail.get("index"), detail.get("type")), {})
        for name, value in detail.items():
            if name in ("text", "summary", "data") and isinstance(value, str) and isinstance(kept.get(name), str):
                kept[name] += value
            elif value not in (None, "") or name not in kept:
                kept[name] = value
    return list(joined.values())
