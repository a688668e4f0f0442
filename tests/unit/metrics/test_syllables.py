import pytest

from services.metrics.syllables import count_syllables

# Syllables as Merriam-Webster divides the words. None of them led to a rule.
DICTIONARY = {
    1: "dog house stopped changed gives times smooth bright eighth world school breathe judged texts months",
    2: "window garden tried reason ankle buckle closes wishes needed flavour cancel robot ocean ancient coffee",
    3: "banana together library quality audience principle recipe yesterday musical december elephant gentlemen",
    4: "television caterpillar convenient economic relationship necessary democracy understanding security",
    5: "refrigerator vocabulary anniversary multiplication curiosity",
    6: "responsibility",
}
LABELLED = [(word, count) for count, words in DICTIONARY.items() for word in words.split()]


def test_nine_words_in_ten_are_right() -> None:
    right = sum(count_syllables([word]) == [count] for word, count in LABELLED)
    assert right / len(LABELLED) >= 0.9


def test_no_word_is_off_by_more_than_one() -> None:
    assert all(abs(count_syllables([word])[0] - count) <= 1 for word, count in LABELLED)


@pytest.mark.parametrize(
    ("words", "counts"),
    [("asked wanted called settled", [1, 2, 1, 2]), ("makes boxes dishes miles tables", [1, 2, 2, 1, 2])],
)
def test_silent_endings(words: str, counts: list[int]) -> None:
    assert count_syllables(words.split()) == counts


@pytest.mark.parametrize("word", ["42", "hmm", "x", "\u6771", "", "z" * 100_000])
def test_everything_has_at_least_one(word: str) -> None:
    assert count_syllables([word]) == [1]
