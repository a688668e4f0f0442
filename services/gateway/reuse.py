"""The layer that answers a call with another one's answer: a kept one, or that of an equal call under way.

Single-flight comes before the cache, so that a crowd makes one look-up, and no call falls between a flight's end and
the keeping of its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import replace

from services.gateway.admission import ActiveCall
from services.gateway.attempts import CallOutcome, Completion, Cost, FailedCall, Reuse
from services.gateway.cache import AnswerCache
from services.gateway.cache_key import flight_key
from services.gateway.calls import Call, Owner
from services.gateway.chunks import Emit
from services.gateway.failures import PARTIAL_TEXT_MAX, Failure
from services.gateway.flights import Flight, Flights, Seat
from services.gateway.kept_answers import KeptAnswer, may_be_kept
from services.runtime.clock import Clock

Ask = Callable[[Call, Owner, ActiveCall, Emit | None], Awaitable[CallOutcome]]
"""Asks the model, whatever is kept or under way: the rest of the pipeline."""

_TIMEOUT_FACTOR = 2
"""A flight may take so many times its first call's timeout: whoever boards before that call's deadline, and is as
patient, is in time. It ends earlier when nobody waits any more."""

_TIMEOUT_MAX_MS = 3_600_000

# What is wrong with one call of a flight, not with what it asks.
_OWN_FAILURES = frozenset({"CALL_ALREADY_DISPATCHED"})


class Reuser:
    """The reuse layer of the pipeline."""

    def __init__(self, cache: AnswerCache, flights: Flights, clock: Clock) -> None:
        self._cache = cache
        self._flights = flights
        self._clock = clock

    async def run(
        self, key: str, call: Call, owner: Owner, active: ActiveCall, emit: Emit | None, ask: Ask
    ) -> CallOutcome:
        """Run one call as the pipeline does; `key` is its `cache_key`."""
        arrived_s = self._clock.monotonic_s()
        deadline_s = arrived_s + call.timeout_ms / 1_000
        shared_key = flight_key(key, call, owner) if call.caching.mode == "use" else None
        while True:
            boarded = None
            if shared_key is not None:
                boarded = self._flights.board(shared_key, deadline_s, follows=emit is not None)
            if boarded:
                flight, seat = boarded
            else:
                flight = self._begin(shared_key, key, call, owner, arrived_s, ask)
                seat = flight.board(follows=emit is not None)
            outcome = await self._followed(flight, seat, call, active, emit, deadline_s, leads=not boarded)
            if boarded and isinstance(outcome, FailedCall) and outcome.failure.reason in _OWN_FAILURES:
                continue
            return self._told(outcome, call, arrived_s, leads=not boarded)

    def _begin(self, shared_key: Hashable, key: str, call: Call, owner: Owner, arrived_s: float, ask: Ask) -> Flight:
        async def fly(flight: Flight) -> CallOutcome:
            if call.caching.mode == "use":
                kept = await self._cache.get(key, call.caching.max_age_s)
                if kept is not None:
                    for read in kept.reads:
                        if (taking := flight.emit(read)) is not None:
                            await taking
                    return kept.completion(call)
            outcome = await ask(call, owner, flight.active, flight.emit)
            if isinstance(outcome, Completion) and not flight.overflowed and may_be_kept(call, outcome):
                await self._cache.put(key, self._kept(outcome, flight))
            return outcome

        timeout_ms = min(call.timeout_ms * _TIMEOUT_FACTOR, _TIMEOUT_MAX_MS)
        return self._flights.begin(shared_key, fly, timeout_ms, arrived_s + timeout_ms / 1_000)

    def _kept(self, completion: Completion, flight: Flight) -> KeptAnswer:
        # What attempts before the last one brought is no part of the answer.
        attempt_id = completion.attempts[-1].attempt_id
        reads = [read for read in flight.reads if read.attempt_id == attempt_id]
        return KeptAnswer(attempt_id, self._clock.now_us(), completion.usage, completion.timing, reads)

    async def _followed(
        self,
        flight: Flight,
        seat: Seat,
        call: Call,
        active: ActiveCall,
        emit: Emit | None,
        deadline_s: float,
        *,
        leads: bool,
    ) -> CallOutcome:
        """What the flight comes to for one of those aboard, within its own deadline."""
        left = False
        try:
            async with asyncio.timeout(deadline_s - self._clock.monotonic_s()) as active.limit:
                return await flight.follow(seat, emit)
        except TimeoutError:
            if not active.cancelled and flight.active.answered and flight.caught_up(seat):
                # Only its settlement is left, which no deadline cuts.
                return await flight.follow(seat, None)
            left = True
            outcome = await flight.leave(seat, expired=not active.cancelled)
            return outcome if isinstance(outcome, Completion) else _stopped(call, flight, outcome, active, leads=leads)
        finally:
            if not left:
                await flight.leave(seat)

    def _told(self, outcome: CallOutcome, call: Call, arrived_s: float, *, leads: bool) -> CallOutcome:
        """The outcome as one to this call: only the one that leads has paid."""
        if isinstance(outcome, FailedCall):
            if leads:
                return outcome
            # Nothing of this call has left, so it owes nothing.
            return FailedCall(call.call_id, replace(outcome.failure, dispatched=False, usage=None))
        reuse = outcome.reuse
        if reuse is None:
            if leads:
                return outcome
            paid = outcome.attempts[-1]
            reuse = Reuse("flight", paid.attempt_id, paid.started_at_us + paid.duration_us)
        latency_us = round((self._clock.monotonic_s() - arrived_s) * 1_000_000)
        return replace(
            outcome,
            call_id=call.call_id,
            model=call.model,
            cost=Cost(0),
            attempts=(),
            reuse=replace(reuse, latency_us=latency_us),
        )


def _stopped(call: Call, flight: Flight, outcome: CallOutcome | None, active: ActiveCall, *, leads: bool) -> FailedCall:
    """How a call fails that is stopped by its deadline or its id; `outcome` is the flight's, if that ended with it."""
    if active.cancelled:
        reason, message = "CANCELLED", "the call was cancelled"
    else:
        reason = "DEADLINE_EXCEEDED"
        message = f"the call did not finish within its {call.timeout_ms} ms; raise timeout_ms or ask for less output"
    if isinstance(outcome, FailedCall):
        told = outcome.failure.message if not outcome.failure.dispatched else message
        return replace(outcome, failure=replace(outcome.failure, reason=reason, message=told))
    # Others wait on; what the attempt takes is charged to the call that leads.
    text = flight.text()
    failure = Failure(
        reason, message, dispatched=leads, partial_text=text[:PARTIAL_TEXT_MAX], output_began=bool(flight.reads)
    )
    return FailedCall(call.call_id, failure)
