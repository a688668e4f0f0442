"""The port between the server and a wire format, and what all formats share in reading a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import orjson

from services.gateway.calls import OptionValue, ProviderRequest
from services.gateway.chunks import Event
from services.gateway.collector import Collector
from services.gateway.failures import ProviderFault, refused
from services.gateway.providers.mock_script import MOCK_MODELS, MockScript

DEFAULT_MAX_OUTPUT_TOKENS = 1_024
_SCRIPT_NAMES = frozenset(field.name for field in fields(MockScript))


@dataclass(frozen=True, slots=True)
class WireRequest:
    """A request as a provider of the domain takes it, and how its answer is wanted.

    `shown_model` is the name that was asked for, which the answer repeats.
    """

    request: ProviderRequest
    shown_model: str
    stream: bool
    include_usage: bool = True


class StreamEncoder(Protocol):
    """Writes one streamed answer."""

    def encode(self, events: Iterable[Event]) -> bytes:
        """The bytes of some events."""
        ...

    def end(self) -> bytes:
        """What follows a whole answer."""
        ...


class Wire(Protocol):
    """A provider's wire format. Placeholders of `path` become fields of the body before it is decoded."""

    path: str

    def decode(self, body: Any, attempt_id: str) -> WireRequest:
        """The request. Raises CallFailed for one that the format does not allow."""
        ...

    def stream_encoder(self, wanted: WireRequest) -> StreamEncoder:
        """A writer for one streamed answer."""
        ...

    def whole(self, answer: Collector, wanted: WireRequest) -> Any:
        """The JSON of an answer that is not streamed."""
        ...

    def error(self, fault: ProviderFault) -> Any:
        """The JSON of an error."""
        ...


def script_options(body: Mapping[str, Any]) -> dict[str, OptionValue]:
    """The mock's own options among a request's top-level fields; what real providers ignore is ignored."""
    return {name: value for name, value in body.items() if name in _SCRIPT_NAMES}


def model_names(body: Mapping[str, Any], any_model: str) -> tuple[str, str]:
    """The mock's model and the name that was asked for: ("small", "small"), also where that is "mock/small".

    `any_model` answers under every name that is not the mock's; without it such a name is passed on, to be refused.
    """
    shown = body.get("model")
    if not isinstance(shown, str) or not shown:
        raise refused("INVALID_REQUEST", "you must provide a model parameter")
    own = shown.removeprefix("mock/")
    return (own if own in MOCK_MODELS or not any_model else any_model), shown


def sse(data: Any, event: str = "") -> bytes:
    """One server-sent event."""
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + orjson.dumps(data) + b"\n\n"
