"""Messages as plain Python values, for `--json`: short enum names, whole numbers as numbers, times in ISO 8601."""

from __future__ import annotations

import json
import sys
from datetime import UTC
from typing import Any

from google.protobuf import timestamp_pb2
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from llmlab.api.common.v1 import value_pb2
from llmlab.cli.studies import from_value


def to_plain(message: Message) -> Any:
    """Returns the message as dicts, lists and scalars. Fields that are not set are left out."""
    if isinstance(message, timestamp_pb2.Timestamp):
        return message.ToDatetime(tzinfo=UTC).isoformat()
    if isinstance(message, value_pb2.Value):
        return from_value(message)
    return {field.name: _field(field, value) for field, value in message.ListFields()}


def _field(field: FieldDescriptor, value: Any) -> Any:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        value_field = entry.fields_by_name["value"]
        return {str(key): _scalar(value_field, value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_scalar(field, item) for item in value]
    return _scalar(field, value)


def _scalar(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, Message):
        return to_plain(value)
    if field.enum_type is not None:
        return enum_name(field.enum_type, value)
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return value


def enum_name(enum: EnumDescriptor, number: int) -> str:
    """Returns the short name of an enum value: RUN_STATUS_COMPLETED of RunStatus is "COMPLETED"."""
    found = enum.values_by_number.get(number)
    if found is None:
        return str(number)
    zero: str = enum.values_by_number[0].name
    name: str = found.name
    return name.removeprefix(zero.removesuffix("UNSPECIFIED"))


def print_json(value: Any) -> None:
    """Prints one JSON document, or one line of JSON Lines, to standard output."""
    # Escaped where the output's encoding would lose characters.
    json.dump(value, sys.stdout, ensure_ascii=sys.stdout.encoding.lower() not in ("utf-8", "utf8"))
    sys.stdout.write("\n")
    sys.stdout.flush()
