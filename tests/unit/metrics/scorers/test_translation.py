"""BLEU, chrF and TER: published values, and agreement with sacrebleu on generated texts."""

from __future__ import annotations

import random

import pytest
from sacrebleu.metrics.bleu import BLEU as SACREBLEU
from sacrebleu.metrics.chrf import CHRF as SACRECHRF
from sacrebleu.metrics.ter import TER as SACRETER

from services.metrics.declarations import Absent, Parameters, Scorer, Subject
from services.metrics.registry import ScorerSpec, make_plan
from services.metrics.scorers.translation import BLEU, CHRF, TER

WORDS = "the a cat dog sat, ran. on mat 3.5 it's over (quick) fox -- jumps É lazy 10,000 \u4e2d\u6587 don't END".split()


def figure(scorer: Scorer, answer: str, *references: str, **parameters: object) -> float:
    checked: Parameters = scorer.parameters.model_validate(parameters)
    (value,) = scorer.function(Subject(answer, references=references), checked)
    assert isinstance(value, float)
    return value


def pairs(count: int, longest: int) -> list[tuple[str, list[str]]]:
    source = random.Random(5)

    def text() -> str:
        return " ".join(source.choices(WORDS, k=source.randrange(1, longest)))

    return [(text(), [text() for _ in range(source.randrange(1, 4))]) for _ in range(count)]


@pytest.mark.parametrize(
    ("answer", "reference", "published"),
    [
        ("aaaa bbbb cccc dddd", "aaaa bbbb cccc dddd", 0.0),
        ("dddd eeee ffff", "aaaa bbbb cccc", 100.0),
        ("", "a", 100.0),
        ("d e f g h a b c", "a b c d e f g h", 12.5),
    ],
)
def test_published_values_of_ter(answer: str, reference: str, published: float) -> None:
    """From test/test_ter.py of sacrebleu."""
    assert figure(TER, answer, reference) == pytest.approx(published)


@pytest.mark.parametrize(
    ("answer", "reference", "published"),
    [
        ("a", "a", 100.0),
        ("", "reference", 0.0),
        ("a b c", "abc", 100.0),
        ("aa", "ab", 25.0),
        ("abcdefg", "hijklmnop", 0.0),
    ],
)
def test_published_values_of_chrf(answer: str, reference: str, published: float) -> None:
    """From test/test_chrf.py of sacrebleu (effective order, beta 3)."""
    assert figure(CHRF, answer, reference, beta=3) == pytest.approx(published)


def test_bleu_by_hand() -> None:
    """Papineni et al. 2002: geometric mean of the precisions times the brevity penalty."""
    # Precisions 3/4, 2/3, 1/2 and, smoothed exponentially, 1/2 of 1; lengths 4 and 4.
    expected = 100 * (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25
    assert figure(BLEU, "the cat sat down", "the cat sat there") == pytest.approx(expected)
    assert figure(BLEU, "the cat sat", "the cat sat") == pytest.approx(100.0)


def test_equals_sacrebleu() -> None:
    bleu, chrf, ter = SACREBLEU(effective_order=True), SACRECHRF(), SACRETER()
    for answer, references in [*pairs(2_000, 12), *pairs(100, 40)]:
        assert figure(BLEU, answer, *references) == bleu.sentence_score(answer, references).score
        assert figure(CHRF, answer, *references) == chrf.sentence_score(answer, references).score
    for answer, references in pairs(2_000, 7):
        assert figure(TER, answer, *references) == ter.sentence_score(answer, references).score


@pytest.mark.parametrize(
    ("name", "parameters", "metric"),
    [
        ("bleu", {}, SACREBLEU(effective_order=True)),
        ("bleu", {"tokenize": "intl", "lowercase": True}, SACREBLEU(True, tokenize="intl", effective_order=True)),
        ("chrf", {}, SACRECHRF()),
        ("chrf", {"word_order": 2, "lowercase": True}, SACRECHRF(word_order=2, lowercase=True)),
        ("ter", {}, SACRETER()),
        ("ter", {"normalized": True, "no_punct": True, "case_sensitive": True}, SACRETER(True, True, False, True)),
    ],
)
def test_signature_is_sacrebleus(name: str, parameters: dict[str, object], metric: object) -> None:
    (column,) = make_plan([ScorerSpec(name, parameters)]).columns
    metric.sentence_score("a", ["a"])  # type: ignore[attr-defined]
    theirs = str(metric.get_signature())  # type: ignore[attr-defined]
    assert column.signature.split("|")[1:] == theirs.split("|")[1:]


@pytest.mark.parametrize("scorer", [BLEU, CHRF, TER])
@pytest.mark.parametrize(
    ("references", "answer", "reason"),
    [
        ((), "x", "no reference"),
        (("", " \n"), "x", "blank"),
        (("x",), "x" * 200_001, "characters"),
    ],
)
def test_absent(scorer: Scorer, references: tuple[str, ...], answer: str, reason: str) -> None:
    (value,) = scorer.function(Subject(answer, references=references), scorer.parameters())
    assert isinstance(value, Absent)
    assert reason in value.reason


@pytest.mark.parametrize("parameters", [{}, {"normalized": True}])
def test_ter_of_long_texts_is_absent(parameters: dict[str, bool]) -> None:
    words = " ".join("abcdefghij" * 11)
    (value,) = TER.function(Subject(words, references=[words]), TER.parameters.model_validate(parameters))
    assert isinstance(value, Absent)
    assert "10,000" in value.reason
