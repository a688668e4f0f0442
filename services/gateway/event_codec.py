"""Events and parts in bytes, for whatever is kept of a call."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from services.gateway.calls import (
    ImagePart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from services.gateway.chunks import (
    Event,
    Finished,
    FinishReason,
    RawBytes,
    Read,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageSoFar,
)
from services.gateway.usage import TokenUsage

_BYTES_FIELDS = ("provider_data", "data")
_EVENTS: Mapping[str, Any] = {
    **{kind.__name__: kind for kind in (Started, TextDelta, ReasoningDelta, ToolCallDelta, RawBytes)},
    "UsageSoFar": lambda usage, **more: UsageSoFar(TokenUsage(**usage), **more),
    "Finished": lambda reason: Finished(FinishReason(reason)),
}
_PARTS: Mapping[str, Any] = {
    kind.__name__: kind for kind in (TextPart, ImagePart, ToolCallPart, ToolResultPart, ReasoningPart)
}

Plain = list[Any]
"""What JSON can say."""


def plain_answer(reads: Sequence[Read]) -> Plain:
    """The reads of one attempt as plain values; `to_json` makes bytes of them.

    A read that brought one piece of text, as most do, is that text: an answer of many tokens is kept in no time.
    """
    return [
        [offset_us, events[0].text if len(events) == 1 and type(events[0]) is TextDelta else _all_named(events)]
        for _, offset_us, events in reads
    ]


def answer_of(plain: Plain, attempt_id: str) -> list[Read]:
    """The reads of `plain_answer`. Raises ValueError, TypeError or KeyError for anything else."""
    return [
        Read(attempt_id, offset_us, [TextDelta(said)] if isinstance(said, str) else _all_made(said))
        for offset_us, said in plain
    ]


def encode_reads(reads: Sequence[Read]) -> bytes:
    """Reads in bytes."""
    return to_json([[read.attempt_id, read.offset_us, _all_named(read.events)] for read in reads])


def decode_reads(encoded: bytes) -> list[Read]:
    """The reads of `encode_reads`. Raises ValueError, TypeError or KeyError for anything else."""
    return [Read(attempt_id, offset_us, _all_made(events)) for attempt_id, offset_us, events in orjson.loads(encoded)]


def encode_parts(parts: Sequence[Part]) -> bytes:
    """Parts of a message in bytes."""
    return to_json([_named(part) for part in parts])


def decode_parts(encoded: bytes) -> tuple[Part, ...]:
    """The parts of `encode_parts`."""
    return tuple(_made(_PARTS, *named) for named in orjson.loads(encoded))


def to_json(value: Any) -> bytes:
    """A plain value in bytes; bytes inside it become base64."""
    return orjson.dumps(value, default=_base64)


def _all_named(events: Sequence[Event]) -> Plain:
    return [_named(event) for event in events]


def _all_made(plain: Plain) -> list[Event]:
    return [_made(_EVENTS, *named) for named in plain]


def _named(value: Event | Part) -> Plain:
    return [type(value).__name__, value]


def _made(kinds: Mapping[str, Any], name: str, fields: dict[str, Any]) -> Any:
    for field in _BYTES_FIELDS:
        if field in fields:
            fields[field] = base64.b64decode(fields[field])
    return kinds[name](**fields)


def _base64(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} is not part of a call")
