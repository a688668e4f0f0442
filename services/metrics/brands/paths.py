"""Paths in a folded text, of addresses without a scheme ("example.com/blog/") and of files ("/usr/share/")."""

from __future__ import annotations

import math
import re
from typing import Final

import regex

SIGNS: Final = frozenset("/\\=?#%&~+-")
"""What may stand in a path before a name."""

_LOOKED_AT: Final = 256
_BEGINS_WITHIN: Final = 64
_PATH = regex.compile(
    r"(?:^|[^\w.@-])(?:(?:[a-z0-9-]+\.)+[a-z]{2,24}(?::\d+)?/|[a-z]:\\|(?:~|\.\.?)/)|(?:^|[\"'`(])/[\w.-]+/"
)
_UNSPACED = re.compile(r"\S*")


class Paths:
    """Which places of one text lie in a path.

    A run of characters without a space holds one where that begins at once or nearly so. The last run is remembered:
    of a thousand names between slashes, only the first makes it be read.
    """

    __slots__ = ("_begins", "_from", "_text", "_until")

    def __init__(self, text: str) -> None:
        """Reads nothing yet."""
        self._text = text
        self._from, self._until = 1, 0
        self._begins = math.inf

    def hold(self, place: int) -> bool:
        """Whether the place, behind one of the signs, lies in a path."""
        if not self._from <= place <= self._until:
            self._read(place)
        return self._begins <= place

    def _read(self, place: int) -> None:
        before = self._text[max(0, place - _LOOKED_AT) : place].rsplit(maxsplit=1)[-1]
        run = _UNSPACED.match(self._text, place - len(before))
        assert run is not None
        self._from, self._until = run.span()
        found = _PATH.search(self._text[self._from : self._from + _BEGINS_WITHIN])
        self._begins = math.inf if found is None else self._from + found.end()
