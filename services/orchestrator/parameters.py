"""The sampling parameters that a grid or a model target may set, with their types and ranges.

They mirror `llmlab.api.gateway.v1.Parameters`; a value that it would refuse is refused here, before anything is spent.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from services.orchestrator.values import Value
from services.runtime.errors import InvalidField

STOP_TEXTS_MAX = 8
STOP_BYTES_MAX = 1024
REASONING_EFFORTS = ("none", "minimal", "low", "medium", "high")
_INT64_MAX = 2**63 - 1


def _number(low: float, high: float) -> Callable[[Value], str]:
    def problem(value: Value) -> str:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"a number from {low:g} to {high:g}"
        return "" if math.isfinite(value) and low <= value <= high else f"from {low:g} to {high:g}"

    return problem


def _integer(low: int, high: int) -> Callable[[Value], str]:
    def problem(value: Value) -> str:
        if isinstance(value, bool) or not isinstance(value, int):
            return "a whole number"
        return "" if low <= value <= high else f"from {low:,} to {high:,}"

    return problem


def _stop(value: Value) -> str:
    texts = value if isinstance(value, tuple) else (value,)
    if len(texts) > STOP_TEXTS_MAX:
        return f"at most {STOP_TEXTS_MAX} texts"
    good = all(isinstance(text, str) and 0 < len(text.encode()) <= STOP_BYTES_MAX for text in texts)
    return "" if good else f"a text of 1 to {STOP_BYTES_MAX} bytes, or a list of such texts"


def _effort(value: Value) -> str:
    return "" if value in REASONING_EFFORTS else f"one of {', '.join(REASONING_EFFORTS)}"


_PROBLEM_OF: dict[str, Callable[[Value], str]] = {
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "max_output_tokens": _integer(1, 1_000_000),
    "seed": _integer(-_INT64_MAX - 1, _INT64_MAX),
    "stop": _stop,
    "frequency_penalty": _number(-2, 2),
    "presence_penalty": _number(-2, 2),
    "reasoning_effort": _effort,
}

PARAMETER_NAMES = tuple(_PROBLEM_OF)


def check_parameter(field: str, name: str, value: Value, *, name_field: str = "") -> None:
    """Raise InvalidField when `name` is no parameter (at `name_field`, else `field`) or `value` is none for it."""
    problem_of = _PROBLEM_OF.get(name)
    if problem_of is None:
        raise InvalidField(
            name_field or field, f"{name!r} is not a parameter; the parameters are {', '.join(PARAMETER_NAMES)}"
        )
    problem = problem_of(value)
    if problem:
        raise InvalidField(field, f"{name} has to be {problem}, not {value!r:.80}")
