"""Addresses in a folded text: which hosts an answer points at, and where a name is no mention but part of one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from string import ascii_lowercase, digits
from typing import Final, NamedTuple

import regex

from services.metrics.brands.characters import character_class, is_word, joins
from services.metrics.brands.spans import Spans
from services.runtime.stopping import check_stopped

_HOST_LENGTH_MAX: Final = 253
_SCHEME_LENGTH_MAX: Final = 16
_SCHEME: Final = frozenset(ascii_lowercase + digits)
_TARGET_LENGTH_MAX: Final = 2_048
_POINTS_PER_CHECK: Final = 4_096
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
# What an address goes on with: no space, quote, bracket or letter of a script without spaces; round brackets in pairs;
# a comma or semicolon only behind the host.
_STOPS = rf"\s<>\"'`|{{}}\[\]()\\^*\u3001\u3002{_UNSPACED}"
_REST = regex.compile(rf"[^{_STOPS},;/?#]*+(?:[/?#](?:[^{_STOPS}]++|\([^\s()<>]*+\))*+)?+")
_HOST = regex.compile(r"(?:[^/?#@\s]*+@)?([\w-]+(?:\.[\w-]+)+)")
# A literal first character lets the search skip ahead fast.
_POINT_IN_WORD = re.compile(r"\.[a-z0-9\x80-\U0010ffff]")


_NO_SPANS: Final = Spans(())


class Host(NamedTuple):
    """A host that a text names; `addressed` where it stands in an address or behind "www."."""

    name: str
    start: int
    addressed: bool


class Links:
    """The addresses of one folded text."""

    def __init__(self, text: str) -> None:
        """Reads `text` once."""
        self._text = text
        self._addresses = list(_addresses(text)) if "://" in text else []
        targets = list(_targets(text)) if "](" in text else []
        self.any = bool(self._addresses or targets)
        self._spans = Spans([*self._addresses, *targets]) if self.any else _NO_SPANS

    def cover(self, start: int, end: int) -> bool:
        """Whether the place lies in an address or in the target of a Markdown link."""
        return self._spans.cover(start, end)

    def hosts(self) -> Iterator[Host]:
        """The hosts that stand in addresses, and those that stand for themselves, without a leading "www."."""
        for start, end in self._addresses:
            host = _HOST.match(self._text, self._text.index("://", start) + 3, end)
            if host is not None and len(host[1]) <= _HOST_LENGTH_MAX:
                yield Host(_without_www(host[1]), host.start(1), addressed=True)
        position = 0
        for number, point in enumerate(_POINT_IN_WORD.finditer(self._text)):
            if not number % _POINTS_PER_CHECK:
                check_stopped()
            if point.start() < position or (self.any and self.cover(point.start(), point.end())):
                continue
            start, position = _host_around(self._text, point.start())
            name = self._text[start:position].strip(".-")
            if "." in name and not (start and self._text[start - 1] in "@/\\"):
                yield Host(_without_www(name), start, addressed=name.startswith("www."))


def _addresses(text: str) -> Iterator[tuple[int, int]]:
    """Where addresses with a scheme begin and end."""
    position = text.find("://")
    while position >= 0:
        start = position
        while start > 0 and position - start < _SCHEME_LENGTH_MAX and text[start - 1] in _SCHEME:
            start -= 1
        rest = _REST.match(text, position + 3)
        end = rest.end() if rest else position + 3
        if start < position:
            yield start, end
        position = text.find("://", end)


def _targets(text: str) -> Iterator[tuple[int, int]]:
    """Where the targets of Markdown links begin and end."""
    position = text.find("](")
    while position >= 0:
        start = position + 2
        limit = start + _TARGET_LENGTH_MAX
        end = text.find(")", start, limit)
        if end >= 0 and text.find("\n", start, end) < 0:
            yield start, end
        position = text.find("](", start)


def _host_around(text: str, point: int) -> tuple[int, int]:
    """Start and end of the run of letters, digits, points and hyphens around a point; letters of one script."""
    start = point
    floor = max(0, point - _HOST_LENGTH_MAX)
    while start > floor and _in_host(text, start - 1, text[start]):
        start -= 1
    end = point + 1
    ceiling = min(len(text), point + _HOST_LENGTH_MAX)
    while end < ceiling and _in_host(text, end, text[end - 1]):
        end += 1
    return start, end


def _in_host(text: str, position: int, neighbour: str) -> bool:
    character = text[position]
    if character in ".-":
        return True
    if not is_word(character):
        return False
    return neighbour in ".-" or joins(character, neighbour) or character_class(character) == character_class(neighbour)


def _without_www(host: str) -> str:
    return host.removeprefix("www.") if host.count(".") > 1 else host
