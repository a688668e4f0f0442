"""A stage: one concern of every RPC, for all four kinds of RPC alike."""

from __future__ import annotations

from collections.abc import Awaitable

from google.protobuf.message import Message

from services.runtime.context import Call


class Stage:
    """What happens at one place of the order. A stage overrides what it needs; the rest costs nothing.

    `enter` and `message` return None when they are done, or something to await: most calls never wait here, and then
    no coroutine is made. They refuse a call by raising a DomainError.
    """

    def enter(self, call: Call) -> Awaitable[None] | None:
        """Before the handler, in order."""

    def message(self, call: Call, request: Message) -> Awaitable[None] | None:
        """For each request message, in order; a unary call has one."""

    def failed(self, call: Call, error: Exception) -> Exception:
        """The error to answer with instead of `error`, innermost stage first."""
        return error

    def leave(self, call: Call) -> None:
        """When the call is over, in reverse order, however it ended: `call.error` says how.

        Always called, even where this stage's `enter` was never reached. Must not raise.
        """
