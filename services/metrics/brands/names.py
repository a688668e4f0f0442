"""Finding thousands of names in a text at once, in time that grows with the text and not with the names.

A name is a row of words with what stands between them. An automaton (Aho-Corasick) finds the first words of all names;
a trie of words tells how a name goes on from there. So of nested names the longest is found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, NamedTuple

import ahocorasick_rs

from services.metrics.brands.characters import is_word, joins
from services.metrics.brands.edges import FREE, may_begin, may_end, word_ends
from services.metrics.brands.paths import Paths
from services.runtime.stopping import check_stopped

_SEPARATOR_LENGTH_MAX: Final = 8
"""Characters between two words of a name, as they stand in a text."""
_WORD_LENGTH_MAX: Final = 128
WORDS_MAX: Final = 24
"""Words of one name."""
_STEPS_KEPT_MAX: Final = 4_096
_MATCHES_PER_CHECK: Final = 4_096
"""Places that are looked at between two questions whether the answer is still wanted: some ten milliseconds."""
_DENSE_CHARACTERS_MAX: Final = 60_000
"""Up to this many characters the automaton is a full table, which is the fastest and takes the most memory."""

_SEPARATOR_SIGNS = str.maketrans({"*": "", "\n": " ", "\t": " ", "\r": " ", "\v": " ", "\f": " "})
_ASCII_WORD: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
# A space, a word in ASCII and a sign that surely ends it: read without looking at each character.
_USUAL_STEP: Final = re.compile(rf" ([a-z0-9]{{1,{_WORD_LENGTH_MAX}}})(?=[ \n,;:!?()*]|\Z)")
_TRADE_MARKS = "\u2122\u2120\u00ae\u00a9"


class Name(NamedTuple):
    """A name taken apart.

    `words` come with what separates each from the one before; `lead` and `trail` are the signs around all of them.
    """

    lead: str
    words: tuple[tuple[str, str], ...]
    trail: str


class Found(NamedTuple):
    """A name in a folded text."""

    name: int
    start: int
    end: int


@dataclass(slots=True)
class _Node:
    """A place in the trie: how names go on, and which end here (lead, trail, name; the longest first)."""

    children: dict[tuple[str, str], _Node] = field(default_factory=dict)
    ends: list[tuple[str, str, int]] = field(default_factory=list)


def separator(raw: str) -> str | None:
    """What stands between two words, as far as it matters: a line break is a space, emphasis is nothing.

    None where it can't be inside a name: a blank line, or too much of it.
    """
    if raw in ("", " "):
        return raw
    if raw.count("\n") > 1:
        return None
    spaced = raw.translate(_SEPARATOR_SIGNS)
    if " " in spaced:
        spaced = _collapsed(spaced.replace("_", ""))
    return spaced


def _collapsed(text: str) -> str:
    while "  " in text:
        text = text.replace("  ", " ")
    return text


def _word_at(text: str, position: int) -> tuple[int, int] | None:
    """Start and end of the next word from `position` on; None where none follows soon."""
    start = position
    limit = min(len(text), position + _SEPARATOR_LENGTH_MAX + 1)
    while start < limit and not is_word(text[start]):
        start += 1
    if start >= limit:
        return None
    end = start + 1
    limit = min(len(text), start + _WORD_LENGTH_MAX)
    while end < limit and joins(text[end - 1], text[end]):
        end += 1
    return start, end


class _Steps:
    """How a text goes on behind a word, remembered: names that begin inside each other read the same words again."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.paths = Paths(text)
        self._known: dict[int, tuple[str, str, int] | None] = {}

    def after(self, position: int) -> tuple[str, str, int] | None:
        """What separates the next word, the word and its end; None where none follows that could be of one name."""
        if position not in self._known:
            if len(self._known) == _STEPS_KEPT_MAX:
                self._known.clear()
            self._known[position] = self._read(position)
        return self._known[position]

    def _read(self, position: int) -> tuple[str, str, int] | None:
        usual = _USUAL_STEP.match(self._text, position)
        if usual is not None:
            return " ", usual[1], usual.end()
        span = _word_at(self._text, position)
        if span is None:
            return None
        between = separator(self._text[position : span[0]])
        return None if between is None else (between, self._text[span[0] : span[1]], span[1])


def split_name(folded: str) -> Name | None:
    """The parts of a folded name; None where it has no word, too many words, or too many signs after a word."""
    text = " ".join(folded.split()).rstrip(_TRADE_MARKS).rstrip()
    words: list[tuple[str, str]] = []
    position = 0
    lead = ""
    steps = _Steps(text)
    while (step := steps.after(position)) is not None:
        between, word, position = step
        if not words:
            lead, between = between, ""
        words.append((between, word))
    trail = text[position:]
    fits = 0 < len(words) <= WORDS_MAX and len(trail) <= _SEPARATOR_LENGTH_MAX
    return Name(lead, tuple(words), trail) if fits else None


def _plain_name(node: _Node) -> int:
    """The only name that begins with a word, where it is that word and nothing else; -1 otherwise."""
    if node.children or len(node.ends) != 1 or node.ends[0][:2] != ("", ""):
        return -1
    return node.ends[0][2]


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether the characters from `start` to `end` are whole words."""
    if start and text[start - 1] not in FREE and joins(text[start - 1], text[start]):
        return False
    return word_ends(text, end)


class NameMatcher:
    """Finds names, each as a whole.

    The automaton looks for first words. As none of these has a boundary inside, no two whole ones overlap, so that the
    automaton's choice of the first and longest never hides another.
    """

    def __init__(self, names: Sequence[Name], owners: Sequence[int] = ()) -> None:
        """Compiles `names`; what is found is given by its index among them. `owners` say whose they are."""
        self._owners = owners
        self._roots: list[_Node] = []
        heads: dict[str, int] = {}
        for index, name in enumerate(names):
            head = name.words[0][1]
            if head not in heads:
                heads[head] = len(self._roots)
                self._roots.append(_Node())
            node = self._roots[heads[head]]
            for word in name.words[1:]:
                node = node.children.setdefault(word, _Node())
            node.ends.append((name.lead, name.trail, index))
            node.ends.sort(key=lambda end: -len(end[0]) - len(end[1]))
        self._owners_below = [0] * len(self._roots)
        for root, _ in {(heads[name.words[0][1]], owner) for name, owner in zip(names, owners, strict=False)}:
            self._owners_below[root] += 1
        self._plain = [_plain_name(node) for node in self._roots]
        dense = sum(map(len, heads)) <= _DENSE_CHARACTERS_MAX
        self._automaton = ahocorasick_rs.AhoCorasick(
            list(heads),
            matchkind=ahocorasick_rs.MatchKind.LeftmostLongest,
            implementation=ahocorasick_rs.Implementation.DFA if dense else None,
            store_patterns=False,
        )

    def find(self, text: str) -> list[Found]:
        """The names in a folded text from left to right; none overlaps another: the first and longest counts."""
        names: list[Found] = []
        cursor, length = 0, len(text)
        plain = self._plain
        steps = _Steps(text)
        for matches in self._matches(text):
            for pattern, start, end in matches:
                if start < cursor or (start and text[start - 1] in _ASCII_WORD and text[start] in _ASCII_WORD):
                    continue  # most of what the automaton finds is the middle of a word
                name = plain[pattern]
                if name >= 0 and (not start or text[start - 1] in FREE) and (end == length or text[end] in FREE):
                    # The common case, without a further look: a name of one word between signs that bind nothing.
                    names.append(Found(name, start, end))
                    cursor = end
                elif end < length and text[end] in _ASCII_WORD and text[end - 1] in _ASCII_WORD:
                    continue  # the beginning of a longer word
                elif _stands_alone(text, start, end):
                    found = next(_names_from(self._roots[pattern], text, start, end, steps), None)
                    if found is not None and found.start >= cursor:
                        names.append(found)
                        cursor = found.end
        return names

    def find_longest(self, text: str) -> Iterator[Found]:
        """From each place on the longest name of each owner, also where it overlaps others."""
        steps = _Steps(text)
        for pattern, start, end in chain.from_iterable(self._matches(text)):
            if _stands_alone(text, start, end):
                owned: set[int] = set()
                for found in _names_from(self._roots[pattern], text, start, end, steps):
                    owner = self._owners[found.name]
                    if owner not in owned:
                        owned.add(owner)
                        yield found
                    if len(owned) == self._owners_below[pattern]:
                        break

    def _matches(self, text: str) -> Iterator[list[tuple[int, int, int]]]:
        """What the automaton finds (first word, start, end), in portions."""
        matches = self._automaton.find_matches_as_indexes(text)
        for first in range(0, len(matches), _MATCHES_PER_CHECK):
            check_stopped()
            yield matches[first : first + _MATCHES_PER_CHECK]


def _names_from(root: _Node, text: str, start: int, end: int, steps: _Steps) -> Iterator[Found]:
    """The names that begin with the word from `start` to `end`, the longest first."""
    path = [(root, end)]
    node, position = root, end
    while node.children and (step := steps.after(position)) is not None:
        between, word, position = step
        following = node.children.get((between, word))
        if following is None and between == "-":
            following = node.children.get((" ", word))  # as German writes it: "Google-Cloud-Dienste"
        if following is None:
            break
        node = following
        path.append((node, position))
    for node, position in reversed(path):
        for lead, trail, name in node.ends:
            begin, stop = start - len(lead), position + len(trail)
            if lead and (begin < 0 or not text.startswith(lead, begin)):
                continue
            if trail and not text.startswith(trail, position):
                continue
            if may_begin(text, begin, stop, steps.paths) and may_end(text, begin, stop):
                yield Found(name, begin, stop)
