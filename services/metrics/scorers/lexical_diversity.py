"""How varied the answer's words are."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from services.metrics.declarations import (
    Absent,
    Direction,
    NoParameters,
    Scale,
    ScoreDeclaration,
    Scorer,
    Subject,
    Value,
    unit,
)
from services.metrics.scorers.ngrams import distinct_pairs, distinct_words

# The threshold 0.72 in whole numbers, so that no rounding decides where a factor ends.
_MTLD_THRESHOLD_PERCENT = 72
_MTLD_REPEATED_PERCENT = 100 - _MTLD_THRESHOLD_PERCENT
# McCarthy and Jarvis advise against MTLD on shorter texts.
_MTLD_WORDS_MIN = 50
_HDD_DRAWS = 42
# Texts of the same length share their chances; of words that occur more often they are found anew.
_HDD_LENGTHS_KEPT = 1_024
_HDD_OCCURRENCES_KEPT = 64

NO_WORDS = Absent("the answer has no words")
NO_PAIRS = Absent("the answer has fewer than two words")
TOO_SHORT_FOR_MTLD = Absent(f"MTLD needs at least {_MTLD_WORDS_MIN} words")
NO_REPETITION = Absent("MTLD is undefined: no word comes back")
TOO_SHORT_FOR_HDD = Absent(f"HD-D needs at least {_HDD_DRAWS} words")


def mtld_factors(words: Iterable[str]) -> float:
    """How many stretches, the last one in part, it takes until the type-token ratio falls below 0.72; one direction."""
    factors = 0.0
    seen: set[str] = set()
    start = end = repeated = 0
    for end, word in enumerate(words, start=1):
        if word not in seen:
            seen.add(word)
            continue
        repeated += 1
        if 100 * repeated > _MTLD_REPEATED_PERCENT * (end - start):
            factors += 1.0
            seen.clear()
            start, repeated = end, 0
    if end > start:
        factors += (1.0 - len(seen) / (end - start)) / (1.0 - _MTLD_THRESHOLD_PERCENT / 100)
    return factors


def mtld(words: Sequence[str]) -> Value:
    """Measure of textual lexical diversity, threshold 0.72, the mean of both directions (McCarthy and Jarvis 2010)."""
    if len(words) < _MTLD_WORDS_MIN:
        return TOO_SHORT_FOR_MTLD
    forward, backward = mtld_factors(words), mtld_factors(reversed(words))
    if not forward or not backward:
        return NO_REPETITION
    return (len(words) / forward + len(words) / backward) / 2.0


def _drawn_chances(words: int, occurrences_max: int) -> list[float]:
    """How likely 42 draws from so many words hold a word that occurs 0, 1, 2 ... times among them.

    A word that occurs f times among N is missed by all draws with probability C(N - f, 42) / C(N, 42), built up here
    factor by factor over f.
    """
    chances = [0.0]
    missed = 1.0
    for occurrences in range(occurrences_max):
        missed *= max(0, words - _HDD_DRAWS - occurrences) / (words - occurrences)
        chances.append(1.0 - missed)
    return chances


@lru_cache(maxsize=_HDD_LENGTHS_KEPT)
def _kept_chances(words: int) -> list[float]:
    return _drawn_chances(words, min(words, _HDD_OCCURRENCES_KEPT))


def hdd(word_counts: Mapping[str, int]) -> Value:
    """HD-D: the type-token ratio to expect in 42 words drawn without replacement (McCarthy and Jarvis 2007)."""
    counts = word_counts.values()
    words = sum(counts)
    if words < _HDD_DRAWS:
        return TOO_SHORT_FOR_HDD
    most = max(counts)
    chances = _kept_chances(words) if most <= _HDD_OCCURRENCES_KEPT else _drawn_chances(words, most)
    return math.fsum(map(chances.__getitem__, counts)) / _HDD_DRAWS


def answer_mtld(subject: Subject) -> Value:
    """MTLD of the answer."""
    return mtld(subject.answer.words)


def _lexical_diversity(subject: Subject, _: NoParameters) -> Sequence[Value]:
    words, pairs = subject.once(distinct_words), subject.once(distinct_pairs)
    return (
        NO_WORDS if words is None else words,
        NO_PAIRS if pairs is None else pairs,
        subject.once(answer_mtld),
        hdd(subject.answer.word_counts),
    )


LEXICAL_DIVERSITY = Scorer(
    name="lexical_diversity",
    version="1",
    description="How varied the answer's words are.",
    citation="P. M. McCarthy, S. Jarvis, Behavior Research Methods 42 (2010) and Language Testing 24 (2007); "
    "J. Li et al. 2016 for distinct-n.",
    scores=(
        unit("Different words over words. Falls with length: compare answers of similar length.", "distinct_1"),
        unit("Different pairs of neighbouring words over pairs.", "distinct_2"),
        ScoreDeclaration(
            "mtld",
            Scale.REAL,
            Direction.HIGHER_IS_BETTER,
            "MTLD (threshold 0.72, both directions): mean length in words of stretches that stay varied. Absent below "
            "50 words.",
            minimum=1.0,
        ),
        unit("HD-D: expected share of different words in 42 drawn ones. Absent below 42 words.", "hdd"),
    ),
    function=_lexical_diversity,
    in_default_set=True,
)
