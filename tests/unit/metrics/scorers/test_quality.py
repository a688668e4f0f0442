from collections.abc import Mapping

import pytest
from pydantic import ValidationError

from services.metrics.declarations import Absent, Subject, Value
from services.metrics.scorers.quality import QUALITY, QualityParameters

PROMPT = "Why do volcanoes erupt?"
GOOD = (
    "Volcanoes erupt when pressure builds up in the magma below them. Gas that was dissolved in the magma "
    "forms bubbles as it rises. The bubbles push the magma out through cracks in the rock. Thin magma lets the "
    "gas escape and flows as lava. Thick magma traps it until the volcano explodes, throwing ash and stones "
    "high into the sky."
)


def quality(
    answer: str,
    finish_reason: str = "STOP",
    references: tuple[str, ...] = (),
    weights: Mapping[str, float] | None = None,
) -> list[Value]:
    subject = Subject(answer, prompt=PROMPT, references=references, finish_reason=finish_reason)
    return list(QUALITY.function(subject, QualityParameters.model_validate(dict(weights or {}))))


def figure(
    answer: str,
    finish_reason: str = "STOP",
    references: tuple[str, ...] = (),
    weights: Mapping[str, float] | None = None,
) -> float:
    value = quality(answer, finish_reason, references, weights)[0]
    assert isinstance(value, float)
    return value


NOTHING = dict.fromkeys(QualityParameters.model_fields, 0.0)


def test_worse_answers_score_lower() -> None:
    good = figure(GOOD)
    assert good > figure("My bicycle has two wheels and a bell. " * 10)
    assert good > figure(GOOD, finish_reason="LENGTH")
    assert good > figure(GOOD + " Magma is hot." * 60)
    assert good > figure("I'm sorry, but I can't help with volcanoes. Volcanoes erupt because of magma.")
    assert good > figure("Phenomenological volcanological considerations " * 12)


def test_a_reference_counts_most() -> None:
    right = figure(GOOD, references=(GOOD,))
    wrong = figure(GOOD, references=("No idea at all",))
    assert right - wrong > 0.4


def test_absent_components_are_left_out_and_not_zero() -> None:
    with_reason, coverage = quality(GOOD)
    without_reason, less_coverage = quality(GOOD, finish_reason="")
    assert isinstance(with_reason, float)
    assert isinstance(without_reason, float)
    # The weights sum to 1.55, of which structure has 0.05; the finished answer had 1 for a weight of 0.15.
    assert coverage == pytest.approx(1.50 / 1.55)
    assert less_coverage == pytest.approx(1.35 / 1.55)
    assert with_reason == pytest.approx((without_reason * 1.35 + 0.15) / 1.50)


def test_too_little_known_is_absent() -> None:
    value, coverage = quality("")
    assert isinstance(value, Absent)
    # Only being finished and completeness are known.
    assert coverage == pytest.approx(0.40 / 1.55)


@pytest.mark.parametrize(
    "name",
    [
        "relevance",
        "completeness",
        "answered",
        "coherence",
        "repetition",
        "finished",
        "readability",
        "lexical_diversity",
    ],
)
def test_each_component_is_between_0_and_1(name: str) -> None:
    assert 0.0 <= figure(GOOD, weights={**NOTHING, name: 2.0}) <= 1.0


def test_all_weights_zero_is_absent() -> None:
    assert all(isinstance(value, Absent) for value in quality(GOOD, weights=NOTHING))


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf"), 1_001.0, "1"])
def test_weights_are_checked(weight: object) -> None:
    with pytest.raises(ValidationError, match="relevance"):
        QualityParameters.model_validate({"relevance": weight})
