"""Values that several of the services have in common on the wire."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from llmlab.api.common.v1 import content_pb2, error_pb2, usage_pb2, value_pb2
from services.orchestrator.calls import Money, RenderedMessages, Usage
from services.orchestrator.experiment import Role
from services.orchestrator.values import Value, Values

ROLES: Final[dict[Role, content_pb2.Role.ValueType]] = {
    "system": content_pb2.ROLE_SYSTEM,
    "user": content_pb2.ROLE_USER,
    "assistant": content_pb2.ROLE_ASSISTANT,
}

_REASON_PREFIX: Final = "ERROR_REASON_"


def timestamp_of(time_us: int) -> Timestamp | None:
    """The time of microseconds UTC; None for 0, which means "not yet"."""
    if not time_us:
        return None
    seconds, micros = divmod(time_us, 1_000_000)
    return Timestamp(seconds=seconds, nanos=micros * 1_000)


def value_of(message: value_pb2.Value) -> Value:
    """A small typed value."""
    kind = message.WhichOneof("kind")
    if kind is None:
        return None
    if kind == "list_value":
        return tuple(value_of(each) for each in message.list_value.values)
    value: Value = getattr(message, kind)
    return value


def values_of(messages: Mapping[str, value_pb2.Value]) -> dict[str, Value]:
    """Named values."""
    return {name: value_of(message) for name, message in messages.items()}


def value_message(value: Value) -> value_pb2.Value:
    """A small typed value on the wire. bool comes before int, of which it is a kind."""
    if value is None:
        return value_pb2.Value()
    if isinstance(value, bool):
        return value_pb2.Value(bool_value=value)
    if isinstance(value, int):
        return value_pb2.Value(int_value=value)
    if isinstance(value, float):
        return value_pb2.Value(double_value=value)
    if isinstance(value, str):
        return value_pb2.Value(string_value=value)
    return value_pb2.Value(list_value=value_pb2.ValueList(values=[value_message(each) for each in value]))


def fill_values(target: Any, values: Values) -> None:
    """Put named values into a map field."""
    for name, value in values.items():
        target[name].CopyFrom(value_message(value))


def usage_of(message: usage_pb2.TokenUsage) -> Usage:
    """Token counts."""
    return Usage(
        message.input_tokens,
        message.cache_read_tokens,
        message.cache_write_5m_tokens,
        message.cache_write_1h_tokens,
        message.input_audio_tokens,
        message.output_tokens,
        message.reasoning_tokens,
        message.output_audio_tokens,
        message.steps,
        int(message.source == usage_pb2.USAGE_SOURCE_ESTIMATED),
    )


def usage_message(usage: Usage) -> usage_pb2.TokenUsage:
    """Token counts on the wire; no source where there are none."""
    source = usage_pb2.USAGE_SOURCE_UNSPECIFIED
    if any(usage):
        source = usage_pb2.USAGE_SOURCE_ESTIMATED if usage.estimated else usage_pb2.USAGE_SOURCE_MEASURED
    return usage_pb2.TokenUsage(source=source, **dict(zip(Usage._fields[:-1], usage[:-1], strict=True)))


def money_of(message: usage_pb2.Cost) -> Money:
    """What calls cost."""
    return Money(message.cost_nano_usd, message.unpriced_calls)


def money_message(money: Money) -> usage_pb2.Cost:
    """What calls cost, on the wire."""
    return usage_pb2.Cost(cost_nano_usd=money.nano_usd, unpriced_calls=money.unpriced_calls)


def reason_name(reason: error_pb2.ErrorReason.ValueType) -> str:
    """The name of a reason without its prefix; one that this release does not know is UNSPECIFIED."""
    try:
        return error_pb2.ErrorReason.Name(reason).removeprefix(_REASON_PREFIX)
    except ValueError:
        return "UNSPECIFIED"


def reason_number(name: str) -> error_pb2.ErrorReason.ValueType:
    """The number of a reason; UNSPECIFIED for none."""
    return error_pb2.ErrorReason.Value(f"{_REASON_PREFIX}{name or 'UNSPECIFIED'}")


def answer_body(parts: Iterable[content_pb2.ContentPart]) -> bytes:
    """An answer's parts as the ledger stores them."""
    return content_pb2.Message(role=content_pb2.ROLE_ASSISTANT, parts=parts).SerializeToString()


def answer_parts(body: bytes) -> list[content_pb2.ContentPart]:
    """The parts of a stored answer."""
    return list(content_pb2.Message.FromString(body).parts)


def answer_text(body: bytes) -> str:
    """The visible text of a stored answer."""
    return text_of(content_pb2.Message.FromString(body).parts)


def text_of(parts: Iterable[content_pb2.ContentPart]) -> str:
    """The visible text of an answer's parts."""
    return "".join([part.text for part in parts])


def request_messages(messages: RenderedMessages) -> list[content_pb2.Message]:
    """Rendered messages on the wire."""
    return [
        content_pb2.Message(role=ROLES[role], parts=[content_pb2.ContentPart(text=text)]) for role, text in messages
    ]


def payload_of(request: Any) -> bytes:
    """A request without its request id, in a form that is equal for equal requests."""
    copy: Message = type(request)()
    copy.CopyFrom(request)
    copy.ClearField("request_id")
    return copy.SerializeToString(deterministic=True)
