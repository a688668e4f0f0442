"""A Gemini answer, streamed or whole, as events. A stream is a sequence of partial answers of one and the same shape.

Signatures of thoughts are no parts of their own: they hang on a tool call, on text or on nothing. So that they can go
back to where they were (a tool call without its signature is refused), each becomes reasoning without text beside it:

    {"format": "gemini", "signature": ...}        on the thought whose text it follows
    {"format": "gemini", "call_signature": ...}   on the tool call that comes next
    {"format": "gemini", "part": {...}}           a part that goes back whole: an empty signed text, a tool of Google's
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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
from services.gateway.providers.gemini_arguments import StreamedArguments
from services.gateway.providers.gemini_errors import error_of, gemini_fault
from services.gateway.providers.http_call import parse_json
from services.gateway.providers.json_fields import count_of, object_of, objects_of, text_of, value_of
from services.gateway.providers.sse import SseEvent
from services.gateway.tiers import reported_tier
from services.gateway.usage import TokenUsage

FINISH_REASONS: Mapping[str, FinishReason] = {
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "SAFETY": FinishReason.CONTENT_FILTER,
    "RECITATION": FinishReason.CONTENT_FILTER,
    "LANGUAGE": FinishReason.CONTENT_FILTER,
    "BLOCKLIST": FinishReason.CONTENT_FILTER,
    "PROHIBITED_CONTENT": FinishReason.CONTENT_FILTER,
    "SPII": FinishReason.CONTENT_FILTER,
    "MODEL_ARMOR": FinishReason.CONTENT_FILTER,
    "IMAGE_SAFETY": FinishReason.CONTENT_FILTER,
    "IMAGE_PROHIBITED_CONTENT": FinishReason.CONTENT_FILTER,
    "IMAGE_RECITATION": FinishReason.CONTENT_FILTER,
}
"""Their word -> ours. An unknown one still says that the model stopped: STOP."""

_FAILED_FINISHES = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "NO_IMAGE",
        "IMAGE_OTHER",
        "OTHER",
    }
)
"""Words that end an answer which is none: what the model wrote could not be read, or nobody says why it stopped."""

_NOT_FINISHED = frozenset({"", "FINISH_REASON_UNSPECIFIED"})
# What Vertex AI says instead of a tier.
_TIER_OF_TRAFFIC = {"ON_DEMAND_FLEX": "flex", "ON_DEMAND_PRIORITY": "priority"}
# Parts of tools that Google runs itself; on the next turn they have to be there again.
_PASSED_ON = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse")


class GeminiDecoder:
    """Reads one answer; one instance per call."""

    __slots__ = ("_id", "_open", "_started", "_thinking", "_tools", "_usage", "done")

    def __init__(self) -> None:
        # No event says that nothing more comes: a stream ends where its body does.
        self.done = False
        self._started = False
        self._id = ""
        self._usage: dict[str, Any] = {}
        self._tools = 0
        self._thinking = False
        # The arguments of a call that is not whole yet.
        self._open: StreamedArguments | None = None

    def stream_event(self, event: SseEvent, into: list[Event]) -> None:
        """Append what one event means. Raises CallFailed where it reports an error."""
        if event.event == b"error":
            said = value_of(event.data)
            raise CallFailed(classify(gemini_fault(0, error_of(said) or said, {})))
        body = parse_json(event.data, "an event of the stream")
        if isinstance(body, dict):
            self._take(body, into, streamed=True)

    def whole_answer(self, body: Any) -> list[Event]:
        """The events of an answer that was not streamed, or of one streamed as a list."""
        bodies = body if isinstance(body, list) and body else [body]
        events: list[Event] = []
        for one in bodies:
            if not isinstance(one, dict) or not one.keys() & {"candidates", "promptFeedback", "usageMetadata", "error"}:
                message = "the provider's answer is not one of Gemini's: it has no candidates"
                raise CallFailed(Failure("PROVIDER_ERROR", message, dispatched=True))
            self._take(one, events, streamed=False)
        self.done = True
        return events

    def _take(self, body: dict[str, Any], into: list[Event], *, streamed: bool) -> None:
        if error := error_of(body):
            raise CallFailed(classify(gemini_fault(0, error, {})))
        if not self._started:
            self._started = True
            self._id = text_of(body.get("responseId"))
            into.append(Started(text_of(body.get("modelVersion")), self._id, streamed))
        candidate = _first(body.get("candidates"))
        for part in objects_of(object_of(candidate.get("content")).get("parts")):
            self._part(part, into)
        self._take_usage(object_of(body.get("usageMetadata")), into)
        self._finish(candidate, into)
        if not candidate and text_of(object_of(body.get("promptFeedback")).get("blockReason")):
            into.append(Finished(FinishReason.CONTENT_FILTER))

    def _part(self, part: dict[str, Any], into: list[Event]) -> None:
        signature, text = text_of(part.get("thoughtSignature")), text_of(part.get("text"))
        if part.get("thought") is True:
            if text:
                into.append(ReasoningDelta(text))
                self._thinking = True
            if signature:
                self._end_thought(into, signature)
            return
        self._end_thought(into)
        call = object_of(part.get("functionCall"))
        if text_of(call.get("name")):
            if signature:
                into.append(_kept(call_signature=signature))
            self._tool_call(call, into)
        elif "functionCall" in part:
            self._more_of_call(call, into)
        elif any(name in part for name in _PASSED_ON):
            into.append(_kept(part=part))
        else:
            if text:
                into.append(TextDelta(text))
            if signature:
                into.append(_kept(part={"text": "", "thoughtSignature": signature}))

    def _end_thought(self, into: list[Event], signature: str = "") -> None:
        """Close the thought, so that a later signature is not taken for its own."""
        if signature:
            into.append(_kept(signature=signature))
        elif self._thinking:
            into.append(_kept())
        self._thinking = False

    def _tool_call(self, call: dict[str, Any], into: list[Event]) -> None:
        """A call begins. Most have no id; one of ours then lets a result name the call that it belongs to."""
        self._end_call(into)
        index = self._tools
        self._tools += 1
        call_id = text_of(call.get("id")) or f"{self._id or 'call'}-{index}"
        begun = ToolCallDelta(index, call_id, text_of(call.get("name")))
        arguments = StreamedArguments(object_of(call.get("args")))
        arguments.take_all(objects_of(call.get("partialArgs")))
        if call.get("willContinue") is True:
            into.append(begun)
            self._open = arguments
        else:
            into.append(replace(begun, arguments_json=arguments.json))

    def _more_of_call(self, call: dict[str, Any], into: list[Event]) -> None:
        """Most calls come whole; Vertex AI sends the arguments in pieces where it is asked to."""
        if self._open is None:
            return
        self._open.take_all(objects_of(call.get("partialArgs")))
        if call.get("willContinue") is not True:
            self._end_call(into)

    def _end_call(self, into: list[Event]) -> None:
        if self._open is not None:
            into.append(ToolCallDelta(self._tools - 1, arguments_json=self._open.json))
            self._open = None

    def _take_usage(self, usage: dict[str, Any], into: list[Event]) -> None:
        """Their figures are cumulative: later ones replace earlier ones. Some answers have none, only who pays."""
        if "promptTokenCount" in usage or "totalTokenCount" in usage:
            self._usage.update(usage)
            if (read := gemini_usage(self._usage)).counted:
                into.append(UsageSoFar(read, _tier(self._usage)))

    def _finish(self, candidate: dict[str, Any], into: list[Event]) -> None:
        word = text_of(candidate.get("finishReason"))
        if word in _NOT_FINISHED:
            return
        if word in _FAILED_FINISHES:
            said = text_of(candidate.get("finishMessage"))
            message = f"the provider ended the answer with {word}{': ' if said else ''}{said}; try again"
            raise CallFailed(Failure("PROVIDER_ERROR", message, dispatched=True))
        self._end_thought(into)
        self._end_call(into)
        finish = FINISH_REASONS.get(word, FinishReason.STOP)
        into.append(Finished(FinishReason.TOOL_CALLS if self._tools and finish is FinishReason.STOP else finish))


def gemini_usage(usage: dict[str, Any]) -> TokenUsage:
    """Usage with our meaning.

    Their prompt includes cached tokens; what their own tools put into the prompt is counted beside it, and thoughts
    are counted beside the candidates.
    """
    prompt = count_of(usage.get("promptTokenCount"))
    from_tools = count_of(usage.get("toolUsePromptTokenCount"))
    thoughts = count_of(usage.get("thoughtsTokenCount"))
    audio = _audio(usage.get("promptTokensDetails")) + _audio(usage.get("toolUsePromptTokensDetails"))
    output = count_of(usage.get("candidatesTokenCount")) + thoughts
    return TokenUsage(
        input_tokens=prompt + from_tools,
        cache_read_tokens=min(prompt, count_of(usage.get("cachedContentTokenCount"))),
        input_audio_tokens=min(prompt + from_tools, audio),
        output_tokens=output,
        reasoning_tokens=thoughts,
        output_audio_tokens=min(output - thoughts, _audio(usage.get("candidatesTokensDetails"))),
    )


def _tier(usage: dict[str, Any]) -> str:
    return _TIER_OF_TRAFFIC.get(text_of(usage.get("trafficType")), "") or reported_tier(usage)


def _audio(details: Any) -> int:
    return sum(
        count_of(detail.get("tokenCount")) for detail in objects_of(details) if detail.get("modality") == "AUDIO"
    )


def _kept(**data: Any) -> ReasoningDelta:
    return ReasoningDelta("", orjson.dumps({"format": "gemini", **data}))


def _first(values: Any) -> dict[str, Any]:
    return next(iter(objects_of(values)), {})
