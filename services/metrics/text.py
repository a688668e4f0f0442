"""One text, taken apart once and shared by every scorer that looks at it.

What counts as a word, a sentence or a line is decided here and nowhere else. Classes of characters come from the tables
of the `regex` package, whose version is pinned, and not from those of the running Python, which differ between
releases: the same text has the same words everywhere.

Every step is linear in the length of the text.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import chain

import regex

# The table of character classes stops growing here: text that walks through all of Unicode must not fill the memory.
_CHARACTER_TABLE_LIMIT = 65_536

_ASCII_LETTERS = frozenset(string.ascii_letters)
_WORD_CHARACTER = regex.compile(r"[\p{L}\p{M}\p{N}]")
# Scripts that put no space between words: each character counts as a word.
_UNSPACED_SCRIPTS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
UNSPACED_CHARACTER = regex.compile(rf"[[{_UNSPACED_SCRIPTS}]&&[\p{{L}}\p{{N}}]]", flags=regex.V1)
_APOSTROPHES = "'\u2019\u02bc\uff07"
_HYPHENS = "-\u2010\u2011"

# A point or comma inside a number belongs to it. It travels through the translation as a character that means nothing
# else.
_NUMBER_POINT = re.compile(r"([0-9])[.,](?=[0-9])")
_NUMBER_POINT_MARK = "\x1f"
_MARKED_NUMBER_POINT = rf"\1{_NUMBER_POINT_MARK}"
# Stands between sentences while their words are split in one go. It is no white space, and no text keeps its own.
_SENTENCE_MARK = "\x02"
# What may stand inside a word, but not at its edges.
_JOINERS = "'-."

# Where a sentence may end: a line break with the space after it, or a run of terminators with the closing quotes and
# Markdown emphasis after it. The pattern begins with one class of characters, which is what lets the search skip ahead
# fast, and takes the whole run, so that nothing is scanned twice.
_POSSIBLE_BREAK = re.compile(
    r"""([\n.!?\u2026\u3002\uff01\uff1f\u0964\u061f]"""
    r"""(?:(?<=\n)\s*+|(?<!\n)[.!?\u2026\u3002\uff01\uff1f\u0964\u061f]*+[)\]"'*_\u201d\u2019\u00bb]*+))"""
)
_SPACE_FREE_TERMINATORS = frozenset("\u3002\uff01\uff1f\u0964\u061f")
# What follows a line break that ends a sentence: a heading, list item, table row or quote.
_BLOCK_START = re.compile(r"[-*+|>\u2022#]|[0-9]{1,9}[.)][ \t]")
# A point after these ends no sentence. Compared in lower case.
_ABBREVIATIONS = frozenset(
    """
    mr mrs ms dr prof st vs etc e.g i.e cf fig no vol approx dept inc ltd co jr sr al resp ca bzw usw z.b a.m p.m
    """.split()
)
# A word of four letters or more is none of them unless it ends like this: most points are told apart by that alone.
_LONG_ABBREVIATION_ENDINGS = frozenset({"prof", "prox", "dept", "resp"})
# A single letter is an initial, except "I", which often ends a sentence.
_INITIALS = "abcdefghjklmnopqrstuvwxyz"
_LAST_TOKEN_LENGTH_MAX = 16


class _CharacterTable(dict[int, int | str]):
    """What each code point becomes before a text is split at spaces; filled as code points are met."""

    def __missing__(self, code_point: int) -> int | str:
        replacement = self._classify(code_point)
        if len(self) < _CHARACTER_TABLE_LIMIT:
            self[code_point] = replacement
        return replacement

    @staticmethod
    def _classify(code_point: int) -> int | str:
        character = chr(code_point)
        if character in _APOSTROPHES:
            return "'"
        if character in _HYPHENS:
            return "-"
        if character == _NUMBER_POINT_MARK:
            return "."
        if character == _SENTENCE_MARK:
            return code_point
        if UNSPACED_CHARACTER.match(character):
            return f" {character} "
        return code_point if _WORD_CHARACTER.match(character) else " "


_CHARACTERS = _CharacterTable()


def split_words(text: str) -> list[str]:
    """The words of `text`, case-folded.

    A word is a run of letters, marks and digits; apostrophes and single hyphens inside it belong to it ("don't",
    "state-of-the-art"), so does a point or comma between digits ("3.14"). Each character of a script that is written
    without spaces is a word of its own.
    """
    return split_words_by_sentence((text,))[0]


def _has_joiner_at_edge(spaced: str) -> bool:
    """Whether a word of `spaced` begins or ends with what may only stand inside it."""
    return any(joiner in spaced and (f" {joiner}" in spaced or f"{joiner} " in spaced) for joiner in _JOINERS)


def _ends_no_sentence(text: str, start: int, end: int) -> bool:
    """Whether the point at `end` closes an abbreviation, an initial or a list's number in the sentence from `start`."""
    token_start = max(start, end - _LAST_TOKEN_LENGTH_MAX)
    token_start = max(token_start, text.rfind(" ", token_start, end) + 1, text.rfind("\n", token_start, end) + 1)
    token = text[token_start:end].lstrip("(\"'").lower()
    if len(token) == 1 and token in _INITIALS:
        return True
    numbers_an_item = token.isascii() and token.isdigit() and not text[start:token_start].strip()
    return numbers_an_item or token in _ABBREVIATIONS


def _ends_plainly(before: str) -> bool:
    """Whether what stands before a point ends in a word that is too long to be one of the abbreviations."""
    ending = before[-4:]
    return len(ending) == 4 and ending.isalpha() and ending.lower() not in _LONG_ABBREVIATION_ENDINGS


def _is_break(text: str, start: int, before: str, found: str, end: int) -> bool:
    """Whether `found`, which ends at `end` and stands after `before`, ends the sentence that began at `start`."""
    if found[0] == "\n":
        return found.count("\n") > 1 or _BLOCK_START.match(text, end) is not None
    if found[0] in _SPACE_FREE_TERMINATORS:
        return True
    if end < len(text) and not text[end].isspace():
        return False
    return found != "." or _ends_plainly(before) or not _ends_no_sentence(text, start, end - 1)


def split_sentences(text: str) -> list[str]:
    """The sentences of `text` that hold at least one letter or digit, as they stand.

    Headings, list items and table rows are sentences of their own. Common abbreviations and initials end none.
    """
    pieces: list[str] = []
    start = end = 0
    # What stands between possible breaks, and those, by turns.
    parts = _POSSIBLE_BREAK.split(text)
    for before, found in zip(parts[::2], parts[1::2], strict=False):
        end += len(before) + len(found)
        if _is_break(text, start, before, found, end):
            pieces.append(text[start:end])
            start = end
    pieces.append(text[start:])
    stripped = map(str.strip, pieces)
    # Most begin with an ASCII letter, which is told faster than by a search.
    return [piece for piece in stripped if piece[:1] in _ASCII_LETTERS or _WORD_CHARACTER.search(piece)]


def split_words_by_sentence(sentences: Sequence[str]) -> list[list[str]]:
    """The words of each sentence, as `split_words` gives them, in one pass over all."""
    if not sentences:
        return []
    marked = f" {_SENTENCE_MARK} ".join([sentence.replace(_SENTENCE_MARK, " ") for sentence in sentences])
    folded = marked.casefold()
    if any(map(folded.__contains__, string.digits)):
        folded = _NUMBER_POINT.sub(_MARKED_NUMBER_POINT, folded)
    if "--" in folded:
        folded = folded.replace("--", " ")
    spaced = f" {folded.translate(_CHARACTERS)} "
    words = [part.split() for part in spaced.split(_SENTENCE_MARK)]
    if _has_joiner_at_edge(spaced):
        words = [[word for token in tokens if (word := token.strip(_JOINERS))] for tokens in words]
    return words


class Text:
    """A text whose parts are found when they are first asked for, and then kept."""

    def __init__(self, raw: str) -> None:
        """Wraps `raw`; nothing is computed yet."""
        self.raw = raw

    @cached_property
    def words(self) -> list[str]:
        """The words, case-folded; see `split_words`."""
        return list(chain.from_iterable(self.words_by_sentence))

    @cached_property
    def words_by_sentence(self) -> list[list[str]]:
        """The words of each sentence."""
        return split_words_by_sentence(self.sentences)

    @cached_property
    def word_counts(self) -> Counter[str]:
        """How often each word occurs, in the order of first occurrence."""
        return Counter(self.words)

    @cached_property
    def sentences(self) -> list[str]:
        """The sentences; see `split_sentences`."""
        return split_sentences(self.raw)

    @cached_property
    def lines(self) -> list[str]:
        """The lines, without their ends. Only line feeds (after an optional carriage return) end a line."""
        return [line.removesuffix("\r") for line in self.raw.split("\n")]

    @cached_property
    def paragraphs(self) -> int:
        """How many runs of non-blank lines there are."""
        filled = [bool(line) and not line.isspace() for line in self.lines]
        return sum(1 for before, now in zip([False, *filled], filled, strict=False) if now and not before)
