"""What happens while a model answers: the events that every provider yields, whatever its wire format is."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from services.gateway.usage import TokenUsage


class FinishReason(Enum):
    """Why the model stopped. An answer without one is truncated, which is an error, so there is no value for it."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    PAUSE = "pause"


@dataclass(frozen=True, slots=True)
class Started:
    """The provider accepted the request. Either field may be empty where the provider does not say."""

    provider_model: str = ""
    provider_request_id: str = ""
    streamed: bool = True


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Visible text, to be appended."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """Readable reasoning, to be appended. A delta with `provider_data` ends its block of reasoning."""

    text: str
    provider_data: bytes = b""


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of the tool call at `index` of the answer; `arguments_json` is to be appended."""

    index: int
    id: str = ""
    name: str = ""
    arguments_json: str = ""


@dataclass(frozen=True, slots=True)
class UsageSoFar:
    """Cumulative usage: it replaces what was said before. An empty `service_tier` says nothing about the tier."""

    usage: TokenUsage
    service_tier: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """The model stopped. Usage may still follow."""

    reason: FinishReason


@dataclass(frozen=True, slots=True)
class RawBytes:
    """Bytes of the provider's answer as received; yielded only where the call asks for them."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors of all texts of a call for embeddings, in the order of the texts."""

    vectors: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class AutomationUpdate:
    """Something that an automation tells on its way; `kind` is "progress" or "streaming_url"."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class AutomationResult:
    """An automation ran to its end, whether or not it reached its goal."""

    goal_reached: bool


Event = (
    Started
    | TextDelta
    | ReasoningDelta
    | ToolCallDelta
    | UsageSoFar
    | Finished
    | RawBytes
    | Vectors
    | AutomationUpdate
    | AutomationResult
)


class Read(NamedTuple):
    """What one socket read of an attempt brought, and when: microseconds after the attempt's request left."""

    attempt_id: str
    offset_us: int
    events: list[Event]


Emit = Callable[[Read], Coroutine[Any, Any, None] | None]
"""Takes a read as it arrives. Returns None when it has, or what has to be awaited: most never wait."""
