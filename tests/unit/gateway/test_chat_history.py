"""Which earlier turns a question is sent with."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.calls import Call, Message, TextPart
from services.gateway.chat.history import messages_with_history
from services.gateway.usage import estimate_input_tokens

QUESTION = (TextPart("And now?"),)


def turn(size: int) -> tuple[tuple[TextPart], tuple[TextPart]]:
    return (TextPart("q" * size),), (TextPart("a" * size),)


def test_instructions_then_the_turns_in_their_order_then_the_question() -> None:
    latest_first = [((TextPart("second"),), (TextPart("2"),)), ((TextPart("first"),), (TextPart("1"),))]
    messages, count = messages_with_history("Be short.", latest_first, QUESTION, 1_000)
    assert [(message.role, message.text) for message in messages] == [
        ("system", "Be short."),
        ("user", "first"),
        ("assistant", "1"),
        ("user", "second"),
        ("assistant", "2"),
        ("user", "And now?"),
    ]
    assert count == 2


def test_the_first_turn_that_does_not_fit_ends_the_history() -> None:
    messages, count = messages_with_history("", [turn(4), turn(4_000), turn(4)], QUESTION, 100)
    assert (count, len(messages)) == (1, 3)


def test_the_question_is_sent_whatever_the_budget_is() -> None:
    assert messages_with_history("", [turn(4)], QUESTION, 0)[1] == 0


@given(st.lists(st.integers(0, 500), max_size=20), st.integers(0, 2_000))
def test_the_history_fits_and_one_more_turn_would_not(sizes: list[int], max_tokens: int) -> None:
    messages, count = messages_with_history("", [turn(size) for size in sizes], QUESTION, max_tokens)

    def tokens(turns: int) -> int:
        total = 0
        for size in sizes[:turns]:
            asked, answered = turn(size)
            pair = (Message("user", asked), Message("assistant", answered))
            total += estimate_input_tokens(Call("", "", pair, timeout_ms=0))
        return total

    assert len(messages) == 2 * count + 1
    assert tokens(count) <= max_tokens
    assert count == len(sizes) or tokens(count + 1) > max_tokens
