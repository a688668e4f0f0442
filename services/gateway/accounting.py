"""Money around an attempt: reserved before it leaves, settled after it, whatever becomes of it.

An attempt that left is settled, also when its caller has gone; one that did not leave is released. An answer whose
caller does not ask for its cost goes before its settlement, which then leaves with others. A settlement that the cost
service does not take is kept on this machine and sent later. What may leave while the cost service can hold nothing is
for `hold_policy` to say.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from services.gateway.attempts import Attempt
from services.gateway.cost_port import AMBIGUOUS_CODES, CostPort, Reservation, Settlement
from services.gateway.failures import CallFailed, Failure, refused
from services.gateway.figures import AttemptFigures
from services.gateway.hold_policy import HoldPolicy
from services.gateway.late_bills import Bill, JournalFull, LateBills
from services.gateway.layer import Around
from services.gateway.tiers import asked_tier
from services.gateway.usage import estimate_input_tokens
from services.runtime.clock import Clock
from services.runtime.errors import DomainError
from services.runtime.failpoints import failpoint
from services.runtime.tracing import current_traceparent

_log = logging.getLogger(__name__)

_REASON_OF_REFUSAL = {"HOLD_NONCE_MISMATCH": "CALL_ALREADY_DISPATCHED"}


@dataclass(frozen=True, slots=True)
class AccountingLimits:
    """Bounds of the layer's patience."""

    hold_wait_s: float = 5.0
    hold_margin_ms: int = 30_000
    later_s: float = 60.0
    later_max: int = 10_000
    gather_s: float = 0.0
    retry_base_s: float = 0.05
    retry_max_s: float = 2.0


class Accounting:
    """The hold layer of the pipeline."""

    def __init__(
        self,
        cost: CostPort,
        policy: HoldPolicy,
        late_bills: LateBills,
        clock: Clock,
        limits: AccountingLimits | None = None,
    ) -> None:
        self._cost = cost
        self._policy = policy
        self._late_bills = late_bills
        self._clock = clock
        self._limits = limits or AccountingLimits()
        self._later: set[asyncio.Task[None]] = set()
        self._gathered = asyncio.Event()
        self._gathered.set()
        self._figures = AttemptFigures()

    def held(self, attempt: Attempt) -> Around[Reservation | None]:
        """Money is held inside; afterwards it is settled where the attempt was dispatched, and released where not.

        Raises CallFailed, not dispatched, where the hold is refused, or where the cost service does not answer in time
        and the policy lets nothing leave without it.
        """
        return Around(attempt, self._enter, self._leave)

    async def _enter(self, attempt: Attempt) -> Reservation | None:
        """Returns what is still to be held where the attempt goes on without."""
        failpoint("gateway.before_hold")
        reservation = self._reservation(attempt)
        held = await self._hold(attempt, reservation)
        failpoint("gateway.after_hold")
        return None if held else reservation

    async def _leave(self, attempt: Attempt, unheld: Reservation | None) -> None:
        if attempt.dispatched:
            self._figures.ended(attempt)
            failpoint("gateway.before_settle")
            if self._settles_afterwards(attempt):
                self._begin_later(self._settle_with_others(attempt, unheld), f"settle {attempt.attempt_id}")
            else:
                await self._settle(attempt, unheld)
            failpoint("gateway.after_settle")
        elif unheld is None:
            await self._release(attempt)

    async def close(self, timeout_s: float) -> None:
        """Give what is still to be settled or released this much time."""
        self._gathered.set()
        if self._later:
            await asyncio.wait(self._later, timeout=timeout_s)
        for task in tuple(self._later):
            task.cancel()

    async def _hold(self, attempt: Attempt, reservation: Reservation) -> bool:
        """Reserve. Returns False where the attempt goes on without a hold."""
        attempt.reserved = True
        may_go_on = self._policy.may_go_on(attempt) and not self._late_bills.full
        if may_go_on and self._policy.away:
            return False
        give_up = min(attempt.deadline, self._clock.monotonic_s() + self._limits.hold_wait_s)
        pause_s = self._limits.retry_base_s
        while True:
            try:
                await self._cost.hold(attempt.owner, reservation)
                self._policy.answered(attempt.owner)
                return True
            except DomainError as error:
                if error.code not in AMBIGUOUS_CODES:
                    raise _refusal(error) from error
                self._policy.failed()
                if may_go_on:
                    # It may be held after all: the bill repeats the hold under the same nonce and settles it.
                    return False
                if self._clock.monotonic_s() + pause_s > give_up:
                    # It may be there after all; nobody will ever settle it.
                    self._release_later(attempt)
                    message = f"the cost service did not confirm the hold, so nothing was sent: {error.message}"
                    raise refused("DEPENDENCY_UNAVAILABLE", message) from error
            except asyncio.CancelledError:
                self._release_later(attempt)
                raise
            await asyncio.sleep(_jittered(pause_s))
            pause_s = min(pause_s * 2, self._limits.retry_max_s)

    def _reservation(self, attempt: Attempt) -> Reservation:
        call = attempt.request.call
        remaining_ms = round((attempt.deadline - self._clock.monotonic_s()) * 1_000)
        return Reservation(
            attempt_id=attempt.attempt_id,
            nonce=attempt.nonce,
            provider=attempt.deployment.billed_provider or attempt.provider,
            model=attempt.deployment.billed_model or attempt.request.model,
            input_tokens_max=estimate_input_tokens(call, dense=True),
            output_tokens_max=attempt.request.max_output_tokens,
            run_id=call.run_id,
            tags=tuple(call.tags.items()),
            expires_in_ms=max(1_000, remaining_ms) + self._limits.hold_margin_ms,
            steps_max=call.automation.steps_max if call.automation else 0,
            service_tier=asked_tier(call),
        )

    def _settles_afterwards(self, attempt: Attempt) -> bool:
        """Whether nobody waits for it; not while too much is under way, which makes callers as slow as the books."""
        worked = attempt.failure is None and not attempt.request.call.waits_for_cost
        return worked and len(self._later) < self._limits.later_max

    async def _settle_with_others(self, attempt: Attempt, unheld: Reservation | None) -> None:
        """Settle together with what ends in the next milliseconds: each by itself would keep the next hold waiting."""
        if self._gathered.is_set():
            self._gathered = asyncio.Event()
            asyncio.get_running_loop().call_later(self._limits.gather_s, self._gathered.set)
        await self._gathered.wait()
        await self._settle(attempt, unheld)

    async def _settle(self, attempt: Attempt, unheld: Reservation | None) -> None:
        settlement = Settlement(
            attempt_id=attempt.attempt_id,
            usage=attempt.usage,
            provider_model=attempt.collector.provider_model,
            occurred_at_us=attempt.stopwatch.started_at_us,
            succeeded=attempt.failure is None,
            service_tier=attempt.collector.service_tier,
        )

        bill = Bill(attempt.owner, settlement, unheld, current_traceparent())
        if unheld is not None:
            await self._bill_later(bill)
            return
        try:
            attempt.cost = await self._cost.settle(attempt.owner, settlement)
            self._figures.settled(attempt)
        except DomainError as error:
            if error.code not in AMBIGUOUS_CODES:
                _log.error("the cost service refused to settle %s: %s", attempt.attempt_id, error.message)
                return
            self._policy.failed()
            await self._bill_later(bill)
        except asyncio.CancelledError:
            # Cancelled a second time; to settle again is harmless.
            self._do_later(lambda: self._late_bills.send(bill), f"settle {attempt.attempt_id}")
            raise

    async def _bill_later(self, bill: Bill) -> None:
        try:
            await self._late_bills.add(bill)
        except JournalFull as full:
            _log.error("a bill is kept in memory only: %s", full)
            self._do_later(lambda: self._late_bills.send(bill), f"settle {bill.settlement.attempt_id}")

    async def _release(self, attempt: Attempt) -> None:
        release = self._releasing(attempt)
        what = f"release {attempt.attempt_id}"
        try:
            await release()
        except DomainError as error:
            if error.code not in AMBIGUOUS_CODES:
                _log.error("the cost service refused to %s: %s", what, error.message)
            else:
                self._do_later(release, what)
        except asyncio.CancelledError:
            self._do_later(release, what)
            raise

    def _release_later(self, attempt: Attempt) -> None:
        self._do_later(self._releasing(attempt), f"release {attempt.attempt_id}")

    def _releasing(self, attempt: Attempt) -> Callable[[], Awaitable[None]]:
        return lambda: self._cost.release(attempt.owner, attempt.attempt_id)

    def _do_later(self, action: Callable[[], Awaitable[None]], what: str) -> None:
        if len(self._later) >= self._limits.later_max:
            _log.error("too much waits for the cost service: gave up to %s; its hold expires by itself", what)
            return
        self._begin_later(self._keep_trying(action, what), what)

    def _begin_later(self, work: Coroutine[Any, Any, None], what: str) -> None:
        task = asyncio.create_task(work, name=what)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _keep_trying(self, action: Callable[[], Awaitable[None]], what: str) -> None:
        give_up = self._clock.monotonic_s() + self._limits.later_s
        pause_s = self._limits.retry_base_s
        while True:
            try:
                await action()
            except DomainError as error:
                if error.code not in AMBIGUOUS_CODES or self._clock.monotonic_s() + pause_s > give_up:
                    _log.error("gave up to %s: %s; the hold expires by itself", what, error.message)
                    return
            else:
                return
            await asyncio.sleep(_jittered(pause_s))
            pause_s = min(pause_s * 2, self._limits.retry_max_s)


def _jittered(pause_s: float) -> float:
    return pause_s * (0.5 + random.random() / 2)  # noqa: S311 (spreads retries, hides nothing)


def _refusal(error: DomainError) -> CallFailed:
    reason = _REASON_OF_REFUSAL.get(error.reason, error.reason)
    return CallFailed(Failure(reason, error.message, dispatched=False, retry_after_ms=error.retry_after_ms or 0))
