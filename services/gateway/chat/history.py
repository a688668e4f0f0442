"""Which earlier turns a question is sent with: the latest that fit a budget of tokens, each whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.gateway.calls import Call, Message, Part, TextPart, ToolResultPart
from services.gateway.usage import estimate_input_tokens

HISTORY_TURNS_MAX = 200
"""Turns that are looked at, the latest ones; with their answers they stay below the messages that a call may have."""

Said = tuple[tuple[Part, ...], tuple[Part, ...]]
"""A question and its answer."""


def messages_with_history(
    system: str, latest_first: Iterable[Said], question: tuple[Part, ...], max_tokens: int
) -> tuple[Sequence[Message], int]:
    """The messages to send, and how many earlier turns are among them.

    `latest_first` are the questions and answers of completed turns. The first that does not fit into `max_tokens`, by
    estimate, ends the history: a conversation has no holes. A question with what tools answered goes only with the turn
    that asked for them. Instructions and the question itself, with the turns that it answers to, are always sent.
    """
    kept: list[Said] = []
    left = max_tokens
    bound: list[Said] = []
    needed = _answers_tools(question)
    for said in latest_first:
        bound.append(said)
        left -= _tokens(said)
        if left < 0 and not needed:
            break
        if not _answers_tools(said[0]):
            kept += bound
            bound, needed = [], False
    messages = [Message("system", (TextPart(system),))] if system else []
    for asked, answered in reversed(kept):
        messages += [*question_messages(asked), Message("assistant", answered)]
    return (*messages, *question_messages(question)), len(kept)


def question_messages(parts: tuple[Part, ...]) -> Sequence[Message]:
    """A question as messages: what tools answered first, then what the user says."""
    results = tuple(part for part in parts if isinstance(part, ToolResultPart))
    rest = tuple(part for part in parts if not isinstance(part, ToolResultPart))
    said = (Message("tool", results), Message("user", rest))
    return [message for message in said if message.parts]


def _answers_tools(question: tuple[Part, ...]) -> bool:
    return any(isinstance(part, ToolResultPart) for part in question)


def _tokens(said: Said) -> int:
    messages = (*question_messages(said[0]), Message("assistant", said[1]))
    return estimate_input_tokens(Call("", "", messages, timeout_ms=0))
