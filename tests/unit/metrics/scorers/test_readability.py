import pytest

from services.metrics.declarations import Absent, NoParameters, Subject
from services.metrics.scorers.readability import (
    READABILITY,
    ProseCounts,
    flesch_kincaid_grade,
    flesch_reading_ease,
    smog_grade,
)

# Words, sentences, syllables and words of three syllables or more, counted by hand.
CAT = "The cat sat on the mat."
GARDEN = "My garden has many flowers. Yesterday I watered them. The banana tree is together with the window."


def scores(answer: str) -> list[float | Absent]:
    return list(READABILITY.function(Subject(answer), NoParameters()))


def test_published_value_of_flesch() -> None:
    assert scores(CAT)[0] == pytest.approx(116.145)


def test_flesch_kincaid_by_formula() -> None:
    assert scores(CAT)[1] == pytest.approx(0.39 * 6 + 11.8 - 15.59)


def test_hand_counted_text() -> None:
    counts = ProseCounts(words=17, sentences=3, syllables=28, polysyllables=3)
    assert scores(GARDEN) == [
        pytest.approx(flesch_reading_ease(counts)),
        pytest.approx(flesch_kincaid_grade(counts)),
        pytest.approx(smog_grade(counts)),
    ]


def test_smog_by_formula() -> None:
    # McLaughlin's own shape: 30 sentences, the square root of the polysyllables.
    assert smog_grade(ProseCounts(500, 30, 800, 36)) == pytest.approx(1.043 * 6 + 3.1291)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("", "no words"), ("?!", "no words"), ("\u6771\u4eac\u306f\u5927\u304d\u3044\u3002", "Latin")],
)
def test_absent_where_the_formulas_say_nothing(answer: str, reason: str) -> None:
    for score in scores(answer):
        assert isinstance(score, Absent)
        assert reason in score.reason


def test_accented_latin_is_read() -> None:
    assert isinstance(scores("Le caf\u00e9 est tr\u00e8s bon.")[0], float)


def test_smog_needs_three_sentences() -> None:
    smog = scores(CAT)[2]
    assert isinstance(smog, Absent)
    assert "three" in smog.reason or "3" in smog.reason
