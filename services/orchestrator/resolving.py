"""What a run owes and is owed when something broke: calls whose outcome is lost, answers whose bill is open.

Both are asked about at the cost service, again and again with bounded waits: it may be away, and nothing is ever
dispatched, given up or written off because of that.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.orchestrator.calls import NO_MONEY, NO_USAGE, AttemptState, CallId, Money, ResolvedAttempt, Settlement
from services.orchestrator.ledger import CellSettled, OpenBill
from services.orchestrator.policy import WorkerPolicy
from services.orchestrator.ports import Bills
from services.orchestrator.states import CellStatus
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


class OpenBills:
    """Results of one run whose hold may still be open: the ledger settles them where the gateway could not."""

    def __init__(
        self,
        run_id: str,
        project_id: str,
        bills: Bills,
        policy: WorkerPolicy,
        rng: random.Random,
        clock: Clock,
        settled: Callable[[CellSettled], None],
    ) -> None:
        """`settled` writes a bill down."""
        self._run_id = run_id
        self._project_id = project_id
        self._bills = bills
        self._policy = policy
        self._rng = rng
        self._clock = clock
        self._settled = settled
        self._open: dict[int, tuple[float, OpenBill]] = {}
        self._last: deque[tuple[Sequence[OpenBill], Callable[[], None]]] = deque()
        self._wake = asyncio.Event()
        self._failures = 0

    def add(self, bill: OpenBill) -> None:
        """This result's cost is not confirmed. The gateway gets a moment to do so."""
        self._open[bill.cell] = (self._clock.monotonic_s() + self._policy.settle_after_ms / 1_000, bill)
        self._wake.set()

    def ask_last(self, bills: Sequence[OpenBill], then: Callable[[], None]) -> None:
        """Ask once more what UNKNOWN results have cost, then go on: what is not known by now stays open."""
        self._last.append((bills, then))
        self._wake.set()

    async def run(self) -> None:
        """Settle until cancelled."""
        while True:
            while self._last:
                bills, then = self._last.popleft()
                for settled in await self._known(bills):
                    self._settled(settled)
                then()
            now_s = self._clock.monotonic_s()
            due = [bill for due_s, bill in self._open.values() if due_s <= now_s][:_ASK_MAX]
            if due:
                await self._settle(due)
                continue
            self._wake.clear()
            next_s = min((due_s for due_s, _ in self._open.values()), default=None)
            await wait_for(self._wake, None if next_s is None else next_s - now_s)

    async def _known(self, bills: Sequence[OpenBill]) -> list[CellSettled]:
        """The bills that are known by now; what is not known, or cannot be asked, is left out."""
        try:
            attempts = await self._bills.resolve_attempts(self._project_id, [self._hold_id(bill) for bill in bills])
        except DomainError:
            return []
        return [
            CellSettled(self._run_id, bill.cell, attempt.usage, attempt.cost)
            for bill, attempt in zip(bills, attempts, strict=True)
            if attempt.state is AttemptState.SETTLED and attempt.cost is not None
        ]

    def _hold_id(self, bill: OpenBill) -> str:
        return CallId(self._run_id, bill.cell, bill.attempt).hold_id

    async def _settle(self, due: Sequence[OpenBill]) -> None:
        try:
            costs = await self._costs(due)
        except DomainError as error:
            self._failures += 1
            _log.warning("run %s: bills wait for the cost service: %s", self._run_id, error.message)
            retry_s = self._clock.monotonic_s() + self._policy.peer.delay_ms(self._failures, self._rng) / 1_000
            for bill in due:
                self._open[bill.cell] = (retry_s, bill)
            return
        self._failures = 0
        for bill, cost in zip(due, costs, strict=True):
            del self._open[bill.cell]
            self._settled(CellSettled(self._run_id, bill.cell, NO_USAGE, cost))

    async def _costs(self, due: Sequence[OpenBill]) -> list[Money]:
        """What each result cost: as settled before, or settled now with the usage that the ledger knows."""
        attempts = await self._bills.resolve_attempts(self._project_id, [self._hold_id(bill) for bill in due])
        held = [
            Settlement(
                attempt_id=attempt.attempt_id,
                usage=bill.usage,
                provider_model=bill.provider_model,
                occurred_at_us=bill.created_us,
                succeeded=bill.status is CellStatus.DONE,
            )
            for bill, attempt in zip(due, attempts, strict=True)
            # What expired was charged at a guess; the cost service puts it right when the usage is told.
            if attempt.state in (AttemptState.HELD, AttemptState.EXPIRED)
        ]
        costs = await self._bills.settle(self._project_id, held) if held else []
        settled = {item.attempt_id: cost for item, cost in zip(held, costs, strict=True)}
        return [settled.get(attempt.attempt_id, attempt.cost) or NO_MONEY for attempt in attempts]


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
