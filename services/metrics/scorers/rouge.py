"""ROUGE: overlap with references as summarisation measures it, by rouge-score."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from services.metrics.declarations import Absent, NoParameters, Scorer, Subject, Value, unit
from services.metrics.scorers.matching import NO_REFERENCE

# The longest common subsequence is a table in Python, made twice: about 0.7 microseconds a cell.
_TABLE_CELLS_MAX = 2_000_000
_CHARACTERS_MAX = 200_000
# Longer tokens are no English words; the Porter stemmer isn't linear in a word's length.
_STEM_LENGTH_MAX = 64
_STEMS_KEPT = 65_536

_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")

NO_LATIN_REFERENCE = Absent("ROUGE reads only the letters a-z and digits, and no reference has any")
TOO_LONG = Absent(
    f"ROUGE takes at most {_CHARACTERS_MAX:,} characters, and {_TABLE_CELLS_MAX:,} pairs of a word of the answer and "
    "one of the references; score a part of them"
)


class _Stemmer:
    """NLTK's Porter stemmer, which rouge-score is defined by, with a memory."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        self.stem = lru_cache(maxsize=_STEMS_KEPT)(self._stem)
        self._porter = PorterStemmer()

    def _stem(self, word: str) -> str:
        return str(self._porter.stem(word)) if len(word) <= _STEM_LENGTH_MAX else word


class _Tokenizer:
    """rouge-score's own rule: lower case, runs of a-z and 0-9, stemmed from four letters on."""

    def __init__(self, *, stemmed: bool) -> None:
        self._stemmer = _Stemmer() if stemmed else None

    def tokenize(self, text: str) -> list[str]:
        """The tokens of `text`."""
        from rouge_score.tokenize import tokenize

        tokens: list[str] = tokenize(text, self._stemmer)
        return tokens


@lru_cache(maxsize=2)
def _rouge_scorer(*, stemmed: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(_TYPES, tokenizer=_Tokenizer(stemmed=stemmed))


def _units(text: str, tokens: Sequence[str]) -> int:
    """What one side of the table has: a row for each token, and at least one for each line."""
    return len(tokens) + text.count("\n") + 1


def _undefined(subject: Subject) -> Absent | None:
    if not subject.references:
        return NO_REFERENCE
    answer, references = subject.answer.raw, subject.references
    if len(answer) + sum(map(len, references)) > _CHARACTERS_MAX:
        return TOO_LONG
    split = _Tokenizer(stemmed=False).tokenize
    tokens = [split(reference) for reference in references]
    if not any(tokens):
        return NO_LATIN_REFERENCE
    columns = sum(map(_units, references, tokens))
    return TOO_LONG if _units(answer, split(answer)) * columns > _TABLE_CELLS_MAX else None


def _rouge(subject: Subject, *, stemmed: bool) -> Sequence[Value]:
    if undefined := subject.once(_undefined):
        return (undefined,) * len(_TYPES)
    figures = _rouge_scorer(stemmed=stemmed).score_multi(subject.references, subject.answer.raw)
    return tuple(float(figures[name].fmeasure) for name in _TYPES)


def _plain(subject: Subject, _: NoParameters) -> Sequence[Value]:
    return _rouge(subject, stemmed=False)


def _stemmed(subject: Subject, _: NoParameters) -> Sequence[Value]:
    return _rouge(subject, stemmed=True)


_CITATION = "C.-Y. Lin 2004; rouge-score 0.1.2 of Google Research. The best reference of each score counts."
_SCORES = (
    unit("ROUGE-1: F1 of the words.", "rouge_1"),
    unit("ROUGE-2: F1 of pairs of neighbouring words.", "rouge_2"),
    unit("ROUGE-L: F1 of the longest common subsequence of words.", "rouge_l"),
    unit("ROUGE-Lsum: F1 of the union of longest common subsequences, a sentence being a line.", "rouge_lsum_lines"),
)

ROUGE = Scorer(
    name="rouge",
    version="1",
    description="How many words, in which order, the answer shares with the references; words as they are written.",
    citation=_CITATION,
    scores=_SCORES,
    function=_plain,
    needs_reference=True,
)

ROUGE_STEMMED = Scorer(
    name="rouge_stemmed",
    version="1",
    description="ROUGE of stems: words without their English endings (Porter's stemmer as NLTK extends it).",
    citation=_CITATION,
    scores=_SCORES,
    function=_stemmed,
    needs_reference=True,
)
