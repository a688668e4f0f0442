from __future__ import annotations

import pytest

from services.metrics.asks import Asks, Format, Length, Unit, find_asks


@pytest.mark.parametrize(
    ("prompt", "items"),
    [
        ("List five fruits.", (5,)),
        ("Give me three tips for learning the guitar.", (3,)),
        ("What are the top 10 cities in Europe?", (10,)),
        ("Suggest 3 names for a dog and list two breeds.", (3, 2)),
        ("Name one animal.", ()),
        ("I was born in 1990 and have two cats.", ()),
        ("Write 200 words.", ()),
        ("Give it two more years.", ()),
    ],
)
def test_items(prompt: str, items: tuple[int, ...]) -> None:
    assert find_asks(prompt).items == items


@pytest.mark.parametrize(
    ("prompt", "unit", "low", "high"),
    [
        ("Explain gravity in two sentences.", Unit.SENTENCES, 2, 2),
        ("Summarise it in at most 50 words.", Unit.WORDS, 1, 50),
        ("Write at least 3 paragraphs.", Unit.PARAGRAPHS, 3, float("inf")),
        ("Write a 100-word story.", Unit.WORDS, 90, 110),
        ("Use about 100 words.", Unit.WORDS, 75, 125),
        ("Use exactly 100 words.", Unit.WORDS, 100, 100),
        ("Write 200 to 300 words.", Unit.WORDS, 180, 330),
        ("Keep it under 280 characters.", Unit.CHARACTERS, 1, 280),
    ],
)
def test_lengths(prompt: str, unit: Unit, low: float, high: float) -> None:
    (length,) = find_asks(prompt).lengths
    assert length.unit is unit
    assert [length.minimum, length.maximum] == pytest.approx([low, high])


@pytest.mark.parametrize(
    ("prompt", "formats"),
    [
        ("Return the result as JSON.", (Format.JSON,)),
        ("Make a table of planets.", (Format.TABLE,)),
        ("Answer in bullet points.", (Format.BULLETS,)),
        ("Write a numbered list.", (Format.NUMBERED,)),
        ("Write a short Python function that adds.", (Format.CODE,)),
        ("Tell me about tables and code.", ()),
    ],
)
def test_formats(prompt: str, formats: tuple[Format, ...]) -> None:
    assert find_asks(prompt).formats == formats


def test_parts_and_questions() -> None:
    asks = find_asks("Describe remote work, including cost, health and trust. What is it? Who likes remote work?")
    assert asks.parts == (frozenset({"cost"}), frozenset({"health"}), frozenset({"trust"}))
    assert asks.questions == (frozenset({"like", "remot", "work"}),)


@pytest.mark.parametrize("prompt", ["", "Explain photosynthesis to a child.", "Write a short recipe for soup."])
def test_nothing_countable(prompt: str) -> None:
    assert find_asks(prompt) == Asks()
    assert len(find_asks(prompt)) == 0


def test_a_long_prompt_is_read_at_both_ends() -> None:
    material = "The river runs to the sea. " * 1_000
    assert find_asks(f"List five rivers.\n{material}\nUse at most 50 words.") == Asks(
        items=(5,), lengths=(Length(Unit.WORDS, 1, 50),)
    )


@pytest.mark.parametrize(
    "text", [" " * 100_000, "\n" * 100_000, "list " * 5_000, "a, b and " * 2_000, "x" * 100_000, "1 " * 9_000]
)
def test_hostile_prompts_are_read_fast(text: str) -> None:
    find_asks(text)
