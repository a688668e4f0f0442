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


def plain_reads(reads: Sequence[Read]) -> Plain:
    """Reads as plain values; `to_json` makes bytes of them."""
    return [[read.attempt_id, read.offset_us, [_named(event) for event in read.events]] for read in reads]


def reads_of(plain: Plain) -> list[Read]:
    """The reads of `plain_reads`. Raises ValueError, TypeError or KeyError for anything else."""
    return [
        Read(attempt_id, offset_us, [_made(_EVENTS, *named) for named in events])
        for attempt_id, offset_us, events in plain
    ]


def encode_reads(reads: Sequence[Read]) -> bytes:
    """Reads in bytes."""
    return to_json(plain_reads(reads))


def decode_reads(encoded: bytes) -> list[Read]:
    """The reads of `encode_reads`."""
    return reads_of(orjson.loads(encoded))


def encode_parts(parts: Sequence[Part]) -> bytes:
    """Parts of a message in bytes."""
    return to_json([_named(part) for part in parts])


def decode_parts(encoded: bytes) -> tuple[Part, ...]:
    """The parts of `encode_parts`."""
    return tuple(_made(_PARTS, *named) for named in orjson.loads(encoded))


def to_json(value: Any) -> bytes:
    """A plain value in bytes; bytes inside it become base64."""
    return orjson.dumps(value, default=_base64)


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
