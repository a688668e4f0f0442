from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.metrics.declarations import Absent, NoParameters, Scorer, Subject, Value
from services.metrics.scorers.matching import (
    CONTAINS,
    EXACT_MATCH,
    REGEX,
    TOKEN_F1,
    ContainsParameters,
    ExactMatchParameters,
    RegexParameters,
    f1_of_tokens,
    normalize_squad,
)


def only(values: Sequence[Value]) -> Value:
    assert len(values) == 1
    return values[0]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Cat!", "cat"),
        ("a  cat, an owl; the dog", "cat owl dog"),
        ("another theme", "another theme"),
        ("don't", "dont"),
        ("", ""),
    ],
)
def test_squad_rule(text: str, normal: str) -> None:
    assert normalize_squad(text) == normal


def test_exact_match_takes_the_best_reference() -> None:
    subject = Subject("The Eiffel Tower.", references=["Louvre", "eiffel tower"])
    assert only(EXACT_MATCH.function(subject, ExactMatchParameters())) == 1.0
    assert only(EXACT_MATCH.function(subject, ExactMatchParameters(normalization="none"))) == 0.0


@pytest.mark.parametrize("scorer", [EXACT_MATCH, TOKEN_F1])
def test_without_reference_is_absent(scorer: Scorer) -> None:
    assert isinstance(only(scorer.function(Subject("x"), scorer.parameters())), Absent)


@pytest.mark.parametrize(
    ("answer", "reference", "f1"),
    [
        # Two of three words shared by two of two: 2 * (2/3 * 1) / (2/3 + 1).
        ("big red cat", "red cat", 0.8),
        ("cat", "dog", 0.0),
        ("the", "a", 1.0),
        ("the", "cat", 0.0),
        ("cat cat", "cat", 2 / 3),
    ],
)
def test_token_f1(answer: str, reference: str, f1: float) -> None:
    assert only(TOKEN_F1.function(Subject(answer, references=[reference]), NoParameters())) == pytest.approx(f1)


@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abc")))
def test_f1_is_symmetric_and_one_only_for_the_same_words(left: list[str], right: list[str]) -> None:
    assert f1_of_tokens(left, right) == f1_of_tokens(right, left)
    assert (f1_of_tokens(left, right) == 1.0) == (sorted(left) == sorted(right))


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({"texts": ["PARIS"]}, 1.0),
        ({"texts": ["PARIS"], "case_sensitive": True}, 0.0),
        ({"texts": ["Rome", "Paris"]}, 1.0),
        ({"texts": ["Rome", "Paris"], "mode": "all"}, 0.0),
        ({}, 1.0),
    ],
)
def test_contains(parameters: dict[str, object], found: float) -> None:
    subject = Subject("It is Paris.", references=["paris"])
    assert only(CONTAINS.function(subject, ContainsParameters.model_validate(parameters))) == found


def test_contains_needs_something_to_find() -> None:
    assert isinstance(only(CONTAINS.function(Subject("x"), ContainsParameters())), Absent)


@pytest.mark.parametrize(
    ("parameters", "answer", "found"),
    [
        ({"pattern": r"\d+"}, "in 1889", 1.0),
        ({"pattern": r"\d+", "mode": "full"}, "in 1889", 0.0),
        ({"pattern": r"\d+", "mode": "full"}, "1889", 1.0),
        ({"pattern": "paris"}, "PARIS", 0.0),
        ({"pattern": "paris", "case_sensitive": False}, "PARIS", 1.0),
        ({"pattern": r"\p{Greek}+"}, "\u03b1\u03b2", 1.0),
        ({"pattern": "^b$"}, "a\nb", 0.0),
        ({"pattern": "(?m)^b$"}, "a\nb", 1.0),
    ],
)
def test_regex(parameters: dict[str, object], answer: str, found: float) -> None:
    assert only(REGEX.function(Subject(answer), RegexParameters.model_validate(parameters))) == found


@pytest.mark.parametrize("pattern", ["(", "(?=look)", r"(a)\1", "x" * 2_001, "", "((a{1000}){1000}){1000}"])
def test_bad_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        RegexParameters(pattern=pattern)


@pytest.mark.timeout(30)  # a backtracking engine would take longer than the universe
def test_pathological_pattern_is_linear() -> None:
    answer = "a" * 200_000
    assert only(REGEX.function(Subject(answer), RegexParameters(pattern="(a+)+$b"))) == 0.0
    assert only(REGEX.function(Subject(answer), RegexParameters(pattern="(a|aa)+c"))) == 0.0


def test_large_automaton_on_long_text_is_absent() -> None:
    value = only(REGEX.function(Subject("ab" * 500_000), RegexParameters(pattern="(a|b)*a(a|b){900}c")))
    assert isinstance(value, Absent)
    assert "too long" in value.reason
