"""Lenient reading of a provider's JSON: a field of another type is read as absent, so that it loses no answer."""

from __future__ import annotations

from typing import Any

import orjson

COUNT_MAX = 2**53
"""The largest count that is believed; JSON numbers are exact up to here."""


def object_of(value: Any) -> dict[str, Any]:
    """The JSON object, or an empty one."""
    return value if isinstance(value, dict) else {}


def objects_of(values: Any) -> list[dict[str, Any]]:
    """The JSON objects of a list; other things in it are left out."""
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def value_of(data: bytes) -> Any:
    """The JSON value of some bytes, or their text where they are no JSON: what an error says, in whatever form."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return data.decode(errors="replace").strip()


def list_of(values: Any) -> list[Any]:
    """The list, or an empty one."""
    return values if isinstance(values, list) else []


def text_of(value: Any) -> str:
    """The text, or an empty one."""
    return value if isinstance(value, str) else ""


def index_of(value: Any) -> int:
    """The index, or 0."""
    return value if isinstance(value, int) else 0


def count_of(value: Any) -> int:
    """The count of tokens or of other things, within 0 .. COUNT_MAX; 0 for what is no number."""
    if type(value) is int and 0 <= value <= COUNT_MAX:
        return value
    return int(min(max(value, 0), COUNT_MAX)) if isinstance(value, (int, float)) else 0
