from __future__ import annotations

import pytest

from services.metrics.declarations import Absent, Subject
from services.metrics.registry import ScorerSpec, make_plan
from services.metrics.scorers.expression import EXPRESSION
from services.metrics.scoring import score_subject
from services.runtime.errors import InvalidField

NUMBERS = "[" + ",".join(map(str, range(100))) + "]"


def value(
    expression: str, answer: str = "Paris is big. Yes.", references: tuple[str, ...] = ("Paris", "Rome")
) -> object:
    subject = Subject(answer, prompt="Where?", references=references, finish_reason="STOP")
    (found,) = EXPRESSION.function(subject, EXPRESSION.parameters.model_validate({"expression": expression}))
    return found


@pytest.mark.parametrize(
    ("expression", "number"),
    [
        ("answer.contains('Paris')", 1.0),
        ("references.all(r, answer.contains(r))", 0.0),
        ("references.exists(r, answer.contains(r))", 1.0),
        ("answer.matches('^P[a-z]+ ') && finish_reason == 'STOP'", 1.0),
        ("words <= 5 ? 0.5 : 0.0", 0.5),
        ("words - sentences", 2.0),
        ("uint(3)", 3.0),
        ("prompt.endsWith('?') ? size(answer) : 0", 18.0),
    ],
)
def test_values(expression: str, number: float) -> None:
    assert value(expression) == number


@pytest.mark.parametrize("expression", ["1 / (words - 4)", "int(answer)", "int(references[7])"])
def test_no_value_is_absent(expression: str) -> None:
    assert isinstance(value(expression), Absent)


def test_what_is_no_number_is_absent() -> None:
    scores = score_subject(make_plan([ScorerSpec("expression", {"expression": "0.0 / 0.0"})]), Subject("x"))
    assert scores.values == (None,)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("answer", "bool or a number"),
        ("nope + 1", "undeclared reference to 'nope'"),
        ("answer +", "Syntax error"),
        ("(answer + answer).size()", "no matching overload"),
        ("references.map(r, r).size()", "undeclared reference"),
        ("(" * 500 + "1" + ")" * 500, "recursion"),
        ("1" * 2_001, "2000 characters"),
    ],
)
def test_wrong_expressions_are_refused(expression: str, message: str) -> None:
    with pytest.raises(InvalidField, match=message) as caught:
        make_plan([ScorerSpec("expression", {"expression": expression})])
    assert caught.value.field == "scorers[0].parameters.expression"


@pytest.mark.parametrize(
    ("expression", "answer", "reason"),
    [
        (f"{NUMBERS}.all(x, {NUMBERS}.all(y, {NUMBERS}.all(z, x + y >= z - 100)))", "x", "no value"),
        (f"{NUMBERS}.all(x, {NUMBERS}.all(y, !answer.contains('xyz')))", "x" * 100_000, "too long"),
        ("answer.matches('(x{1,500}){1,2}y')", "x" * 1_000_000, "too long"),
    ],
)
def test_work_is_bounded(expression: str, answer: str, reason: str) -> None:
    found = value(expression, answer)
    assert isinstance(found, Absent)
    assert reason in found.reason


@pytest.mark.parametrize("answer", ["", "\x00", "\U0001f600" * 10_000, "\n" * 100_000])
def test_any_text_is_taken(answer: str) -> None:
    assert value("answer.contains('Paris')", answer) == 0.0
