"""The sentence around a place in a text, for people to read and for sentiment to be judged by."""

from __future__ import annotations

import re
from typing import Final

SENTENCE_LENGTH_MAX: Final = 400
"""Characters of an excerpt; a longer sentence is cut around the place."""

# Plain searches for these are several times faster than one regular expression for all.
_ENDS: Final = ("! ", "? ")
_OTHER_ENDS: Final = ("\u3002", "\uff01", "\uff1f", "\u0964", "\u061f", "\u2026 ", ".\u201d ")
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof st vs etc e.g i.e cf fig no vol approx dept inc ltd co corp jr sr bros u.s u.k al".split()
)
_ABBREVIATION_LENGTH_MAX: Final = 8
_WORD_LENGTH_MAX: Final = 12
_ITEM_MARK = re.compile(r"(?:#{1,6}[ \t]+|>[ \t]*|[-*+\u2022][ \t]+|[0-9]{1,3}[.)][ \t]+|\|[ \t]*)+")


def sentence_around(text: str, start: int, end: int) -> tuple[int, int]:
    """Start and end of the sentence that holds the characters from `start` to `end`, without the marks of a list."""
    reach = max(0, (SENTENCE_LENGTH_MAX - (end - start)) // 2)
    first, last = max(0, start - reach), min(len(text), end + reach)
    first = max(first, text.rfind("\n", first, start) + 1)
    line = text.find("\n", end, last)
    last = last if line < 0 else line
    for sign in _ENDS if text.isascii() else _ENDS + _OTHER_ENDS:
        before = text.rfind(sign, first, start)
        first = first if before < 0 else before + len(sign)
        after = text.find(sign, end, last)
        last = last if after < 0 else after + len(sign)
    first, last = _after_point(text, first, start), _until_point(text, end, last)
    mark = _ITEM_MARK.match(text, first, start)
    first = first if mark is None else mark.end()
    while first < start and text[first].isspace():
        first += 1
    while last > end and text[last - 1].isspace():
        last -= 1
    return first, last


def _after_point(text: str, first: int, start: int) -> int:
    """Where the sentence begins, if a point ends another one between `first` and `start`."""
    point = text.rfind(". ", first, start)
    while point >= 0 and _is_abbreviation(text, point):
        point = text.rfind(". ", first, point)
    return first if point < 0 else point + 2


def _until_point(text: str, end: int, last: int) -> int:
    """Where the sentence ends, if a point ends it before `last`."""
    point = text.find(". ", end, last)
    while point >= 0 and _is_abbreviation(text, point):
        point = text.find(". ", point + 1, last)
    return last if point < 0 else point + 1


def _is_abbreviation(text: str, point: int) -> bool:
    """Whether the point closes an abbreviation or the number of an item."""
    begin = max(0, point - _WORD_LENGTH_MAX)
    begin = max(begin, text.rfind(" ", begin, point) + 1, text.rfind("\n", begin, point) + 1)
    word = text[begin:point]
    if word.isdecimal():
        return begin == 0 or text[begin - 1] == "\n"
    return len(word) <= _ABBREVIATION_LENGTH_MAX and word.lstrip("(\"'*").lower() in _ABBREVIATIONS
