"""A score that its user writes: an expression in CEL, the Common Expression Language.

CEL has no loops, and what could make it slow or large is bounded: Google's implementation stops after 10,000 iterations
and 32 levels, its regular expressions are RE2's, what lets values grow (joining texts and lists, `map` and `filter`) is
taken out, and texts that are too long for an expression are not given to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from services.metrics.declarations import (
    Absent,
    Direction,
    Parameters,
    Scale,
    ScoreDeclaration,
    Scorer,
    Subject,
    Value,
)

_EXPRESSION_CHARACTERS_MAX = 2_000
_EXPRESSIONS_KEPT = 128
# A step looks at a character once, which takes a nanosecond or less.
_STEPS_MAX = 2_000_000_000
_ITERATIONS_MAX = 10_000
_REFERENCES_MAX = 16
# An instruction of a regular expression for each character of it, and for repetitions many.
_INSTRUCTIONS_PER_CHARACTER = 100
_MACROS = (".all(", ".exists(", ".exists_one(")

_ENVIRONMENT = """
name: scorer
stdlib:
  exclude_macros: [map, filter]
  exclude_functions:
  - name: "_+_"
    overloads: [{id: add_string}, {id: add_bytes}, {id: add_list}]
"""

TOO_MUCH_WORK = Absent("the texts are too long for this expression; shorten one of them")
NO_VALUE = Absent("the expression has no value for this answer: it divides by zero, converts what it can't, or goes on")


@lru_cache(maxsize=1)
def _environment() -> Any:
    from cel_expr_python import cel

    text, number = cel.Type.STRING, cel.Type.INT
    variables = {
        "answer": text,
        "prompt": text,
        "references": cel.Type.List(text),
        "finish_reason": text,
        "words": number,
        "sentences": number,
    }
    return cel.NewEnv(config=cel.NewEnvConfigFromYaml(_ENVIRONMENT), variables=variables)


@lru_cache(maxsize=_EXPRESSIONS_KEPT)
def _compiled(expression: str) -> Any:
    return _environment().compile(expression)


def _checked_expression(expression: str) -> str:
    from cel_expr_python import cel

    try:
        found = _compiled(expression).return_type()
    except RuntimeError as error:
        raise ValueError(str(error).removeprefix("INVALID_ARGUMENT: ").partition("\n")[0]) from None
    if found not in (cel.Type.BOOL, cel.Type.INT, cel.Type.UINT, cel.Type.DOUBLE):
        raise ValueError(f"the expression gives a {found.name()}; it has to give a bool or a number")
    return expression


class ExpressionParameters(Parameters):
    """The expression."""

    expression: Annotated[str, AfterValidator(_checked_expression)] = Field(
        min_length=1,
        max_length=_EXPRESSION_CHARACTERS_MAX,
        description="In CEL, giving a bool (true is 1) or a number. It may use answer, prompt, finish_reason (texts), "
        "references (list of texts), words and sentences (numbers of the answer).",
    )


def _steps(subject: Subject, expression: str) -> int:
    """At most so many characters does the expression look at."""
    operations = len(expression) // 2 + 1
    characters = len(subject.answer.raw) + len(subject.prompt.raw) + sum(map(len, subject.references))
    macros = sum(expression.count(macro) for macro in _MACROS)
    iterations = min(_ITERATIONS_MAX, int(max(operations, _REFERENCES_MAX) ** macros))
    steps = characters * operations * iterations
    if "matches" in expression:
        pattern = max((len(expression), *map(len, subject.references)))
        steps *= pattern * _INSTRUCTIONS_PER_CHARACTER // operations
    return steps


def _expression(subject: Subject, parameters: ExpressionParameters) -> Sequence[Value]:
    expression = parameters.expression
    if _steps(subject, expression) > _STEPS_MAX:
        return (TOO_MUCH_WORK,)
    answer = subject.answer
    data = {
        "answer": answer.raw,
        "prompt": subject.prompt.raw,
        "references": list(subject.references),
        "finish_reason": subject.finish_reason,
        "words": len(answer.words),
        "sentences": len(answer.sentences),
    }
    try:
        value = _compiled(expression).eval(data=data).value()
    except RuntimeError:
        return (NO_VALUE,)
    return (float(value) if isinstance(value, (bool, int, float)) else NO_VALUE,)


EXPRESSION = Scorer(
    name="expression",
    version="1",
    description="A score of your own, as an expression of the answer, its prompt and its references.",
    citation="CEL, https://cel.dev, by Google's cel-expr-python.",
    scores=(
        ScoreDeclaration("", Scale.REAL, Direction.HIGHER_IS_BETTER, "What the expression gives; true is 1, false 0."),
    ),
    function=_expression,
    parameters=ExpressionParameters,
)
