"""How hard English prose is to read, by the classical formulas."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import regex

from services.metrics.declarations import (
    Absent,
    Direction,
    NoParameters,
    Scale,
    ScoreDeclaration,
    Scorer,
    Subject,
    Value,
)
from services.metrics.syllables import count_syllables

_POLYSYLLABLE_MIN = 3
# SMOG was fitted on 30 sentences and is customarily refused for fewer than three.
_SMOG_SENTENCES_MIN = 3

_LATIN = regex.compile(r"\p{Latin}")

NO_WORDS = Absent("the answer has no words")
NOT_LATIN = Absent("the formulas are for English, and most words of the answer are not in Latin script")
TOO_SHORT_FOR_SMOG = Absent(f"SMOG needs at least {_SMOG_SENTENCES_MIN} sentences")


@dataclass(frozen=True, slots=True)
class ProseCounts:
    """What the formulas are made of."""

    words: int
    sentences: int
    syllables: int
    polysyllables: int
    """Words of three syllables or more."""


def flesch_reading_ease(counts: ProseCounts) -> float:
    """R. Flesch, "A new readability yardstick", Journal of Applied Psychology 32 (1948): 0 is hard, 100 easy."""
    return 206.835 - 1.015 * (counts.words / counts.sentences) - 84.6 * (counts.syllables / counts.words)


def flesch_kincaid_grade(counts: ProseCounts) -> float:
    """J. P. Kincaid et al., Research Branch Report 8-75 (1975): years of United States schooling needed."""
    return 0.39 * (counts.words / counts.sentences) + 11.8 * (counts.syllables / counts.words) - 15.59


def smog_grade(counts: ProseCounts) -> float:
    """G. H. McLaughlin, "SMOG grading", Journal of Reading 12 (1969): years of schooling needed."""
    return 1.043 * math.sqrt(30.0 * counts.polysyllables / counts.sentences) + 3.1291


def _latin_share(words: Sequence[str]) -> float:
    latin = sum(1 for word in words if word.isascii() or _LATIN.search(word))
    return latin / len(words)


def prose_counts(subject: Subject) -> ProseCounts | Absent:
    """Counts the answer's words, sentences and syllables; absent where the formulas say nothing about it."""
    words = subject.answer.words
    if not words:
        return NO_WORDS
    if not subject.answer.raw.isascii() and _latin_share(words) < 0.5:
        return NOT_LATIN
    syllables = count_syllables(words)
    return ProseCounts(
        words=len(words),
        sentences=len(subject.answer.sentences),
        syllables=sum(syllables),
        polysyllables=len(syllables) - sum(map(syllables.count, range(1, _POLYSYLLABLE_MIN))),
    )


def _readability(subject: Subject, _: NoParameters) -> Sequence[Value]:
    counts = subject.once(prose_counts)
    if isinstance(counts, Absent):
        return (counts, counts, counts)
    smog = smog_grade(counts) if counts.sentences >= _SMOG_SENTENCES_MIN else TOO_SHORT_FOR_SMOG
    return (flesch_reading_ease(counts), flesch_kincaid_grade(counts), smog)


READABILITY = Scorer(
    name="readability",
    version="1",
    description="How hard the answer is to read, as English prose.",
    citation="Flesch 1948; Kincaid et al. 1975; McLaughlin 1969. Syllables by rule: services/metrics/syllables.py.",
    scores=(
        ScoreDeclaration(
            "flesch_reading_ease",
            Scale.REAL,
            Direction.HIGHER_IS_BETTER,
            "Flesch reading ease: 90 is very easy, 60 plain, 30 hard; at most 121.22.",
            maximum=121.22,
        ),
        ScoreDeclaration(
            "flesch_kincaid_grade",
            Scale.REAL,
            Direction.LOWER_IS_BETTER,
            "Flesch-Kincaid grade: years of United States schooling; at least -3.4.",
            minimum=-3.4,
        ),
        ScoreDeclaration(
            "smog_grade",
            Scale.REAL,
            Direction.LOWER_IS_BETTER,
            "SMOG grade: years of schooling; absent below three sentences.",
            minimum=3.1291,
        ),
    ),
    function=_readability,
    in_default_set=True,
)
