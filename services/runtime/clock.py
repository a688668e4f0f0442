"""Time as a port: the system's clock, and one that a test or a simulation moves by hand."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where a component reads the time. Never call `time` directly in a domain module."""

    def now_us(self) -> int:
        """Wall clock: microseconds since the Unix epoch, UTC. May jump."""
        ...

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start; never goes back. For durations and deadlines inside one process."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_us(self) -> int:
        """Wall clock: microseconds since the Unix epoch, UTC."""
        return time.time_ns() // 1_000

    def monotonic_s(self) -> float:
        """Seconds of the machine's monotonic clock."""
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is told to move; both faces move together."""

    def __init__(self, now_us: int = 1_800_000_000_000_000) -> None:
        self._now_us = now_us
        self._monotonic_us = 0

    def now_us(self) -> int:
        """The wall time that was last set, in microseconds since the epoch."""
        return self._now_us

    def monotonic_s(self) -> float:
        """Seconds that `advance` has added up so far."""
        return self._monotonic_us / 1_000_000

    def advance(self, seconds: float) -> None:
        """Move both clocks forward by `seconds` (a negative value is refused: monotonic time never goes back)."""
        if seconds < 0:
            raise ValueError(f"a clock cannot advance by {seconds} s; use set_now_us to turn the wall clock back")
        step_us = round(seconds * 1_000_000)
        self._now_us += step_us
        self._monotonic_us += step_us

    def set_now_us(self, now_us: int) -> None:
        """Set the wall clock alone, as an operator or NTP does."""
        self._now_us = now_us


SYSTEM_CLOCK = SystemClock()
