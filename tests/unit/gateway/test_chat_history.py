"""Which earlier turns a question is sent with."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.calls import Call, Message, TextPart, ToolCallPart, ToolResultPart
from services.gateway.chat.history import Said, messages_with_history
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


CALLED: Said = ((TextPart("How warm?"),), (ToolCallPart("t1", "weather", "{}"),))
TOLD: Said = ((ToolResultPart("t1", "20"), TextPart("In words.")), (TextPart("Warm."),))
RESULT = (ToolResultPart("t1", "20"),)


def test_what_tools_answered_goes_with_the_turn_that_asked_for_them_whatever_the_budget_is() -> None:
    messages, count = messages_with_history("", [CALLED, turn(4)], RESULT, 0)
    assert (count, [message.role for message in messages]) == (1, ["user", "assistant", "tool"])
    # A chain of calls is one piece: the question, what it answers to, and so on.
    assert messages_with_history("", [(RESULT, CALLED[1]), CALLED, turn(4)], RESULT, 0)[1] == 2


def test_a_turn_with_results_is_left_out_where_the_one_that_asked_does_not_fit() -> None:
    messages, count = messages_with_history("", [TOLD, CALLED], QUESTION, 1_000)
    assert count == 2
    assert [message.role for message in messages] == ["user", "assistant", "tool", "user", "assistant", "user"]
    long = ((TextPart("q" * 4_000),), CALLED[1])
    assert messages_with_history("", [turn(4), TOLD, long], QUESTION, 200)[1] == 1
    # The one that asked is not among those that are looked at.
    assert messages_with_history("", [TOLD], QUESTION, 1_000)[1] == 0


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
