"""Calls whose outcome is lost when something broke.

They are asked about at the cost service, again and again with bounded waits: it may be away, and nothing is ever
dispatched or given up because of that.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.orchestrator.calls import CallId, ResolvedAttempt
from services.orchestrator.policy import WorkerPolicy
from services.orchestrator.ports import Bills
from services.runtime.clock import Clock
from services.runtime.errors import DomainError

_ASK_MAX = 256
"""Attempts of one request to the cost service."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Doubt:
    """A call that may have been made. `since_s` and `ask_at_s` are on the monotonic clock."""

    call_id: CallId
    since_s: float
    ask_at_s: float
    asked: int = 0


class Doubts:
    """Calls of one run whose outcome is lost."""

    def __init__(
        self,
        project_id: str,
        bills: Bills,
        policy: WorkerPolicy,
        rng: random.Random,
        clock: Clock,
        resolved: Callable[[Doubt, ResolvedAttempt], bool],
    ) -> None:
        """`resolved` hears what the cost service says and tells whether that settles the doubt."""
        self._project_id = project_id
        self._bills = bills
        self._policy = policy
        self._rng = rng
        self._clock = clock
        self._resolved = resolved
        self._doubts: dict[int, Doubt] = {}
        self._wake = asyncio.Event()
        self._failures = 0

    def __len__(self) -> int:
        return len(self._doubts)

    def __contains__(self, cell: int) -> bool:
        return cell in self._doubts

    def add(self, call_id: CallId) -> None:
        """The outcome of this call is lost."""
        now_s = self._clock.monotonic_s()
        self._doubts[call_id.cell] = Doubt(call_id, now_s, now_s)
        self._wake.set()

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            now_s = self._clock.monotonic_s()
            due = [doubt for doubt in self._doubts.values() if doubt.ask_at_s <= now_s][:_ASK_MAX]
            if due:
                await self._ask(due)
                continue
            self._wake.clear()
            next_s = min((doubt.ask_at_s for doubt in self._doubts.values()), default=None)
            await wait_for(self._wake, None if next_s is None else next_s - now_s)

    async def _ask(self, due: Sequence[Doubt]) -> None:
        try:
            attempts = await self._bills.resolve_attempts(self._project_id, [doubt.call_id.hold_id for doubt in due])
        except DomainError as error:
            self._failures += 1
            _log.warning("lost calls wait for the cost service: %s", error.message)
            retry_s = self._clock.monotonic_s() + self._policy.peer.delay_ms(self._failures, self._rng) / 1_000
            for doubt in due:
                doubt.ask_at_s = retry_s
            return
        self._failures = 0
        for doubt, attempt in zip(due, attempts, strict=True):
            if self._resolved(doubt, attempt):
                del self._doubts[doubt.call_id.cell]
                continue
            doubt.asked += 1
            wait_ms = self._policy.peer.delay_ms(doubt.asked, self._rng, at_least_ms=self._policy.peer.base_ms)
            doubt.ask_at_s = self._clock.monotonic_s() + wait_ms / 1_000


async def wait_for(event: asyncio.Event, timeout_s: float | None) -> None:
    """Wait for an event, at most `timeout_s` seconds (None: as long as it takes)."""
    if timeout_s is not None and timeout_s <= 0:
        await asyncio.sleep(0)
        return
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
