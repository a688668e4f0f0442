"""A second attempt beside one that is slow to begin: the first content of either wins, the other is cancelled.

At most one a call, within the retry budget, and never before the first request has left. What only a winner may show is
held back until there is one, so that nothing of the loser reaches the caller; the loser's socket is closed, and what it
took is settled.
Source: J. Dean and L. A. Barroso, "The Tail at Scale", Communications of the ACM 56(2), 2013.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from services.gateway.attempts import Attempt
from services.gateway.chunks import Emit, Read
from services.gateway.recent import Recent

Run = Callable[[Attempt, Emit | None], Coroutine[Any, Any, None]]
"""Makes one attempt. Raises CallFailed."""

SAMPLES_MIN = 20
"""Times that have to be known before one of them is taken for usual."""

_SAMPLES_MAX = 200
_USUAL_PERCENT = 95
_DELAY_MIN_S = 0.001
_DEPLOYMENTS_KEPT = 10_000


class FirstContentTimes:
    """How long deployments took lately from the request's leaving to the first content of any kind."""

    def __init__(self) -> None:
        self._times: Recent[deque[int]] = Recent(lambda _: deque(maxlen=_SAMPLES_MAX), _DEPLOYMENTS_KEPT)

    def learn(self, attempt: Attempt) -> None:
        """An attempt is over; one without content teaches nothing."""
        ttft_us = attempt.stopwatch.ttft_any_us
        if ttft_us is not None:
            self._times.get(attempt.deployment.name).append(ttft_us)

    def usual_s(self, deployment: str) -> float | None:
        """The 95th percentile of the latest, in seconds; None while too few are known."""
        times = sorted(self._times.get(deployment))
        if len(times) < SAMPLES_MIN:
            return None
        return times[-(-len(times) * _USUAL_PERCENT // 100) - 1] / 1_000_000

    def delay_s(self, deployment: str, hedge_after_ms: int | None) -> float | None:
        """When a second attempt begins, in seconds after the first one's leaving; None: never."""
        if hedge_after_ms is None:
            return None
        delay_s = hedge_after_ms / 1_000 if hedge_after_ms else self.usual_s(deployment)
        return None if delay_s is None else max(_DELAY_MIN_S, delay_s)


class Race:
    """One attempt, perhaps joined by another one."""

    def __init__(self, first: Attempt, run: Run, emit: Emit | None) -> None:
        self._first = first
        self._run = run
        self._emit = emit
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._racers: dict[str, Attempt] = {}
        self._held_back: list[Read] = []
        self._won = asyncio.Event()
        self.winner: Attempt | None = None
        """The attempt that was the first to give content, or to end well without any."""

    @property
    def attempts(self) -> list[Attempt]:
        """Both, or the first one alone."""
        return list(self._racers.values())

    async def run(self, delay_s: float, second: Callable[[], Attempt | None]) -> None:
        """Run the first attempt, and what `second` gives, if it has no content `delay_s` after its leaving.

        Returns when both are over and settled. Raises the winner's CallFailed, or the first attempt's where none won.
        """
        first = self._start(self._first)
        won = asyncio.create_task(self._won.wait())
        try:
            left_s = delay_s
            while left_s > 0 and not first.done() and self.winner is None:
                await asyncio.wait((first, won), timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                left_s = self._first.stopwatch.until_s(delay_s)
            if not first.done() and self.winner is None and (rival := second()) is not None:
                self._start(rival)
            await asyncio.wait(self._tasks.values())
        finally:
            won.cancel()
            running = [task for task in self._tasks.values() if not task.done()]
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running)
            for task in self._tasks.values():
                # How the loser failed is in its attempt; asyncio must not complain that nobody asked its task.
                if task.done() and not task.cancelled():
                    task.exception()
        await self._tasks[(self.winner or self._first).attempt_id]

    def _start(self, attempt: Attempt) -> asyncio.Task[None]:
        task = asyncio.create_task(self._run(attempt, self._take), name=f"attempt {attempt.attempt_id}")
        self._tasks[attempt.attempt_id] = task
        self._racers[attempt.attempt_id] = attempt
        return task

    def _take(self, read: Read) -> Coroutine[Any, Any, None] | None:
        """See chunks.Emit."""
        attempt_id = read.attempt_id
        attempt = self._racers[attempt_id]
        if self.winner is None:
            self._held_back.append(read)
            if not attempt.collector.content_events and attempt.collector.finish_reason is None:
                return None
            self._wins(attempt)
            held_back, self._held_back = self._held_back, []
            return self._show([early for early in held_back if early.attempt_id == attempt_id])
        if self.winner is not attempt or self._emit is None:
            return None
        return self._emit(read)

    def _wins(self, attempt: Attempt) -> None:
        self.winner = attempt
        self._won.set()
        for other in self._racers.values():
            task = self._tasks[other.attempt_id]
            if other is not attempt and not task.done():
                other.beaten = True
                task.cancel()

    async def _show(self, reads: Sequence[Read]) -> None:
        for read in reads:
            if self._emit is not None and (taking := self._emit(read)) is not None:
                await taking
