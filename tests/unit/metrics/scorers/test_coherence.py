from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.declarations import Absent, Subject
from services.metrics.scorers.coherence import coherence


def score(answer: str) -> float:
    value = coherence(Subject(answer))
    assert isinstance(value, float)
    return value


@pytest.mark.parametrize("answer", ["", "One sentence only.", "?! ..."])
def test_one_sentence_has_no_coherence(answer: str) -> None:
    assert isinstance(coherence(Subject(answer)), Absent)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        # Shared words: the same subject goes on.
        ("Magma rises. Magma breaks out.", "Magma rises. Bicycles have wheels."),
        # The first sentence points back to nothing.
        ("Magma is hot rock. However, it cools.", "However, it cools. Magma is hot rock."),
        # A thing is introduced before it is pointed at.
        ("A dog ran away. The dog was brown.", "The dog was brown. A dog ran away."),
        # What was counted first comes first.
        (
            "First boil water. Then add salt. Finally serve noodles.",
            "Finally serve noodles. Then add salt. First boil water.",
        ),
    ],
)
def test_each_habit_counts(better: str, worse: str) -> None:
    assert score(better) > score(worse)


def test_by_hand() -> None:
    """Nothing but cohesion and the opening occurs: the second sentence has both its words from the first."""
    assert score("Dogs chase cats. Cats chase dogs.") == pytest.approx(1.0)
    assert score("Dogs bark. Cats purr.") == pytest.approx((0.30 * 0.0 + 0.20 * 1.0) / 0.50)


@given(st.text(max_size=300))
def test_between_0_and_1_whatever_the_text(answer: str) -> None:
    value = coherence(Subject(answer))
    assert isinstance(value, Absent) or 0.0 <= value <= 1.0
