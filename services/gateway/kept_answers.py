"""Answers as they are kept: the stream as it came, from which the whole answer is made again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from services.gateway.attempts import Cause, Completion, Cost, Reuse
from services.gateway.calls import Call, Message, Part, TextPart, ToolCallPart, ToolResultPart
from services.gateway.chunks import Finished, FinishReason, Read
from services.gateway.collector import Collector
from services.gateway.event_codec import answer_of, plain_answer, to_json
from services.gateway.timing import Timing
from services.gateway.usage import TokenUsage

_VERSION = 2
_WHOLE = frozenset({FinishReason.STOP, FinishReason.TOOL_CALLS})


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What one attempt answered, and what it took; `answered_at_us` is UTC microseconds. All `reads` are its own."""

    attempt_id: str
    answered_at_us: int
    usage: TokenUsage
    timing: Timing
    reads: Sequence[Read]

    def completion(self, call: Call) -> Completion:
        """The answer as one to this call."""
        collector = Collector()
        for read in self.reads:
            collector.add(read.events)
        if collector.finish_reason is None:
            raise AssertionError("only finished answers are kept")
        return Completion(
            call_id=call.call_id,
            model=call.model,
            provider_model=collector.provider_model,
            parts=collector.parts(),
            finish_reason=collector.finish_reason,
            usage=self.usage,
            timing=self.timing,
            cost=Cost(0),
            attempts=(),
            raw=collector.raw(),
            reuse=Reuse("cache", self.attempt_id, self.answered_at_us),
        )


def may_be_kept(call: Call, answer: Completion) -> bool:
    """Whether an answer is whole, is the model's own, and says something that is true when it is asked for again."""
    if any(attempt.cause is Cause.FALLBACK for attempt in answer.attempts):
        return False
    if answer.finish_reason not in _WHOLE or _has_tool_error(call.messages):
        return False
    return all(_is_json(text) for text in _promised_json(call, answer.parts))


def encode_kept(answer: KeptAnswer) -> bytes:
    """The answer in bytes."""
    plain = plain_answer(answer.reads)
    return to_json([_VERSION, answer.attempt_id, answer.answered_at_us, answer.usage, answer.timing, plain])


def decode_kept(value: bytes) -> KeptAnswer | None:
    """The answer of `encode_kept`; None where another version wrote it, or something else did."""
    try:
        version, attempt_id, answered_at_us, usage, timing, plain = orjson.loads(value)
        if version != _VERSION:
            return None
        reads = answer_of(plain, attempt_id)
        kept = KeptAnswer(attempt_id, answered_at_us, TokenUsage(**usage), Timing(**timing), reads)
    except (ValueError, TypeError, KeyError):
        return None
    finished = any(isinstance(event, Finished) for read in kept.reads for event in read.events)
    return kept if finished else None


def _has_tool_error(messages: Sequence[Message]) -> bool:
    return any(isinstance(part, ToolResultPart) and part.is_error for message in messages for part in message.parts)


def _promised_json(call: Call, parts: Sequence[Part]) -> list[str]:
    promised = [part.arguments_json for part in parts if isinstance(part, ToolCallPart) and part.arguments_json]
    if call.response_json_schema and not promised:
        promised.append("".join(part.text for part in parts if isinstance(part, TextPart)))
    return promised


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
