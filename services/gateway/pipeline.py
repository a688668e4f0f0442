"""The way of a call, in one place.

    admission -> single-flight -> cache -> deadline -> routing: retries, fallbacks, hedging
        -> attempts: breaker -> limit -> hold -> provider stream -> settle

Each layer is a module of its own. A layer that fails gives back what the layers before it took, because each one is
a context manager around the next. The unary answer is the collected stream: there is one path for both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from services.gateway.accounting import Accounting
from services.gateway.admission import ActiveCall, Admission
from services.gateway.asking import Asking
from services.gateway.attempts import Attempt, CallOutcome, Completion, FailedCall, total_cost
from services.gateway.breaker import Breakers
from services.gateway.cache_key import cache_key
from services.gateway.calls import Call, Owner
from services.gateway.chunks import Emit
from services.gateway.dispatching import Dispatcher
from services.gateway.failures import CallFailed
from services.gateway.fleet import Fleet, Generation
from services.gateway.hedging import FirstContentTimes
from services.gateway.limits import RateLimits
from services.gateway.no_accounting import NoAccounting
from services.gateway.providers.port import Provider
from services.gateway.reuse import Reuser
from services.gateway.routing import Router
from services.runtime.clock import Clock


class Pipeline:
    """Runs calls. One per process; holds no state of a call."""

    def __init__(
        self,
        *,
        admission: Admission,
        reuser: Reuser,
        fleet: Fleet,
        router: Router,
        breakers: Breakers,
        limits: RateLimits,
        accounting: Accounting | NoAccounting,
        clock: Clock,
        reached: Callable[[Provider], Provider] = lambda provider: provider,
        dispatcher: Dispatcher | None = None,
    ) -> None:
        """`reached` makes of a provider what the calls go to: its embeddings, for one."""
        self._admission = admission
        self._reuser = reuser
        self._fleet = fleet
        self._router = router
        self._breakers = breakers
        self._limits = limits
        self._accounting = accounting
        self._clock = clock
        self._dispatcher = dispatcher or Dispatcher(clock)
        self._times = FirstContentTimes()
        self._reached = reached

    async def run(self, call: Call, owner: Owner, emit: Emit | None = None) -> CallOutcome:
        """Run one call to its end; `emit` sees every event as it arrives.

        Failures are outcomes, not exceptions. Cancelling the task stops the provider, settles, and raises
        CancelledError.
        """
        try:
            with self._admission.admitted(owner, call) as active:
                if call.caching.mode == "off":
                    return await self._called(call, owner, active, emit)
                key = cache_key(owner.project_id, self._fleet.catalogue.route(call.model), call)
                return await self._reuser.run(key, call, owner, active, emit, self._called)
        except CallFailed as failed:
            return FailedCall(call.call_id, failed.failure)

    async def _called(self, call: Call, owner: Owner, active: ActiveCall, emit: Emit | None) -> CallOutcome:
        """Ask the model, whatever is kept or under way."""
        attempts: list[Attempt] = []
        try:
            with self._fleet.lease() as generation:
                way = self._router.way(generation.catalogue, call)
                asking = Asking(way, owner, active, self._router, self._times, self._clock)
                attempts = asking.attempts
                await asking.run(lambda attempt, emit: self._attempt(attempt, generation, active, emit), emit)
                return _completion(call, attempts)
        except CallFailed as failed:
            sent = tuple(attempt.record() for attempt in attempts if attempt.dispatched)
            # What an earlier attempt sent stays sent, also where the last one was refused by the gateway itself.
            failure = replace(failed.failure, dispatched=failed.failure.dispatched or bool(sent))
            return FailedCall(call.call_id, failure, sent)

    async def _attempt(self, attempt: Attempt, generation: Generation, active: ActiveCall, emit: Emit | None) -> None:
        """One attempt. Raises CallFailed with what had arrived; the attempt is settled or released in any case."""
        provider = self._reached(generation.providers[attempt.provider])
        async with (
            self._breakers.guarded(attempt),
            self._limits.admitted(attempt),
            self._accounting.held(attempt),
        ):
            await self._dispatcher.send(attempt, provider, active, emit)
            if not attempt.beaten:
                active.has_answer()


def _completion(call: Call, attempts: list[Attempt]) -> Completion:
    attempt = attempts[-1]
    sent = tuple(attempt.record() for attempt in attempts if attempt.dispatched)
    collector = attempt.collector
    if collector.finish_reason is None or attempt.usage is None:
        raise AssertionError("an attempt that ended well has a finish reason and usage")
    return Completion(
        call_id=call.call_id,
        model=call.model,
        provider_model=collector.provider_model or attempt.request.model,
        parts=collector.parts(),
        finish_reason=collector.finish_reason,
        usage=attempt.usage,
        timing=attempt.stopwatch.timing(streamed=collector.streamed),
        cost=total_cost(sent),
        attempts=sent,
        raw=collector.raw(),
    )
