"""The way of a call, in one place.

    admission -> single-flight -> cache -> route -> deadline -> retries
        -> attempts: breaker -> limit -> hold -> provider stream -> settle

Each layer is a module of its own. A layer that fails gives back what the layers before it took, because each one is
a context manager around the next. The unary answer is the collected stream: there is one path for both.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace

from services.gateway.accounting import Accounting
from services.gateway.admission import ActiveCall, Admission
from services.gateway.attempts import Attempt, CallOutcome, Completion, FailedCall, total_cost
from services.gateway.breaker import Breakers
from services.gateway.cache_key import cache_key
from services.gateway.calls import Call, Owner, ProviderRequest
from services.gateway.catalogue import Catalogue, Deployment
from services.gateway.chunks import Emit, Event
from services.gateway.failures import CallFailed, Failure, with_partial
from services.gateway.limits import RateLimits
from services.gateway.providers.port import Provider
from services.gateway.retries import Retries
from services.gateway.reuse import Reuser
from services.gateway.timing import Stopwatch
from services.gateway.usage import TokenUsage, with_estimate
from services.runtime.clock import Clock
from services.runtime.failpoints import failpoint

_log = logging.getLogger(__name__)

_INTERRUPTIONS = frozenset({"DEADLINE_EXCEEDED", "CANCELLED"})


class Pipeline:
    """Runs calls. One per process; holds no state of a call."""

    def __init__(
        self,
        *,
        admission: Admission,
        reuser: Reuser,
        catalogue: Catalogue,
        providers: Mapping[str, Provider],
        retries: Retries,
        breakers: Breakers,
        limits: RateLimits,
        accounting: Accounting,
        clock: Clock,
    ) -> None:
        self._admission = admission
        self._reuser = reuser
        self._catalogue = catalogue
        self._providers = providers
        self._retries = retries
        self._breakers = breakers
        self._limits = limits
        self._accounting = accounting
        self._clock = clock

    async def run(self, call: Call, owner: Owner, emit: Emit | None = None) -> CallOutcome:
        """Run one call to its end; `emit` sees every event as it arrives.

        Failures are outcomes, not exceptions. Cancelling the task stops the provider, settles, and raises
        CancelledError.
        """
        try:
            with self._admission.admitted(owner, call) as active:
                if call.caching.mode == "off":
                    return await self._called(call, owner, active, emit)
                key = cache_key(owner.project_id, self._catalogue.route(call.model), call)
                return await self._reuser.run(key, call, owner, active, emit, self._called)
        except CallFailed as failed:
            return FailedCall(call.call_id, failed.failure)

    async def _called(self, call: Call, owner: Owner, active: ActiveCall, emit: Emit | None) -> CallOutcome:
        """Ask the model, whatever is kept or under way."""
        attempts: list[Attempt] = []
        try:
            await self._answered(call, owner, attempts, active, emit)
            return _completion(call, attempts)
        except CallFailed as failed:
            sent = tuple(attempt.record() for attempt in attempts if attempt.dispatched)
            # What an earlier attempt sent stays sent, also where the last one was refused by the gateway itself.
            failure = replace(failed.failure, dispatched=failed.failure.dispatched or bool(sent))
            return FailedCall(call.call_id, failure, sent)

    async def _answered(
        self, call: Call, owner: Owner, attempts: list[Attempt], active: ActiveCall, emit: Emit | None
    ) -> None:
        """Make attempts until one gives the answer, within the call's deadline. Raises the last one's CallFailed."""
        arrived_s = self._clock.monotonic_s()
        deployment = self._catalogue.route(call.model)
        self._retries.began(deployment.name)
        try:
            async with asyncio.timeout(active.timeout_ms / 1_000) as active.limit:
                while True:
                    ordinal = len(attempts) + 1
                    attempt = self._next_attempt(call, owner, deployment, ordinal, arrived_s, active.timeout_ms)
                    attempts.append(attempt)
                    try:
                        await self._attempt(attempts[-1], active, emit)
                        return
                    except CallFailed:
                        pause_s = self._retries.pause_s(attempts[-1], len(attempts))
                        if pause_s is None:
                            raise
                    await asyncio.sleep(pause_s)
        except TimeoutError:
            failure = attempts[-1].failure
            if failure is None or failure.reason not in _INTERRUPTIONS:
                failure = self._interrupted(attempts[-1], active)
            raise CallFailed(failure) from None

    def _next_attempt(
        self, call: Call, owner: Owner, deployment: Deployment, ordinal: int, arrived_s: float, timeout_ms: int
    ) -> Attempt:
        limit = call.parameters.max_output_tokens
        if limit is None:
            limit = deployment.default_max_output_tokens
        attempt_id = f"{call.call_id}/{ordinal}"
        return Attempt(
            attempt_id=attempt_id,
            deployment=deployment,
            request=ProviderRequest(attempt_id, deployment.model, call, limit, deployment.reasoning_style),
            owner=owner,
            nonce=call.dispatch_nonce,
            deadline=arrived_s + timeout_ms / 1_000,
            stopwatch=Stopwatch(self._clock, arrived_s),
        )

    async def _attempt(self, attempt: Attempt, active: ActiveCall, emit: Emit | None) -> None:
        """One attempt. Raises CallFailed with what had arrived; the attempt is settled or released in any case."""
        with self._breakers.guarded(attempt):
            async with self._limits.admitted(attempt), self._accounting.held(attempt):
                await self._dispatch(attempt, active, emit)
                active.has_answer()

    async def _dispatch(self, attempt: Attempt, active: ActiveCall, emit: Emit | None) -> None:
        """Send the request and take everything in. Leaves what came of it in the attempt."""
        try:
            stream = self._providers[attempt.provider].stream(attempt.request, attempt.deadline)
            attempt.dispatched = True
            attempt.stopwatch.leave()
            await self._consume(attempt, stream, emit)
        except CallFailed as failed:
            attempt.dispatched = failed.failure.dispatched
            attempt.failure = _with_what_came(attempt, failed.failure)
            raise CallFailed(attempt.failure) from failed
        except asyncio.CancelledError:
            attempt.failure = _with_what_came(attempt, self._interrupted(attempt, active))
            raise
        except Exception as error:
            # A fault of ours must neither lose the settlement nor take the other calls of a batch along.
            _log.exception("call %s met a fault of the gateway", attempt.attempt_id)
            message = "the gateway failed while it read the answer; its log has the call id"
            attempt.failure = _with_what_came(attempt, Failure("INTERNAL", message, dispatched=attempt.dispatched))
            raise CallFailed(attempt.failure) from error
        else:
            attempt.usage = attempt.collector.usage or _estimated(attempt)
        finally:
            attempt.duration_us = attempt.stopwatch.since_leaving_us()

    async def _consume(self, attempt: Attempt, stream: AsyncGenerator[list[Event], None], emit: Emit | None) -> None:
        collector, stopwatch = attempt.collector, attempt.stopwatch
        try:
            async for events in stream:
                attempt.heard = True
                offset_us = stopwatch.arrived(events)
                collector.add(events)
                failpoint("gateway.during_call")
                if emit is not None:
                    await emit(attempt.attempt_id, offset_us, events)
        finally:
            # Closes the socket where the stream has not ended; a provider's generator does that without waiting.
            await stream.aclose()
        if collector.finish_reason is None:
            message = "the provider's answer stopped without a finish reason; the text so far is in partial_text"
            raise CallFailed(Failure("STREAM_TRUNCATED", message, dispatched=True))

    def _interrupted(self, attempt: Attempt, active: ActiveCall) -> Failure:
        """The failure of an attempt that was stopped from outside: by its deadline, by its id, or by its caller."""
        if active.expired or (not active.cancelled and self._clock.monotonic_s() >= attempt.deadline):
            timeout_ms = attempt.request.call.timeout_ms
            message = f"the call did not finish within its {timeout_ms} ms; raise timeout_ms or ask for less output"
            if not attempt.dispatched:
                message = (
                    f"the cost service did not confirm the hold within the call's {timeout_ms} ms, so nothing was sent "
                    "and nothing is owed; try again later or raise timeout_ms"
                )
            return Failure("DEADLINE_EXCEEDED", message, dispatched=attempt.dispatched)
        return Failure("CANCELLED", "the call was cancelled", dispatched=attempt.dispatched)


def _with_what_came(attempt: Attempt, failure: Failure) -> Failure:
    """The failure with the text and usage that had arrived; fixes what the attempt owes.

    A provider that refused is owed nothing. One that was stopped or lost in the middle may charge, so its usage is
    estimated.
    """
    collector = attempt.collector
    if collector.content_events or collector.usage or failure.ambiguous:
        attempt.usage = _estimated(attempt)
    return with_partial(failure, collector.text(), attempt.usage, output_began=collector.content_events > 0)


def _estimated(attempt: Attempt) -> TokenUsage:
    collector = attempt.collector
    return with_estimate(collector.usage, attempt.request.call, collector.output(), collector.reasoning())


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
