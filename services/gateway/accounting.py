"""Money around an attempt: reserved before it leaves, settled after it, whatever becomes of it.

An attempt that left is settled, also when its caller has gone; one that did not leave is released. A settlement that
the cost service does not take goes on being tried in the background for a while: the answer is not held back by it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from services.gateway.attempts import Attempt, Cost
from services.gateway.calls import Owner
from services.gateway.failures import CallFailed, Failure, refused
from services.gateway.tiers import asked_tier
from services.gateway.usage import TokenUsage, estimate_input_tokens
from services.runtime.clock import Clock
from services.runtime.errors import DomainError
from services.runtime.failpoints import failpoint

_log = logging.getLogger(__name__)

# Codes of a cost service that may or may not have acted; all others are a refusal.
_AMBIGUOUS_CODES = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "ABORTED", "CANCELLED"})
_REASON_OF_REFUSAL = {"HOLD_NONCE_MISMATCH": "CALL_ALREADY_DISPATCHED"}


@dataclass(frozen=True, slots=True)
class Reservation:
    """The worst case of one attempt. `nonce` makes a repeat of the same request harmless and another one refused."""

    attempt_id: str
    nonce: str
    provider: str
    model: str
    input_tokens_max: int
    output_tokens_max: int
    run_id: str
    tags: tuple[tuple[str, str], ...]
    expires_in_ms: int
    steps_max: int = 0
    service_tier: str = ""


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an attempt ended. `usage` None: nothing is owed although it was sent.

    An empty `service_tier` means the one that was reserved.
    """

    attempt_id: str
    usage: TokenUsage | None
    provider_model: str
    occurred_at_us: int
    succeeded: bool
    service_tier: str = ""


class CostPort(Protocol):
    """The cost service as the gateway needs it. All three are idempotent.

    An item that was handed in is sent even when the caller is cancelled. Raises DomainError: a refusal, or Unavailable
    and its like where the service may or may not have acted.
    """

    async def hold(self, owner: Owner, reservation: Reservation) -> None:
        """Reserve."""
        ...

    async def settle(self, owner: Owner, settlement: Settlement) -> Cost:
        """Record what was used; returns its price."""
        ...

    async def release(self, owner: Owner, attempt_id: str) -> None:
        """Give a reservation back; none being there is fine."""
        ...


@dataclass(frozen=True, slots=True)
class AccountingLimits:
    """Bounds of the layer's patience."""

    hold_wait_s: float = 5.0
    hold_margin_ms: int = 30_000
    later_s: float = 60.0
    later_max: int = 10_000
    retry_base_s: float = 0.05
    retry_max_s: float = 2.0


class Accounting:
    """The hold layer of the pipeline."""

    def __init__(self, cost: CostPort, clock: Clock, limits: AccountingLimits | None = None) -> None:
        self._cost = cost
        self._clock = clock
        self._limits = limits or AccountingLimits()
        self._later: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def held(self, attempt: Attempt) -> AsyncIterator[None]:
        """Money is held inside; afterwards it is settled where the attempt was dispatched, and released where not.

        Raises CallFailed, not dispatched, where the hold is refused or the cost service does not answer in time.
        """
        failpoint("gateway.before_hold")
        await self._hold(attempt)
        failpoint("gateway.after_hold")
        try:
            yield
        finally:
            if attempt.dispatched:
                failpoint("gateway.before_settle")
                await self._settle(attempt)
                failpoint("gateway.after_settle")
            else:
                await self._release(attempt)

    async def close(self, timeout_s: float) -> None:
        """Give what is still to be settled or released this much time."""
        if self._later:
            await asyncio.wait(self._later, timeout=timeout_s)
        for task in tuple(self._later):
            task.cancel()

    async def _hold(self, attempt: Attempt) -> None:
        attempt.reserved = True
        reservation = self._reservation(attempt)
        give_up = min(attempt.deadline, self._clock.monotonic_s() + self._limits.hold_wait_s)
        pause_s = self._limits.retry_base_s
        while True:
            try:
                await self._cost.hold(attempt.owner, reservation)
                return
            except DomainError as error:
                if error.code not in _AMBIGUOUS_CODES:
                    raise _refusal(error) from error
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

    async def _settle(self, attempt: Attempt) -> None:
        settlement = Settlement(
            attempt_id=attempt.attempt_id,
            usage=attempt.usage,
            provider_model=attempt.collector.provider_model,
            occurred_at_us=attempt.stopwatch.started_at_us,
            succeeded=attempt.failure is None,
            service_tier=attempt.collector.service_tier,
        )

        async def settle() -> None:
            attempt.cost = await self._cost.settle(attempt.owner, settlement)

        await self._now_or_later(settle, f"settle {attempt.attempt_id}")

    async def _release(self, attempt: Attempt) -> None:
        await self._now_or_later(self._releasing(attempt), f"release {attempt.attempt_id}")

    def _release_later(self, attempt: Attempt) -> None:
        self._do_later(self._releasing(attempt), f"release {attempt.attempt_id}")

    def _releasing(self, attempt: Attempt) -> Callable[[], Awaitable[None]]:
        return lambda: self._cost.release(attempt.owner, attempt.attempt_id)

    async def _now_or_later(self, action: Callable[[], Awaitable[None]], what: str) -> None:
        try:
            await action()
        except DomainError as error:
            if error.code not in _AMBIGUOUS_CODES:
                _log.error("the cost service refused to %s: %s", what, error.message)
            else:
                self._do_later(action, what)
        except asyncio.CancelledError:
            # Cancelled a second time; all three operations are idempotent, so doing it again is harmless.
            self._do_later(action, what)
            raise

    def _do_later(self, action: Callable[[], Awaitable[None]], what: str) -> None:
        if len(self._later) >= self._limits.later_max:
            _log.error("too much waits for the cost service: gave up to %s; its hold expires by itself", what)
            return
        task = asyncio.create_task(self._keep_trying(action, what), name=what)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _keep_trying(self, action: Callable[[], Awaitable[None]], what: str) -> None:
        give_up = self._clock.monotonic_s() + self._limits.later_s
        pause_s = self._limits.retry_base_s
        while True:
            try:
                await action()
            except DomainError as error:
                if error.code not in _AMBIGUOUS_CODES or self._clock.monotonic_s() + pause_s > give_up:
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
