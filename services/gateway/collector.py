"""The unary answer is the collected stream: events in, one answer out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from services.gateway.calls import Part, ReasoningPart, TextPart, ToolCallPart
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
from services.gateway.usage import TokenUsage

RAW_MAX_BYTES = 262_144
PROVIDER_MODEL_MAX = 256
"""Longest name that a settlement may carry; servers that serve a file answer with its path, of any length."""


@dataclass(slots=True)
class _Block:
    """One part of the answer under construction."""

    kind: str
    pieces: list[str] = field(default_factory=list)
    provider_data: bytes = b""
    id: str = ""
    name: str = ""


class Collector:
    """Joins events into parts, in the order in which the parts began. Appending is O(1); joining happens once."""

    __slots__ = (
        "_blocks",
        "_raw",
        "_raw_size",
        "_tools",
        "content_events",
        "finish_reason",
        "provider_model",
        "provider_request_id",
        "service_tier",
        "streamed",
        "usage",
    )

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._tools: dict[int, _Block] = {}
        self._raw: list[bytes] = []
        self._raw_size = 0
        self.finish_reason: FinishReason | None = None
        self.usage: TokenUsage | None = None
        self.provider_model = ""
        self.provider_request_id = ""
        self.service_tier = ""
        self.streamed = True
        self.content_events = 0

    def add(self, events: Iterable[Event]) -> None:
        """Take the next events in."""
        for event in events:
            kind = type(event)
            if kind is TextDelta:
                self._append("text", event.text)  # type: ignore[union-attr]
            elif isinstance(event, ReasoningDelta):
                self._add_reasoning(event)
            elif isinstance(event, ToolCallDelta):
                self._add_tool(event)
            elif isinstance(event, UsageSoFar):
                self.usage = event.usage
                self.service_tier = event.service_tier or self.service_tier
            elif isinstance(event, Finished):
                self.finish_reason = event.reason
            elif isinstance(event, Started):
                # Databases keep no U+0000, and the cost service refuses a settlement with it.
                name = event.provider_model.replace("\0", "")[:PROVIDER_MODEL_MAX]
                self.provider_model = name or self.provider_model
                self.provider_request_id = event.provider_request_id or self.provider_request_id
                self.streamed = event.streamed
            elif isinstance(event, RawBytes):
                self._add_raw(event.data)

    def parts(self) -> tuple[Part, ...]:
        """The answer so far."""
        parts: list[Part] = []
        for block in self._blocks:
            joined = "".join(block.pieces)
            if block.kind == "text":
                parts.append(TextPart(joined))
            elif block.kind == "reasoning":
                parts.append(ReasoningPart(joined, block.provider_data))
            else:
                parts.append(ToolCallPart(block.id, block.name, joined))
        return tuple(parts)

    def text(self) -> str:
        """The visible text so far, all of it."""
        return self._joined("text")

    def reasoning(self) -> str:
        """The readable reasoning so far, all of it."""
        return self._joined("reasoning")

    def output(self) -> str:
        """Everything visible: text and tool arguments."""
        return self._joined("text", "tool")

    def raw(self) -> bytes:
        """The raw bytes kept, at most RAW_MAX_BYTES."""
        return b"".join(self._raw)

    def _joined(self, *kinds: str) -> str:
        return "".join("".join(block.pieces) for block in self._blocks if block.kind in kinds)

    def _append(self, kind: str, text: str) -> _Block:
        self.content_events += 1
        last = self._blocks[-1] if self._blocks else None
        if last is None or last.kind != kind or last.provider_data:
            last = _Block(kind)
            self._blocks.append(last)
        last.pieces.append(text)
        return last

    def _add_reasoning(self, event: ReasoningDelta) -> None:
        if event.text or not event.provider_data:
            self._append("reasoning", event.text).provider_data = event.provider_data
            return
        # Data without text closes the open block; some providers send it only after the visible answer.
        for block in reversed(self._blocks):
            if block.kind == "reasoning" and not block.provider_data:
                block.provider_data = event.provider_data
                return
        self._append("reasoning", "").provider_data = event.provider_data

    def _add_tool(self, event: ToolCallDelta) -> None:
        self.content_events += 1
        block = self._tools.get(event.index)
        if block is None:
            block = self._tools[event.index] = _Block("tool")
            self._blocks.append(block)
        block.id = block.id or event.id
        block.name = block.name or event.name
        if event.arguments_json:
            block.pieces.append(event.arguments_json)

    def _add_raw(self, data: bytes) -> None:
        kept = data[: RAW_MAX_BYTES - self._raw_size]
        if kept:
            self._raw.append(kept)
            self._raw_size += len(kept)
