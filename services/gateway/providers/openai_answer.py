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
from services.gateway.failures import CallFailed, Failure, ProviderFault, classify, retry_after_of
from services.gateway.providers.http_call import parse_json
from services.gateway.providers.json_fields import count_of, object_of, objects_of, text_of, value_of
from services.gateway.providers.same_but_text import SameButText
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

    __slots__ = (
        "_alike",
        "_called",
        "_counted",
        "_details",
        "_field",
        "_finished",
        "_names_finish",
        "_refused",
        "_started",
        "done",
    )

    def __init__(self, *, names_finish: bool = True) -> None:
        """`names_finish` False: the server's "[DONE]" after its usage says that the answer is whole."""
        self.done = False
        self._names_finish = names_finish
        self._alike = SameButText("content")
        self._started = False
        self._called = False
        self._counted = False
        self._finished = False
        self._refused = False
        self._field = ""
        self._details: list[dict[str, Any]] = []

    def stream_event(self, event: SseEvent, into: list[Event]) -> None:
        """Append what one `data:` event means. Raises CallFailed where it reports an error."""
        if not event.event and (text := self._alike.text(event.data)):
            into.append(TextDelta(text))
            return
        if event.event == b"error":
            raise error_event(event)
        if event.data.startswith(b"[DONE]"):
            self.done = True
            if self._counted and not (self._names_finish or self._finished):
                self._ends("", into)
            return
        chunk = parse_json(event.data, "an event of the stream")
        if not isinstance(chunk, dict):
            return
        if self._started and (text := _nothing_but_text(chunk)):
            self._alike.learn(event.data, text)
            into.append(TextDelta(text))
            return
        raise_if_error(chunk)
        self._start(chunk, into, streamed=True)
        choice = _first_choice(chunk)
        if choice is not None:
            delta = choice.get("delta")
            if isinstance(delta, dict):
                self._content(delta, into)
            self._finish(choice, into)
        if (said := _usage_field(chunk)) and (usage := openai_usage(said)).counted:
            self._counted = True
            into.append(UsageSoFar(usage, reported_tier(chunk)))

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
        if (usage := openai_usage(_usage_field(body))).counted:
            events.append(UsageSoFar(usage, reported_tier(body)))
        self._finish(choice, events)
        if choice.get("finish_reason") == "":
            # Snowflake leaves it blank. Nothing of an answer that was not streamed can be missing.
            self._ends("", events)
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
            for position, tool_call in enumerate(objects_of(tool_calls)):
                self._called = True
                into.append(_tool_call(tool_call, position))
        elif any((function_call := object_of(delta.get("function_call"))).values()):
            # What came before tool calls; some servers still send it, and Snowflake an empty one with every answer.
            self._called = True
            into.append(_tool_call({"function": function_call}, 0))

    def _reasoning(self, delta: dict[str, Any], into: list[Event]) -> None:
        for name in _REASONING_FIELDS:
            if text := text_of(delta.get(name)):
                self._field = name
                into.append(ReasoningDelta(text))
                break
        if details := objects_of(delta.get("reasoning_details")):
            self._details.extend(details)
            if not self._field and (thought := "".join(map(_detail_text, details))):
                into.append(ReasoningDelta(thought))

    def _finish(self, choice: dict[str, Any], into: list[Event]) -> None:
        word = choice.get("finish_reason")
        if not isinstance(word, str) or not word:
            return
        if reason := _FAILED_FINISHES.get(word.lower()):
            message = f"the provider ended the answer with {word!r}; try again"
            raise CallFailed(Failure(reason, message, dispatched=True))
        self._ends(word.lower(), into)

    def _ends(self, word: str, into: list[Event]) -> None:
        """The answer is whole; an empty word where the server names no reason."""
        self._finished = True
        if self._field or self._details:
            into.append(ReasoningDelta("", self._provider_data()))
            self._field, self._details = "", []
        default = FinishReason.TOOL_CALLS if self._called and not word else FinishReason.STOP
        finish = FINISH_REASONS.get(word, default)
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
    prompt_details = object_of(usage.get("prompt_tokens_details"))
    completion_details = object_of(usage.get("completion_tokens_details"))
    prompt, completion = count_of(usage.get("prompt_tokens")), count_of(usage.get("completion_tokens"))
    reasoning = count_of(completion_details.get("reasoning_tokens"))
    left_out = max(0, count_of(usage.get("total_tokens")) - prompt - completion)
    cached = prompt_details.get("cached_tokens") or usage.get("cached_tokens") or usage.get("prompt_cache_hit_tokens")
    output = completion + left_out
    return TokenUsage(
        input_tokens=prompt,
        cache_read_tokens=min(prompt, count_of(cached)),
        cache_write_5m_tokens=min(prompt, count_of(prompt_details.get("cache_write_tokens"))),
        input_audio_tokens=min(prompt, count_of(prompt_details.get("audio_tokens"))),
        output_tokens=output,
        reasoning_tokens=min(output, max(reasoning, left_out)),
        output_audio_tokens=min(output, count_of(completion_details.get("audio_tokens"))),
    )


def openai_fault(status: int, said: Any, headers: Mapping[str, str]) -> ProviderFault:
    """What the body of an error says; any shape is accepted.

    OpenAI and most others have an object in `error`. There are also a text in it (Ollama, Hugging Face), the same
    fields without it (Mistral, Cerebras) and a `detail` that is a text or a list (servers written with FastAPI).
    """
    error = object_of(said).get("error") or said
    fields = object_of(error)
    around = object_of(said)
    message = text_of(fields.get("message")) or text_of(error) or _detail(fields.get("detail"))
    raw = text_of(object_of(fields.get("metadata")).get("raw"))
    return ProviderFault(
        status=status,
        message=f"{message}: {raw}" if raw else message,
        code=_word(fields.get("code")) or _word(around.get("code")),
        type=text_of(fields.get("type")) or text_of(around.get("error_type")),
        retry_after=retry_after_of(headers),
        request_id=headers.get("x-request-id", ""),
    )


def error_event(event: SseEvent) -> CallFailed:
    """What an event means that is named `error`, whatever is in it."""
    return CallFailed(classify(openai_fault(0, value_of(event.data), {})))


def raise_if_error(chunk: dict[str, Any]) -> None:
    """CallFailed where a 200 answer holds an error, as OpenRouter and vLLM send when a stream breaks behind them."""
    if chunk.get("error") or chunk.get("object") == "error":
        raise CallFailed(classify(openai_fault(0, chunk, {})))


def _detail(detail: Any) -> str:
    said = [text_of(entry.get("msg")) for entry in objects_of(detail)]
    return text_of(detail) or "; ".join(text for text in said if text)


def _word(code: Any) -> str:
    return str(code) if isinstance(code, str | int) else ""


def _nothing_but_text(chunk: dict[str, Any]) -> str:
    """The text of a chunk that says nothing else, as most do; empty for all others."""
    choice = _first_choice(chunk)
    if choice is None or choice.get("finish_reason") or chunk.get("usage") or "error" in chunk or "x_groq" in chunk:
        return ""
    delta = choice.get("delta")
    return text_of(delta.get("content")) if isinstance(delta, dict) and len(delta) == 1 else ""


def _first_choice(chunk: dict[str, Any]) -> dict[str, Any] | None:
    choices = chunk.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    return None


def _usage_field(chunk: dict[str, Any]) -> dict[str, Any]:
    # Groq puts the usage of a stream into `x_groq`.
    return object_of(chunk.get("usage") or object_of(chunk.get("x_groq")).get("usage"))


def _content_parts(content: list[Any]) -> list[Event]:
    events: list[Event] = []
    for part in objects_of(content):
        if part.get("type") == "text" and (text := text_of(part.get("text"))):
            events.append(TextDelta(text))
        elif part.get("type") == "thinking":
            thought = "".join(text_of(piece.get("text")) for piece in objects_of(part.get("thinking")))
            if thought:
                events.append(ReasoningDelta(thought))
    return events


def _tool_call(tool_call: dict[str, Any], position: int) -> ToolCallDelta:
    # A custom tool takes any text where a function takes JSON.
    function = object_of(tool_call.get("function")) or object_of(tool_call.get("custom"))
    index = tool_call.get("index")
    return ToolCallDelta(
        index if isinstance(index, int) else position,
        text_of(tool_call.get("id")),
        text_of(function.get("name")),
        text_of(function.get("arguments")) or text_of(function.get("input")),
    )


def _detail_text(detail: dict[str, Any]) -> str:
    """What a detail of reasoning says that can be read; nothing of an encrypted one."""
    return text_of(detail.get("text")) or text_of(detail.get("summary"))


def _joined_details(details: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Streamed pieces of one detail (same index and type) joined again: texts appended, other fields replaced."""
    joined: dict[tuple[str, str], dict[str, Any]] = {}
    for detail in details:
        kept = joined.setdefault((str(detail.get("index")), str(detail.get("type"))), {})
        for name, value in detail.items():
            if name in ("text", "summary", "data") and isinstance(value, str) and isinstance(kept.get(name), str):
                kept[name] += value
            elif value not in (None, "") or name not in kept:
                kept[name] = value
    return list(joined.values())
