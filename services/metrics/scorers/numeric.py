"""Whether the number in the answer is the right one."""

from collections.abc import Sequence
from typing import Literal

import regex
from pydantic import Field

from services.metrics.declarations import Absent, Parameters, Scorer, Subject, Value, binary
from services.metrics.scorers.matching import NO_REFERENCE

NO_NUMBER_EXPECTED = Absent("no reference has a number")

# Digits with or without separated thousands, decimals and exponent. Digits that continue a word ("GPT4") or a dotted
# one ("v1.2.3") are no number. The quantifiers never give anything back, so that the search is linear.
_NUMBER = regex.compile(
    r"(?<![\p{L}\p{N}_.])"
    r"[-+\u2212]?+"
    r"(?:[0-9]{1,3}+(?:,[0-9]{3}(?![0-9]))++|[0-9]++)?+"
    r"(?:(?<=[0-9])(?:\.[0-9]++)?+|\.[0-9]++)"
    r"(?:[eE][-+]?+[0-9]{1,4}+(?![\p{L}\p{N}]))?+"
    r"(?!\.[0-9])"
)
_MINUS_SIGN = "\u2212"


def numbers_in(text: str) -> list[float]:
    """The numbers written in `text` with ASCII digits, in order; a comma separates thousands, a point decimals."""
    return [float(match.replace(",", "").replace(_MINUS_SIGN, "-")) for match in _NUMBER.findall(text)]


def numbers_of_answer(subject: Subject) -> list[float]:
    """The numbers in the answer."""
    return numbers_in(subject.answer.raw)


class NumericParameters(Parameters):
    """Which number, and how close."""

    pick: Literal["last", "first", "any"] = Field(
        default="last",
        description='Which number of the answer counts: the "last" (where reasoning ends), the "first", or "any".',
    )
    relative_tolerance: float = Field(
        default=1e-6, ge=0.0, le=1.0, description="How far off it may be, as a share of the reference's number."
    )
    absolute_tolerance: float = Field(
        default=0.0, ge=0.0, le=1e300, description="How far off it may be at least, in its own unit."
    )


def _numeric(subject: Subject, parameters: NumericParameters) -> Sequence[Value]:
    if not subject.references:
        return (NO_REFERENCE,)
    expected = [numbers[-1] for reference in subject.references if (numbers := numbers_in(reference))]
    if not expected:
        return (NO_NUMBER_EXPECTED,)
    found = subject.once(numbers_of_answer)
    chosen = {"last": found[-1:], "first": found[:1], "any": found}[parameters.pick]
    relative, absolute = parameters.relative_tolerance, parameters.absolute_tolerance
    return (
        float(
            any(abs(a - number) <= max(absolute, relative * abs(number)) for number in set(expected) for a in chosen)
        ),
    )


NUMERIC = Scorer(
    name="numeric",
    version="1",
    description="Whether the answer's number equals that of a reference, within a tolerance.",
    citation="Our own definition, after the last-number rule of GSM8K (K. Cobbe et al. 2021).",
    scores=(binary("1 where the number is right, 0 where it is wrong or there is none."),),
    function=_numeric,
    parameters=NumericParameters,
    needs_reference=True,
)
