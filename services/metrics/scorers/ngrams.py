"""Runs of n words: how many there are, and how many different ones."""

from services.metrics.declarations import Subject


def distinct_share(words: list[str], n: int) -> float | None:
    """Different runs of `n` words over all runs of `n` words; None where there is no run."""
    total = len(words) - n + 1
    if total < 1:
        return None
    return len(set(zip(*(words[offset:] for offset in range(n)), strict=False))) / total


def distinct_words(subject: Subject) -> float | None:
    """The answer's share of distinct words (the type-token ratio)."""
    answer = subject.answer
    return len(answer.word_counts) / len(answer.words) if answer.words else None


def distinct_pairs(subject: Subject) -> float | None:
    """The answer's share of distinct pairs of words."""
    return distinct_share(subject.answer.words, 2)


def distinct_triples(subject: Subject) -> float | None:
    """The answer's share of distinct runs of three words."""
    return distinct_share(subject.answer.words, 3)


def distinct_quadruples(subject: Subject) -> float | None:
    """The answer's share of distinct runs of four words."""
    if len(subject.answer.words) > 3 and subject.once(distinct_triples) == 1.0:
        return 1.0  # Runs of four can't come back where no run of three does.
    return distinct_share(subject.answer.words, 4)
