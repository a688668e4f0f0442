"""Sending one attempt to its provider, and what is left of it however it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

from services.gateway.admission import ActiveCall
from services.gateway.attempts import Attempt
from services.gateway.chunks import Emit, Event, Read
from services.gateway.failures import CallFailed, Failure, with_partial
from services.gateway.providers.port import Provider
from services.gateway.usage import TokenUsage, with_estimate
from services.runtime.clock import Clock
from services.runtime.failpoints import failpoint

_log = logging.getLogger(__name__)


class Dispatcher:
    """The innermost layer of the pipeline."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def send(self, attempt: Attempt, provider: Provider, active: ActiveCall, emit: Emit | None) -> None:
        """Send the request and take everything in. Leaves what came of it in the attempt; raises CallFailed."""
        try:
            stream = provider.stream(attempt.request, attempt.deadline)
            attempt.dispatched = True
            attempt.stopwatch.leave()
            await _consume(attempt, stream, emit)
        except CallFailed as failed:
            attempt.dispatched = failed.failure.dispatched
            attempt.failure = _with_what_came(attempt, failed.failure)
            raise CallFailed(attempt.failure) from failed
        except asyncio.CancelledError:
            attempt.failure = _with_what_came(attempt, interrupted(attempt, active, self._clock.monotonic_s()))
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


async def _consume(attempt: Attempt, stream: AsyncGenerator[list[Event], None], emit: Emit | None) -> None:
    collector, stopwatch = attempt.collector, attempt.stopwatch
    try:
        async for events in stream:
            attempt.heard = True
            offset_us = stopwatch.arrived(events)
            collector.add(events)
            failpoint("gateway.during_call")
            if emit is not None and (taking := emit(Read(attempt.attempt_id, offset_us, events))) is not None:
                await taking
    finally:
        # Closes the socket where the stream has not ended; a provider's generator does that without waiting.
        await stream.aclose()
    if collector.finish_reason is None:
        message = "the provider's answer stopped without a finish reason; the text so far is in partial_text"
        raise CallFailed(Failure("STREAM_TRUNCATED", message, dispatched=True))


def interrupted(attempt: Attempt, active: ActiveCall, now_s: float) -> Failure:
    """The failure of an attempt that was stopped from outside: by its deadline, its id, its caller, or a rival."""
    if attempt.beaten:
        message = "another attempt of the call, beside this one, was the first to answer"
        return Failure("CANCELLED", message, dispatched=attempt.dispatched)
    if active.expired or (not active.cancelled and now_s >= attempt.deadline):
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
