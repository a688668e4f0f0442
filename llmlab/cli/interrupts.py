"""Ctrl-C and SIGTERM: the first lets a command end in order, a second one ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import typer

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\x1b[?25h"


class Interrupted(Exception):
    """A command that was told to end has ended.

    Attributes:
        exit_code: As shells have it: 128 and the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


async def interruptible(command: Coroutine[Any, Any, None]) -> None:
    """Awaits a command; a signal cancels it, and it has all its time to end.

    Raises:
        Interrupted: It was cancelled so.
    """
    if threading.current_thread() is not threading.main_thread():  # signals go to the main thread only
        await command
        return
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    received: list[int] = []

    def receive(number: int, _frame: FrameType | None) -> None:
        if received:
            _leave(number)
        received.append(number)
        if task is not None:
            loop.call_soon_threadsafe(task.cancel)

    # Not by the loop: a second signal must be heard while the loop is stuck.
    with _received_by(receive):
        try:
            await command
        except asyncio.CancelledError:
            if not received:
                raise
            raise Interrupted(received[0]) from None


def confirm(question: str) -> bool:
    """Asks on standard error; a signal is an answer too.

    Raises:
        Interrupted: A signal came instead of an answer.
    """
    received: list[int] = []

    def receive(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    with _received_by(receive):
        try:
            return typer.confirm(question, err=True)
        except typer.Abort:
            if not received:  # the input has ended
                raise
            raise Interrupted(received[0]) from None


async def until_interrupted() -> None:
    """Waits for the first signal, and takes it for what the command has waited for."""
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    if task := asyncio.current_task():
        task.uncancel()


@contextmanager
def _received_by(receive: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Inside, signals go to `receive`, but for those that whoever started the process wants to be ignored."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    heard = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in heard:
        signal.signal(number, receive)
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)


def _leave(number: int) -> None:
    """Ends the process as if it was killed: what is on disk stays whole, calls under way are lost."""
    with suppress(OSError):
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR)
        os.write(2, b"\nLeft at once; what became of calls under way may be unknown.\n")
    os._exit(128 + number)
