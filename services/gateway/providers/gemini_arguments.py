"""Arguments of a function call that Vertex AI streams piece by piece, put together.

Each piece has a JSON path (RFC 9535, names and indexes only) and a value; texts of one path are appended to each other.
Reference: google.cloud.aiplatform.v1.FunctionCall and PartialArg.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import orjson

from services.gateway.failures import CallFailed, Failure
from services.gateway.providers.json_fields import text_of

PATH_STEPS_MAX = 100
ITEMS_MAX = 10_000
"""Items of a list in the arguments; a path can name any index, and the ones before it have to be there."""

_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d{1,9})\]|\['([^']*)'\]|\["([^"]*)"\]""")
_VALUES = ("stringValue", "numberValue", "boolValue")

_Step = str | int


class StreamedArguments:
    """The arguments of one call. Those that came whole may be there from the start."""

    def __init__(self, whole: dict[str, Any]) -> None:
        self._value = whole

    @property
    def json(self) -> str:
        """All that came."""
        return orjson.dumps(self._value).decode()

    def take_all(self, pieces: Iterable[dict[str, Any]]) -> None:
        """Put pieces in their places. Raises CallFailed where one has none."""
        for piece in pieces:
            self._take(piece)

    def _take(self, piece: dict[str, Any]) -> None:
        path = text_of(piece.get("jsonPath"))
        steps = _steps(path)
        value = next((piece[name] for name in _VALUES if name in piece), None)
        holder: Any = self._value
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            _make_room(holder, step, path)
            if following is None:
                before = holder[step]
                joined = isinstance(before, str) and isinstance(value, str)
                holder[step] = before + value if joined else value
            else:
                if holder[step] is None:
                    holder[step] = {} if isinstance(following, str) else []
                holder = holder[step]


def _make_room(holder: Any, step: _Step, path: str) -> None:
    if isinstance(holder, dict) and isinstance(step, str):
        holder.setdefault(step, None)
    elif isinstance(holder, list) and isinstance(step, int) and step < ITEMS_MAX:
        holder.extend([None] * (step + 1 - len(holder)))
    else:
        raise _unreadable(path)


def _steps(path: str) -> list[_Step]:
    """The names and indexes of a path. Raises CallFailed for one that has others, or none."""
    steps: list[_Step] = []
    at = 1
    while at < len(path) and len(steps) < PATH_STEPS_MAX and (found := _STEP.match(path, at)):
        name, index, *quoted = found.groups()
        steps.append(int(index) if index is not None else next(one for one in (name, *quoted) if one is not None))
        at = found.end()
    if not path.startswith("$") or at < len(path) or not steps:
        raise _unreadable(path)
    return steps


def _unreadable(path: str) -> CallFailed:
    message = f"the provider streamed an argument of a function to a place that cannot be read: {path[:80]!r}"
    return CallFailed(Failure("PROVIDER_ERROR", message, dispatched=True))
