"""Long computations that end when nobody waits for their result any more.

Whoever runs one away from the loop says how to ask whether it is still wanted; what computes looks now and then, at
places where a look costs nothing beside the work between two of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Running(threading.local):
    """What this thread works on; the default costs a look less than an attribute that is missing."""

    is_stopped: Callable[[], bool] | None = None


_running = _Running()


class Stopped(BaseException):
    """Nobody waits for the result. Not an Exception: what catches those to go on must not go on."""


def run_stoppable(is_stopped: Callable[[], bool], fn: Callable[[*Ts], T], *args: *Ts) -> T:
    """`fn(*args)`, in which `check_stopped` raises once `is_stopped` holds."""
    _running.is_stopped = is_stopped
    try:
        return fn(*args)
    finally:
        _running.is_stopped = None


def check_stopped() -> None:
    """Raises Stopped where this thread's work is not wanted any more; does nothing in work that nobody can stop."""
    is_stopped = _running.is_stopped
    if is_stopped is not None and is_stopped():
        raise Stopped
