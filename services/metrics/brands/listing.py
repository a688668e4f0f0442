"""Lists in an answer: the how manieth item a place belongs to."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final

_BULLETS: Final = "-*+\u2022\u25e6\u2023\u25aa\u25cf\u2013"
_MARKS: Final = frozenset("0123456789\uff10\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19#_|(\uff08" + _BULLETS)
"""What a line that begins an item or a heading begins with."""
# A number with a point, bracket (or two) or Chinese comma, perhaps in a heading or in bold; a keycap.
_NUMBERED = re.compile(
    r"(?P<heading>#{1,6}[ \t]+)?[*_]{0,3}[(\uff08]?(?P<number>[0-9\uff10-\uff19]{1,3})"
    r"(?:[*_]{0,3}[.)\]:\uff09][*_]{0,3}(?=[ \t\u3000])|[\u3001\uff0e]|\ufe0f?\u20e3)"
)
_ROW = re.compile(r"\|[ \t]*(?P<number>[0-9]{1,3})[ \t]*\|")
_BULLET = re.compile(rf"[{_BULLETS}][ \t]+(?!\|)")
_HEADING = re.compile(r"#{1,6}(?:[ \t]|$)")
_NUMBER_DIGITS_MAX: Final = 3
_MARGIN: Final = " \t>"
"""What stands before the items of a list that is indented or quoted."""
_NESTED_INDENT: Final = 2
"""An item that is indented by this many columns more than its list belongs to the item before."""
_TAB_WIDTH: Final = 4


class Lists:
    """The items of the outermost lists of one text.

    A numbered item or row of a table has its number, a bullet its place among its neighbours; what is indented under an
    item, and the lines that follow it without a blank line, belong to it. A numbered heading is an item up to the next
    heading.
    """

    def __init__(self, text: str, last: int) -> None:
        """Reads the lines of `text` once, up to that of `last`, the last place that is asked about."""
        self._starts: list[int] = []
        self._ordinals: list[int] = []
        self._indent = -1  # of the list that is open; -1: none
        self._bullets = 0
        self._under_heading = False
        after_blank = False
        start = 0
        end = text.find("\n", last)
        for line in (text if end < 0 else text[:end]).split("\n"):
            point = line.find(". ", 1, _NUMBER_DIGITS_MAX + 1)
            if point > 0 and line[:point].isdecimal() and line[:point].isascii():
                self._read_usual_item(start, int(line[:point]))
                after_blank = False
            elif (bare := line.lstrip(_MARGIN)) and bare != "\r":
                # Most lines are neither items nor the end of a list.
                if bare[0] in _MARKS or (after_blank and self._indent >= 0):
                    self._read(start, line, bare, after_blank=after_blank)
                after_blank = False
            else:
                after_blank = True
            start += len(line) + 1

    def ordinal(self, position: int) -> int:
        """The ordinal of the item that the place belongs to, from 1; 0 where it is in no list."""
        index = bisect_right(self._starts, position) - 1
        return self._ordinals[index] if index >= 0 else 0

    def _read_usual_item(self, start: int, number: int) -> None:
        """Take a line that begins with its number; it belongs to the outermost list, whichever is open."""
        if not self._under_heading:
            self._indent = self._bullets = 0
            self._starts.append(start)
            self._ordinals.append(number)

    def _read(self, start: int, line: str, bare: str, *, after_blank: bool) -> None:
        """Take a line that holds something."""
        number, bullet = -1, False
        if bare[0] in _MARKS:
            numbered = _ROW.match(bare) if bare[0] == "|" else _NUMBERED.match(bare)
            number = int(numbered["number"]) if numbered else -1
            if bare[0] == "#" and _HEADING.match(bare):
                self._read_heading(start, number)
                return
            bullet = numbered is None and _BULLET.match(bare) is not None
        if self._under_heading:
            return
        indent = 0 if len(bare) == len(line) else _width(line[: len(line) - len(bare)])
        if number < 0 and not bullet:
            if after_blank and indent <= max(self._indent, 0):
                self._close(start)
        elif self._indent < 0 or indent < self._indent + _NESTED_INDENT:
            self._bullets = self._bullets + 1 if bullet else 0
            self._indent = indent if self._indent < 0 else min(self._indent, indent)
            self._open(start, self._bullets if bullet else number)

    def _read_heading(self, start: int, number: int) -> None:
        """Take a heading; one with a number is an item up to the next."""
        self._close(start)
        self._under_heading = number >= 0
        if self._under_heading:
            self._open(start, number)

    def _open(self, start: int, ordinal: int) -> None:
        self._starts.append(start)
        self._ordinals.append(ordinal)

    def _close(self, start: int) -> None:
        self._indent, self._bullets = -1, 0
        if self._ordinals and self._ordinals[-1]:
            self._open(start, 0)


def _width(indent: str) -> int:
    return len(indent.expandtabs(_TAB_WIDTH))
