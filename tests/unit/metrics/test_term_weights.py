import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.term_weights import cosine, count_terms, term_vector
from services.metrics.text import Text

COUNTS = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(1, 5), min_size=1)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("The cats and the cat", {"cat": 2}),
        ("running runs run", {"run": 3}),
        ("state-of-the-art", {"state": 1, "art": 1}),
        ("it is what it is", {}),
        ("low-cost cats", {"low": 1, "cost": 1, "cat": 1}),
        ("\u6771\u4eac\u90fd x \u4eac", {"\u6771\u4eac": 1, "\u4eac\u90fd": 1, "x": 1}),
    ],
)
def test_terms(text: str, terms: dict[str, int]) -> None:
    assert count_terms(Text(text)) == terms


@given(COUNTS, COUNTS)
def test_cosine_is_symmetric_and_bounded(left: dict[str, int], right: dict[str, int]) -> None:
    similarity = cosine(term_vector(left), right)
    assert similarity == cosine(term_vector(right), left)
    assert 0.0 <= similarity <= 1.0
    assert cosine(term_vector(left), left) == pytest.approx(1.0)
    assert (similarity == 0.0) == (not left.keys() & right.keys())


def test_rare_words_count_more_than_common_ones() -> None:
    prompt = term_vector({"volcano": 1, "time": 1})
    assert cosine(prompt, {"volcano": 1}) > cosine(prompt, {"time": 1})


def test_an_empty_text_has_no_direction() -> None:
    with pytest.raises(ValueError, match="no direction"):
        cosine(term_vector({}), {"a": 1})
