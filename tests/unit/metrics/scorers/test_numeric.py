from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.declarations import Absent, Subject
from services.metrics.scorers.numeric import NUMERIC, numbers_in


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("It is 42.", [42.0]),
        ("$1,234,567.89 or 12,34", [1234567.89, 12.0, 34.0]),
        ("-3 to +4, \u22125 and 5-3", [-3.0, 4.0, -5.0, 5.0, 3.0]),
        ("6.02e23, 1E-3, .5, 5e, 7.", [6.02e23, 0.001, 0.5, 5.0, 7.0]),
        ("GPT4 v1.2.3 1.2.3 x_9", []),
        ("5km (80%) \\boxed{18} #### 19", [5.0, 80.0, 18.0, 19.0]),
        ("\u0664\u0665 \u00bd", []),
        ("", []),
    ],
)
def test_numbers_in_text(text: str, numbers: list[float]) -> None:
    assert numbers_in(text) == numbers


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_written_number_is_read(number: float) -> None:
    assert numbers_in(f"so {number!r} it is") == [number]


def right(answer: str, *references: str, **parameters: object) -> object:
    (value,) = NUMERIC.function(Subject(answer, references=references), NUMERIC.parameters.model_validate(parameters))
    return value


@pytest.mark.parametrize(
    ("answer", "references", "parameters", "value"),
    [
        ("3 apples and 4 pears make 7", ("7",), {}, 1.0),
        ("7 is 3 apples and 4 pears", ("7",), {}, 0.0),
        ("7 is 3 apples and 4 pears", ("7",), {"pick": "first"}, 1.0),
        ("3 + 7 is less than 11", ("7",), {"pick": "any"}, 1.0),
        ("3.1416", ("3.14159265",), {}, 0.0),
        ("3.1416", ("3.14159265",), {"relative_tolerance": 1e-4}, 1.0),
        ("0.01", ("0",), {}, 0.0),
        ("0.01", ("0",), {"absolute_tolerance": 0.02}, 1.0),
        ("seven", ("7",), {}, 0.0),
        ("8", ("6", "none", "the answer is 8"), {}, 1.0),
        ("1e999", ("1e999",), {}, 0.0),
        ("1,000", ("1000.0",), {}, 1.0),
    ],
)
def test_right_or_wrong(answer: str, references: tuple[str, ...], parameters: dict[str, object], value: float) -> None:
    assert right(answer, *references, **parameters) == value


@pytest.mark.parametrize(("references", "reason"), [((), "no reference"), (("seven",), "number")])
def test_absent(references: tuple[str, ...], reason: str) -> None:
    value = right("7", *references)
    assert isinstance(value, Absent)
    assert reason in value.reason


@pytest.mark.parametrize(
    "text", ["1" * 300_000, "1," * 200_000, "1,111" * 50_000, "-" * 300_000, "1e" * 100_000, "1." * 100_000]
)
def test_hostile_text_is_read_in_linear_time(text: str) -> None:
    numbers_in(text)
