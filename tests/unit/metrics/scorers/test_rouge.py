"""ROUGE: values counted by hand, and agreement with rouge-score on generated texts."""

from __future__ import annotations

import random

import pytest

from services.metrics.declarations import Absent, NoParameters, Scorer, Subject
from services.metrics.scorers.rouge import ROUGE, ROUGE_STEMMED

TYPES = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
WORDS = "The cats cat running, ran. houses\nhouse on\n mat-like 3.5 it's quickly quick agreed caresses É 10,000".split(
    " "
)


def figures(scorer: Scorer, answer: str, *references: str) -> list[float]:
    values = scorer.function(Subject(answer, references=references), NoParameters())
    assert all(isinstance(value, float) for value in values)
    return [value for value in values if isinstance(value, float)]


def test_by_hand() -> None:
    """Five of six words and three of five pairs are shared; the longest common subsequence has five words."""
    answer, reference = "the cat sat on the mat", "the cat lay on the mat"
    assert figures(ROUGE, answer, reference) == pytest.approx([5 / 6, 3 / 5, 5 / 6, 5 / 6])


def test_lines_are_the_sentences_of_lsum() -> None:
    answer, reference = "one two\nthree four", "three four\none two"
    assert figures(ROUGE, answer, reference) == pytest.approx([1.0, 2 / 3, 0.5, 1.0])


def test_the_best_reference_counts() -> None:
    assert figures(ROUGE, "a b", "c d", "a b", "a") == [1.0] * 4


def test_stemming_is_a_scorer_of_its_own() -> None:
    assert figures(ROUGE, "running houses", "runs house")[0] == 0.0
    assert figures(ROUGE_STEMMED, "running houses", "runs house")[0] == 1.0


@pytest.mark.parametrize(("scorer", "use_stemmer"), [(ROUGE, False), (ROUGE_STEMMED, True)])
def test_equals_rouge_score(scorer: Scorer, use_stemmer: bool) -> None:
    from rouge_score.rouge_scorer import RougeScorer  # takes seconds, and every test process collects all tests

    library = RougeScorer(TYPES, use_stemmer=use_stemmer)
    source = random.Random(7)
    for _ in range(1_000):
        answer, *references = (
            " ".join(source.choices(WORDS, k=source.randrange(1, 12))) for _ in range(source.randrange(2, 4))
        )
        if not any(any(char.isascii() and char.isalnum() for char in reference) for reference in references):
            continue
        theirs = library.score_multi(references, answer)
        assert figures(scorer, answer, *references) == [theirs[name].fmeasure for name in TYPES]


@pytest.mark.parametrize(
    ("references", "answer", "reason"),
    [
        ((), "x", "no reference"),
        (("\u6771\u4eac", "\u2026"), "x", "a-z"),
        (("x",), "x" * 200_001, "characters"),
        (("x " * 2_000,), "x " * 2_000, "pairs"),
        (("x" + "\n." * 2_000,), "\n" * 2_000, "pairs"),
    ],
)
def test_absent(references: tuple[str, ...], answer: str, reason: str) -> None:
    values = ROUGE.function(Subject(answer, references=references), NoParameters())
    assert len(values) == 4
    for value in values:
        assert isinstance(value, Absent)
        assert reason in value.reason


def test_a_word_without_end_is_not_stemmed() -> None:
    word = "y" * 50_000
    assert figures(ROUGE_STEMMED, word, word)[0] == 1.0
