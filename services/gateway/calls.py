"""What is asked of a model: a call with its messages, tools and parameters, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

Role = Literal["system", "user", "assistant", "tool"]
OptionValue: TypeAlias = "str | int | float | bool | list[OptionValue] | None"


@dataclass(frozen=True, slots=True)
class TextPart:
    """Text that somebody said."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A picture: either `url` (http, https or data) or `data` with its `media_type`."""

    url: str = ""
    data: bytes = b""
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class ToolCallPart:
    """The model asks for a tool. `arguments_json` is what the model wrote; it need not be valid JSON."""

    id: str
    name: str
    arguments_json: str


@dataclass(frozen=True, slots=True)
class ToolResultPart:
    """What a tool answered."""

    tool_call_id: str
    text: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class ReasoningPart:
    """What a model thought. `provider_data` is opaque and goes back to the provider that made it, unchanged."""

    text: str
    provider_data: bytes = b""


Part = TextPart | ImagePart | ToolCallPart | ToolResultPart | ReasoningPart


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The text parts, joined; what a provider without part lists is sent."""
        return "\n".join(part.text for part in self.parts if isinstance(part, TextPart))


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the model may ask for; `parameters_json_schema` is the text of a JSON schema, empty for none."""

    name: str
    description: str = ""
    parameters_json_schema: str = ""


@dataclass(frozen=True, slots=True)
class Parameters:
    """How to sample. None, an empty text and an empty tuple mean: not sent to the provider."""

    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    reasoning_effort: str = ""
    provider_options: Mapping[str, OptionValue] = field(default_factory=dict)

    @property
    def deterministic(self) -> bool:
        """Whether asking again is meant to give the same answer: at temperature 0, or with a seed."""
        return self.temperature == 0 or self.seed is not None


@dataclass(frozen=True, slots=True)
class Automation:
    """A goal to be reached on a web page. `mode` is how its run is followed; `steps_max` is what is held for it.

    `run_id` is of a run that was started before: it is followed to its end, in the mode "async", and not started again.
    """

    url: str
    goal: str
    steps_max: int
    mode: Literal["run", "async", "sse"] = "run"
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class Caching:
    """Whether a call may be answered with what was answered before.

    "use" takes a kept answer, or joins an equal call that is under way; "refresh" asks the provider and keeps the
    answer in place of the old one; "off" does neither. `max_age_s` is the oldest answer that will do; 0: any kept one.
    """

    mode: Literal["off", "use", "refresh"] = "off"
    max_age_s: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """One call to a model as the caller asked for it. `timeout_ms` counts from its arrival."""

    call_id: str
    model: str
    messages: tuple[Message, ...]
    timeout_ms: int
    parameters: Parameters = Parameters()
    tools: tuple[Tool, ...] = ()
    tool_choice: str = ""
    response_json_schema: str = ""
    dispatch_nonce: str = ""
    run_id: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    include_raw: bool = False
    ignore_circuit_breaker: bool = False
    retries_max: int = 0
    retry_ambiguous: bool = False
    caching: Caching = Caching()
    fallbacks: bool = False
    """Whether other models may answer, and second attempts be made, as the catalogue says."""

    hedge_after_ms: int | None = None
    """When a second attempt begins beside a silent one; 0: after the usual time; None: as the catalogue says."""

    dimensions: int = 0
    """Length of the vectors, for a call for embeddings; 0 leaves it to the model."""

    automation: Automation | None = None
    """What an automation is to do, for a call for one."""

    waits_for_cost: bool = True
    """Whether the answer waits until it is settled, so that it can say what it cost."""

    traceparent: str = ""
    """The trace context that its caller gave it; empty for that of its RPC."""

    @property
    def texts(self) -> tuple[str, ...]:
        """What a call for embeddings asks about: the text parts of its only message."""
        return tuple(part.text for part in self.messages[0].parts if isinstance(part, TextPart))


def for_another_kind(call: Call) -> Call:
    """The call for another kind of provider: without options and opaque data that only the first one knows."""
    messages = tuple(
        replace(
            message,
            parts=tuple(replace(part, provider_data=b"") if isinstance(part, ReasoningPart) else part
                        for part in message.parts),
        )
        for message in call.messages
    )  # fmt: skip
    return replace(call, messages=messages, parameters=replace(call.parameters, provider_options={}))


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom a call belongs to and is charged to; taken from the verified credential, never from the request."""

    project_id: str
    user_id: str = ""
    key_id: str = ""


@dataclass(frozen=True, slots=True)
class ProviderRequest:
    """What a provider is asked: the call, the provider's own name of the model, and what is sent along.

    `max_output_tokens` is always sent, because the hold reserves that much. `attempt_id` is the idempotency key.
    """

    attempt_id: str
    model: str
    call: Call
    max_output_tokens: int
    reasoning_style: str = ""
