"""Says a field's validation rules in words, for the API reference."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message


def rules_text(rules: Message) -> str:
    """The text of a `buf.validate.FieldRules`: "required; min_len 1; max_len 64"."""
    return "; ".join(_rule_texts(rules))


def _rule_texts(rules: Message) -> list[str]:
    texts: list[str] = []
    for field, value in rules.ListFields():
        if field.name in {"cel", "cel_expression"}:
            texts += [_cel_text(rule) for rule in value]
        elif field.name in {"keys", "values", "items"}:
            texts.append(f"each of {field.name}: {', '.join(_rule_texts(value))}")
        elif field.message_type is not None and field.containing_oneof is not None and field.name != "const":
            # The oneof `type`: string, int64, repeated ...; the field's own type says it already.
            texts += _rule_texts(value)
        else:
            texts.append(_plain_text(field, value))
    return texts


def _cel_text(rule: Any) -> str:
    return rule if isinstance(rule, str) else rule.message or f"`{rule.expression}`"


def _plain_text(field: FieldDescriptor, value: Any) -> str:
    if field.type == FieldDescriptor.TYPE_BOOL:
        return field.name if value else f"not {field.name}"
    if field.is_repeated:
        return f"{field.name} {', '.join(_value_text(field, item) for item in value)}"
    return f"{field.name} {_value_text(field, value)}"


def _value_text(field: FieldDescriptor, value: Any) -> str:
    if field.enum_type is not None:
        return f"`{field.enum_type.values_by_number[value].name}`"
    if isinstance(value, str):
        return f"`{value}`" if value else '`""`'
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(str(value).split())
