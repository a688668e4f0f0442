from __future__ import annotations

import pytest

from services.metrics.declarations import Absent, Subject
from services.metrics.scorers.fuzzy_match import FUZZY_MATCH


def similarity(answer: str, *references: str, **parameters: object) -> object:
    checked = FUZZY_MATCH.parameters.model_validate(parameters)
    (value,) = FUZZY_MATCH.function(Subject(answer, references=references), checked)
    return value


@pytest.mark.parametrize(
    ("answer", "references", "parameters", "value"),
    [
        ("kitten", ("sitting",), {}, 1 - 5 / 13),  # k, e out; s, i, g in; of 13 letters
        ("The Kitten!", ("kitten",), {}, 1.0),
        ("Kitten", ("kitten",), {"normalization": "none"}, 1 - 2 / 12),
        ("xyz", ("abc", "xyz"), {}, 1.0),
        ("world hello", ("hello world",), {"method": "token_sort"}, 1.0),
        ("hello hello world", ("world hello",), {"method": "token_set"}, 1.0),
        ("", ("abc",), {}, 0.0),
        ("", ("",), {}, 1.0),
    ],
)
def test_similarity(answer: str, references: tuple[str, ...], parameters: dict[str, object], value: float) -> None:
    assert similarity(answer, *references, **parameters) == pytest.approx(value)


@pytest.mark.parametrize(
    ("references", "answer", "reason"), [((), "x", "no reference"), (("x" * 300_000,), "y" * 300_000, "score a part")]
)
def test_absent(references: tuple[str, ...], answer: str, reason: str) -> None:
    value = similarity(answer, *references)
    assert isinstance(value, Absent)
    assert reason in value.reason
