import random
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.declarations import Absent, NoParameters, Subject
from services.metrics.scorers.lexical_diversity import LEXICAL_DIVERSITY, hdd, mtld, mtld_factors
from services.metrics.text import Text

WORD_LISTS = st.lists(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), max_size=300)


def factors_by_definition(words: list[str]) -> float:
    """McCarthy and Jarvis 2010, word by word."""
    factors, start = 0.0, 0
    for end in range(1, len(words) + 1):
        stretch = words[start:end]
        if len(set(stretch)) / len(stretch) < 0.72:
            factors, start = factors + 1, end
    rest = words[start:]
    return factors + ((1 - len(set(rest)) / len(rest)) / (1 - 0.72) if rest else 0.0)


@given(WORD_LISTS)
def test_factors_are_those_of_the_definition(words: list[str]) -> None:
    assert mtld_factors(words) == pytest.approx(factors_by_definition(words))


@given(st.lists(st.sampled_from("abcdefgh"), min_size=50, max_size=300))
def test_mtld_is_the_mean_of_both_directions(words: list[str]) -> None:
    forward, backward = factors_by_definition(words), factors_by_definition(words[::-1])
    assert mtld(words) == pytest.approx((len(words) / forward + len(words) / backward) / 2)


def test_mtld_of_a_text_that_falls_in_equal_stretches() -> None:
    # "a b a b ...": the ratio falls below 0.72 at the third word, so that 60 words hold 20 factors.
    assert mtld(["a", "b", "a"] * 20) == pytest.approx(3.0)


def test_mtld_is_absent_where_undefined() -> None:
    assert isinstance(mtld(["word"] * 49), Absent)
    assert isinstance(mtld([str(number) for number in range(60)]), Absent)


@given(st.lists(st.sampled_from("abcdefghijkl"), min_size=42, max_size=200))
def test_hdd_is_the_hypergeometric_expectation(words: list[str]) -> None:
    counts = Text(" ".join(words)).word_counts
    total = len(words)
    expected = sum(1 - comb(total - count, 42) / comb(total, 42) for count in counts.values()) / 42
    assert hdd(counts) == pytest.approx(expected)


def test_hdd_is_absent_below_42_words() -> None:
    assert isinstance(hdd({"a": 20, "b": 21}), Absent)


def test_a_varied_text_scores_above_a_dull_one() -> None:
    generator = random.Random(7)
    varied = " ".join(generator.choices([f"w{n}" for n in range(400)], k=200))
    dull = " ".join(generator.choices([f"w{n}" for n in range(20)], k=200))
    of_varied = LEXICAL_DIVERSITY.function(Subject(varied), NoParameters())
    of_dull = LEXICAL_DIVERSITY.function(Subject(dull), NoParameters())
    for high, low in zip(of_varied, of_dull, strict=True):
        assert isinstance(high, float)
        assert isinstance(low, float)
        assert high > low


def test_nothing_is_said_of_no_words() -> None:
    assert all(isinstance(score, Absent) for score in LEXICAL_DIVERSITY.function(Subject("..."), NoParameters()))
