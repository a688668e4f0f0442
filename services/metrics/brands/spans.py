"""Stretches of a text that cover places."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable


class Spans:
    """The union of stretches, each from a start to an end."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, spans: Iterable[tuple[int, int]]) -> None:
        """Takes stretches in any order; those that overlap become one."""
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted(spans):
            if self._ends and start < self._ends[-1]:
                self._ends[-1] = max(end, self._ends[-1])
            else:
                self._starts.append(start)
                self._ends.append(end)

    def cover(self, start: int, end: int) -> bool:
        """Whether one of them holds everything from `start` to `end`."""
        index = bisect_right(self._starts, start) - 1
        return index >= 0 and end <= self._ends[index]
