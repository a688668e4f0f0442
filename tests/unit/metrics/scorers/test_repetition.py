import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.declarations import Absent, NoParameters, Subject, Value
from services.metrics.scorers.repetition import REPETITION


def rep(answer: str) -> list[Value]:
    return list(REPETITION.function(Subject(answer), NoParameters()))


def test_no_repetition() -> None:
    assert rep("one two three four five") == [0.0, 0.0, 0.0]


def test_by_hand() -> None:
    # a b a b a: pairs ab ba ab ba, triples aba bab aba, quadruples abab baba.
    assert rep("a b a b a") == [pytest.approx(1 - 2 / 4), pytest.approx(1 - 2 / 3), pytest.approx(0.0)]


def test_too_short() -> None:
    assert [isinstance(value, Absent) for value in rep("only three words")] == [False, False, True]
    assert all(isinstance(value, Absent) for value in rep(""))


@given(st.lists(st.sampled_from("abcd"), max_size=60))
def test_definition(words: list[str]) -> None:
    for n, value in zip((2, 3, 4), rep(" ".join(words)), strict=True):
        grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
        if grams:
            assert value == pytest.approx(1 - len(set(grams)) / len(grams))
        else:
            assert isinstance(value, Absent)
