"""JSON in answers, read with bounds: models and attackers write it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

JSON_CHARACTERS_MAX = 200_000
JSON_DEPTH_MAX = 64

_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_BRACKETS = re.compile(r"[\[\]{}]")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[^\n`]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Json:
    """A value that JSON can hold, in a box of its own: None is a value too."""

    value: object


class JsonTooLarge(Exception):
    """The text is longer, or nested deeper, than is read."""


def _depth(text: str) -> int:
    """How deep the brackets outside of strings are nested."""
    depth = deepest = 0
    for bracket in _BRACKETS.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def parse_json(text: str) -> Json | None:
    """The value of `text`, or None where it is no JSON; NaN and infinities are none.

    Raises:
        JsonTooLarge: it is longer than JSON_CHARACTERS_MAX or deeper than JSON_DEPTH_MAX.
    """
    if len(text) > JSON_CHARACTERS_MAX or _depth(text) > JSON_DEPTH_MAX:
        raise JsonTooLarge
    try:
        return Json(json.loads(text, parse_constant=_refuse_constant))
    except ValueError:
        return None


def only_code_block(text: str) -> str | None:
    """What stands in the only fenced code block of `text`; None where there is none, or more than one."""
    fences = list(_FENCE.finditer(text))
    return text[fences[0].end() : fences[1].start()] if len(fences) == 2 else None
