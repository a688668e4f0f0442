"""Costs that were not known when their call was written down: open bills, settled or read until they are known.

A bill of a known outcome is settled from the ledger where the gateway could not; one of an unknown outcome can only be
read, once the gateway has settled it after all or its hold has expired. A run waits for the first kind for a while
before it ends. Whatever is open then is swept, by any worker, for as long as a hold can live.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from services.orchestrator.calls import (
    NO_MONEY,
    NO_USAGE,
    AttemptState,
    CallId,
    Money,
    ResolvedAttempt,
    Settlement,
    Usage,
)
from services.orchestrator.ledger import CellSettled, OpenBill, SweptBill
from services.orchestrator.policy import WorkerPolicy
from services.orchestrator.ports import Bills, Ledger
from services.orchestrator.resolving import wait_for
from services.orchestrator.states import CellStatus
from services.orchestrator.writer import LedgerWriter
from services.runtime.clock import Clock
from services.runtime.errors import DomainError

_ASK_MAX = 256
"""Attempts of one request to the cost service."""
_REFUSALS = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "OUT_OF_RANGE"})
"""Codes of refusals that no waiting cures."""
_UNPRICED = Money(0, 1)

_log = logging.getLogger(__name__)


async def known_costs(bills: Bills, project_id: str, due: Sequence[OpenBill]) -> list[CellSettled]:
    """What is known of up to 256 bills by now, known outcomes being settled on the way; open ones are left out.

    A bill that the cost service refuses has no price: that is written down, never 0. Where a whole request is refused,
    it is halved until the wrong bill is alone. Raises DomainError where the cost service cannot be asked.
    """
    try:
        attempts = await bills.resolve_attempts(project_id, [_hold_id(bill) for bill in due])
        pairs = list(zip(due, attempts, strict=True))
        known = [settled for bill, attempt in pairs if (settled := _read(bill, attempt)) is not None]
        return known + await _settle(bills, project_id, [bill for bill, attempt in pairs if _to_settle(bill, attempt)])
    except DomainError as error:
        if error.code not in _REFUSALS:
            raise
        if len(due) == 1:
            return [unpriced(due[0], error.message)]
    middle = len(due) // 2
    return [*await known_costs(bills, project_id, due[:middle]), *await known_costs(bills, project_id, due[middle:])]


def unpriced(bill: OpenBill, why: str) -> CellSettled:
    """The end of a bill whose amount nobody will ever tell."""
    _log.error("the cost of attempt %s stays unknown and counts as unpriced: %s", _hold_id(bill), why)
    return _closed(bill, NO_USAGE, _UNPRICED)


def _hold_id(bill: OpenBill) -> str:
    return CallId(bill.run_id, bill.cell, bill.attempt).hold_id


def _closed(bill: OpenBill, usage: Usage, cost: Money) -> CellSettled:
    return CellSettled(bill.run_id, bill.cell, bill.attempt, bill.outcome_known, usage, cost)


def _to_settle(bill: OpenBill, attempt: ResolvedAttempt) -> bool:
    # What expired was charged at a guess; the cost service puts it right when the usage is told.
    return bill.outcome_known and attempt.state in (AttemptState.HELD, AttemptState.EXPIRED)


def _read(bill: OpenBill, attempt: ResolvedAttempt) -> CellSettled | None:
    """The bill as the cost service has it; None where it is still open."""
    if attempt.state is AttemptState.HELD or _to_settle(bill, attempt):
        return None
    if not bill.outcome_known:
        return _closed(bill, attempt.usage, attempt.cost or NO_MONEY)
    if attempt.state is AttemptState.SETTLED:
        return _closed(bill, NO_USAGE, attempt.cost or _UNPRICED)
    return unpriced(bill, f"its hold is {attempt.state.value} although the call was made")


async def _settle(bills: Bills, project_id: str, due: Sequence[OpenBill]) -> list[CellSettled]:
    if not due:
        return []
    settlements = [
        Settlement(
            attempt_id=_hold_id(bill),
            usage=bill.usage,
            provider_model=bill.provider_model,
            occurred_at_us=bill.created_us,
            succeeded=bill.status is CellStatus.DONE,
        )
        for bill in due
    ]
    settled = []
    for bill, outcome in zip(due, await bills.settle(project_id, settlements), strict=True):
        if isinstance(outcome, Money):
            settled.append(_closed(bill, NO_USAGE, outcome))
        elif outcome.code in _REFUSALS and outcome.reason != "HOLD_RESOLVED":
            settled.append(unpriced(bill, outcome.message))
        # What was resolved in the meantime is read the next time.
    return settled


@dataclass(slots=True)
class _Open:
    """A bill that a run waits for; times are on the monotonic clock, infinite while its amount is being written."""

    bill: OpenBill
    ask_at_s: float
    give_up_s: float
    asked: int = 0


class OpenBills:
    """Bills that the cells of one run wait for."""

    def __init__(
        self,
        project_id: str,
        bills: Bills,
        policy: WorkerPolicy,
        rng: random.Random,
        clock: Clock,
        *,
        settled: Callable[[CellSettled], None],
        given_up: Callable[[Iterable[int]], None],
    ) -> None:
        """`settled` writes a bill down; `given_up` hears cells that need not wait any more: the sweep goes on."""
        self._project_id = project_id
        self._bills = bills
        self._policy = policy
        self._rng = rng
        self._clock = clock
        self._settled = settled
        self._given_up = given_up
        self._open: dict[tuple[int, int], _Open] = {}
        self._cells: Counter[int] = Counter()
        self._wake = asyncio.Event()
        self._failures = 0

    def __contains__(self, cell: int) -> bool:
        return cell in self._cells

    def add(self, bill: OpenBill) -> None:
        """Wait for this bill. The gateway gets a moment to settle it."""
        if (bill.cell, bill.attempt) in self._open:
            return
        now_s = self._clock.monotonic_s()
        ask_at_s = now_s + self._policy.settle_after_ms / 1_000
        self._open[bill.cell, bill.attempt] = _Open(bill, ask_at_s, now_s + self._policy.bill_wait_ms / 1_000)
        self._cells[bill.cell] += 1
        self._wake.set()

    def close(self, cell: int, attempt: int) -> None:
        """The bill's amount is written down, or nobody waits for it any more."""
        if self._open.pop((cell, attempt), None) is not None:
            self._cells[cell] -= 1
            if not self._cells[cell]:
                del self._cells[cell]

    def close_all(self) -> None:
        """Wait for none of them."""
        self._open.clear()
        self._cells.clear()

    async def run(self) -> None:
        """Settle until cancelled."""
        while True:
            now_s = self._clock.monotonic_s()
            self._give_up([each.bill for each in self._open.values() if each.give_up_s <= now_s])
            due = [each for each in self._open.values() if each.ask_at_s <= now_s][:_ASK_MAX]
            if due:
                await self._ask(due)
                continue
            self._wake.clear()
            next_s = min((min(each.ask_at_s, each.give_up_s) for each in self._open.values()), default=math.inf)
            await wait_for(self._wake, None if next_s == math.inf else next_s - now_s)

    def _give_up(self, late: Sequence[OpenBill]) -> None:
        if late:
            _log.warning("run %s waits no longer for the cost of %d calls", late[0].run_id, len(late))
            for bill in late:
                self.close(bill.cell, bill.attempt)
            self._given_up([bill.cell for bill in late])

    async def _ask(self, due: Sequence[_Open]) -> None:
        try:
            known = await known_costs(self._bills, self._project_id, [each.bill for each in due])
            self._failures = 0
        except DomainError as error:
            known = []
            self._failures += 1
            _log.warning("run %s: bills wait for the cost service: %s", due[0].bill.run_id, error.message)
        for each in due:
            each.asked += 1
            failures = max(each.asked, self._failures)
            wait_ms = self._policy.peer.delay_ms(failures, self._rng, at_least_ms=self._policy.peer.base_ms)
            each.ask_at_s = self._clock.monotonic_s() + wait_ms / 1_000
        for settled in known:
            waiting = self._open.get((settled.cell, settled.attempt))
            if waiting is not None:
                waiting.ask_at_s = waiting.give_up_s = math.inf
            self._settled(settled)


class BillSweep:
    """Bills that no run waits for: of unknown outcomes, and of runs that have ended."""

    def __init__(self, ledger: Ledger, writer: LedgerWriter, bills: Bills, policy: WorkerPolicy) -> None:
        self._ledger = ledger
        self._writer = writer
        self._bills = bills
        self._policy = policy

    async def sweep(self) -> bool:
        """Ask about some bills whose turn it is; True while there may be more. Raises DomainError (the ledger)."""
        swept = await self._ledger.take_bills(self._policy.bill_sweep_ms, self._policy.bill_life_ms, _ASK_MAX)
        by_project: dict[str, list[SweptBill]] = {}
        for each in swept:
            by_project.setdefault(each.project_id, []).append(each)
        for project_id, some in by_project.items():
            settled = await self._ask(project_id, some)
            if settled:
                await self._writer.write(settled)
        return len(swept) == _ASK_MAX

    async def _ask(self, project_id: str, swept: Sequence[SweptBill]) -> list[CellSettled]:
        try:
            known = await known_costs(self._bills, project_id, [each.bill for each in swept])
        except DomainError as error:
            _log.warning("%d bills wait for the cost service: %s", len(swept), error.message)
            known = []
        told = {(each.run_id, each.cell, each.attempt) for each in known}
        for bill in (each.bill for each in swept if each.overdue):
            if (bill.run_id, bill.cell, bill.attempt) not in told:
                known.append(unpriced(bill, "no hold lives as long as it has been open"))
        return known
