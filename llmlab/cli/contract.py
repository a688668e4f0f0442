"""Limits that the contracts declare, so that an option is checked, and its help tells them, without a second copy."""

from __future__ import annotations

from typing import Any, NamedTuple

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor

from llmlab.api import validate_rules

_RULES: Any = descriptor_pool.Default().FindExtensionByName(f"{validate_rules.DESCRIPTOR.package}.field")


class Bounds(NamedTuple):
    """The least and the greatest value of a whole number."""

    low: int
    high: int


def bounds_of(message: Descriptor, field: str) -> Bounds:
    """Returns the bounds of an integer field, or of the items of a repeated one, in the field's own unit."""
    declared = message.fields_by_name[field]
    rules = _rules(message, field)
    if declared.is_repeated:
        rules = rules.repeated.items
    numbers = getattr(rules, rules.WhichOneof("type"))
    return Bounds(numbers.gte, numbers.lte)


def items_max(message: Descriptor, field: str) -> int:
    """Returns how many items a repeated field takes."""
    most: int = _rules(message, field).repeated.max_items
    return most


def _rules(message: Descriptor, field: str) -> Any:
    return message.fields_by_name[field].GetOptions().Extensions[_RULES]
