"""Which earlier turns a question is sent with: the latest that fit a budget of tokens, each whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.gateway.calls import Call, Message, Part, TextPart
from services.gateway.usage import estimate_input_tokens

HISTORY_TURNS_MAX = 200
"""Turns that are looked at, the latest ones; with their answers they stay below the messages that a call may have."""


def messages_with_history(
    system: str,
    latest_first: Iterable[tuple[tuple[Part, ...], tuple[Part, ...]]],
    question: tuple[Part, ...],
    max_tokens: int,
) -> tuple[Sequence[Message], int]:
    """The messages to send, and how many earlier turns are among them.

    `latest_first` are the questions and answers of completed turns. The first that does not fit into `max_tokens`, by
    estimate, ends the history: a conversation has no holes. Instructions and the question itself are always sent.
    """
    kept: list[tuple[Message, Message]] = []
    left = max_tokens
    for asked, answered in latest_first:
        turn = (Message("user", asked), Message("assistant", answered))
        left -= _tokens(turn)
        if left < 0:
            break
        kept.append(turn)
    messages = [Message("system", (TextPart(system),))] if system else []
    for turn in reversed(kept):
        messages += turn
    return (*messages, Message("user", question)), len(kept)


def _tokens(messages: tuple[Message, ...]) -> int:
    return estimate_input_tokens(Call("", "", messages, timeout_ms=0))
