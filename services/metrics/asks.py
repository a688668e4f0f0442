"""What a prompt asks for that can be counted: items, lengths, formats, named parts and questions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import regex

from services.metrics.term_weights import count_terms
from services.metrics.text import Text

# Instructions stand at the beginning or the end; what lies between in a longer prompt is material.
_PROMPT_CHARACTERS = 4_000
_PROMPTS_KEPT = 256
_QUESTIONS_MAX = 8
_PARTS_MAX = 12
_COUNT_MAX = 200


class Unit(Enum):
    """What a length is counted in."""

    WORDS = "word"
    SENTENCES = "sentence"
    PARAGRAPHS = "paragraph"
    CHARACTERS = "character"


class Format(Enum):
    """What an answer is asked to be."""

    JSON = "json"
    TABLE = "table"
    BULLETS = "bullets"
    NUMBERED = "numbered"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Length:
    """How long the answer shall be, ends included."""

    unit: Unit
    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class Asks:
    """Everything countable that a prompt asks for."""

    items: tuple[int, ...] = ()
    """How many items shall be listed, for each list."""
    lengths: tuple[Length, ...] = ()
    formats: tuple[Format, ...] = ()
    parts: tuple[frozenset[str], ...] = ()
    """The terms of each part that shall occur."""
    questions: tuple[frozenset[str], ...] = ()
    """The terms of each question."""

    def __len__(self) -> int:
        return sum(map(len, (self.items, self.lengths, self.formats, self.parts, self.questions)))


_NUMBER_WORDS = {
    word: number
    for number, word in enumerate(
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen".split(), start=1
    )
} | {"a": 1, "an": 1, "single": 1, "twenty": 20, "thirty": 30, "fifty": 50, "hundred": 100}
_NUMBER = r"(?:[0-9]{1,4}|" + "|".join(_NUMBER_WORDS) + ")"
_UNIT = r"(?:words?|sentences?|paragraphs?|characters?)"

_ITEMS = regex.compile(
    r"\b(?:list|give|name|provide|suggest|mention|identify|write|offer|outline|share|propose|recommend|generate|"
    r"brainstorm|describe|explain|state|tell|show|create|are|top|need|want|with|include|at least|exactly)\s++"
    r"(?:(?:me|us|the|top|at least|exactly|some|about|best|main|these|following|top)\s++){0,3}"
    rf"(?P<count>{_NUMBER})\s++(?!{_UNIT}\b|more\b|times?\b|years?\b|days?\b|hours?\b|minutes?\b|percent\b|of\b|year)"
    r"(?:[\p{L}-]++\s*+){0,5}?(?P<noun>[\p{L}]{2,}s\b|people\b|criteria\b)"
)
_LENGTH = regex.compile(
    r"(?P<bound>at most|no more than|not more than|up to|under|fewer than|less than|within|maximum of|max|"
    r"at least|no fewer than|not less than|more than|over|minimum of|"
    r"exactly|precisely|about|around|roughly|approximately|in|of|a|write|one|single)?\s*+"
    rf"(?P<low>{_NUMBER})(?:\s*+(?:-|\u2013|to)\s*+(?P<high>[0-9]{{1,4}}))?(?:\s++|-)"
    rf"(?:short |brief |single |concise )?(?P<unit>{_UNIT})\b(?!\s+(?:each|per|long each|for each))"
)
_MOST = frozenset(
    {"at most", "no more than", "not more than", "up to", "under", "fewer than", "less than", "within"}
) | {
    "maximum of",
    "max",
}
_LEAST = frozenset({"at least", "no fewer than", "not less than", "more than", "over", "minimum of"})
_ABOUT = frozenset({"about", "around", "roughly", "approximately"})
# A length without "exactly" may be missed by this share, one with "about" by the second.
_TOLERANCE, _ABOUT_TOLERANCE = 0.1, 0.25

_FORMATS = (
    (Format.JSON, regex.compile(r"\b(?:as|in|with|return|output|valid|only|a|using)\s+(?:a\s+|an\s+|valid\s+)*json\b")),
    (
        Format.TABLE,
        regex.compile(r"\b(?:as|in|into|with|using|make|create|draw|build|give me)\s+an?\s+(?:\w+\s+)?table\b"),
    ),
    (Format.BULLETS, regex.compile(r"\bbullet(?:ed|s|-point| points?| list)?\b")),
    (Format.NUMBERED, regex.compile(r"\b(?:numbered|ordered)\s+(?:list|steps|points)\b")),
    (
        Format.CODE,
        regex.compile(
            r"\bcode block\b|\b(?:write|implement|give me|show|create|provide)\s+(?:\w+\s+){0,4}?"
            r"(?:function|script|program|class|code|query|snippet)\b"
        ),
    ),
)
_PARTS = regex.compile(
    r"\b(?:includ(?:e|ing)|cover(?:ing)?|mention(?:ing)?|address(?:ing)?|discuss(?:ing)?|compar(?:e|ing)|"
    r"sections? (?:on|for|about)|differences? between|with respect to|in terms of|explain both)\s++"
    r"(?P<parts>[^.?!:\n;]{3,200})"
)
_PART_BREAK = regex.compile(r",\s*(?:and|or|as well as)?\s+|\s+(?:and|or|as well as|versus|vs\.?|with)\s+")
_QUESTION = regex.compile(r"[^.!?\n\u3002\uff01\uff1f]{3,400}[?\uff1f]")


def _number(text: str) -> int:
    return int(text) if text.isdigit() else _NUMBER_WORDS[text]


def _length(match: regex.Match[str]) -> Length:
    unit = Unit(match["unit"].removesuffix("s"))
    low = _number(match["low"])
    bound = match["bound"] or ""
    if match["high"]:
        return Length(unit, low * (1 - _TOLERANCE), int(match["high"]) * (1 + _TOLERANCE))
    if bound in _MOST:
        return Length(unit, 1, low)
    if bound in _LEAST:
        return Length(unit, low, float("inf"))
    counted_off = unit in {Unit.SENTENCES, Unit.PARAGRAPHS} or bound in {"exactly", "precisely"}
    share = _ABOUT_TOLERANCE if bound in _ABOUT else 0.0 if counted_off else _TOLERANCE
    return Length(unit, low * (1 - share), low * (1 + share))


def _terms(text: str) -> frozenset[str]:
    return frozenset(count_terms(Text(text)))


def _parts(text: str) -> list[frozenset[str]]:
    found: list[frozenset[str]] = []
    for match in _PARTS.finditer(text):
        pieces = _PART_BREAK.split(match["parts"])
        # One thing alone is what the prompt is about; several are parts.
        if len(pieces) > 1:
            found.extend(filter(None, map(_terms, pieces)))
    return found[:_PARTS_MAX]


@lru_cache(maxsize=_PROMPTS_KEPT)
def _find_asks(prompt: str) -> Asks:
    text = prompt.casefold()
    formats = [found for found, pattern in _FORMATS if pattern.search(text)]
    lengths = [] if Format.CODE in formats else [_length(match) for match in _LENGTH.finditer(text)]
    items = [_number(match["count"]) for match in _ITEMS.finditer(text)]
    questions = [_terms(match[0]) for match in _QUESTION.finditer(text)]
    return Asks(
        items=tuple(count for count in items if 1 < count <= _COUNT_MAX),
        lengths=tuple(lengths),
        formats=tuple(formats),
        parts=tuple(_parts(text)),
        questions=tuple(filter(None, questions))[:_QUESTIONS_MAX],
    )


def find_asks(prompt: str) -> Asks:
    """What `prompt` asks for; of a long one only its beginning and its end are read."""
    if len(prompt) > 2 * _PROMPT_CHARACTERS:
        prompt = f"{prompt[:_PROMPT_CHARACTERS]}\n{prompt[-_PROMPT_CHARACTERS:]}"
    # Runs of white space would make the patterns slow, and mean nothing here.
    return _find_asks("\n".join(filter(None, (" ".join(line.split()) for line in prompt.split("\n")))))
