"""One call, asked of one deployment after the other until one answers, with a second one beside a slow one."""

from __future__ import annotations

import asyncio

from services.gateway.admission import ActiveCall
from services.gateway.attempts import Attempt
from services.gateway.calls import Owner, ProviderRequest
from services.gateway.chunks import Emit
from services.gateway.dispatching import interrupted
from services.gateway.failures import CallFailed, Failure
from services.gateway.hedging import FirstContentTimes, Race, Run
from services.gateway.routing import Router, Step, Way
from services.gateway.timing import Stopwatch
from services.runtime.clock import Clock

_INTERRUPTIONS = frozenset({"DEADLINE_EXCEEDED", "CANCELLED"})


class Asking:
    """The attempts of one call. `attempts` holds all that were made; the last one gave the answer, or failed last."""

    def __init__(
        self, way: Way, owner: Owner, active: ActiveCall, router: Router, times: FirstContentTimes, clock: Clock
    ) -> None:
        self.attempts: list[Attempt] = []
        self._way = way
        self._owner = owner
        self._active = active
        self._router = router
        self._times = times
        self._clock = clock
        self._arrived_s = clock.monotonic_s()

    async def run(self, make: Run, emit: Emit | None) -> None:
        """Make attempts until one gives the answer, within the call's deadline. Raises the last one's CallFailed."""
        step = self._way.first
        try:
            async with self._active.limited():
                while True:
                    try:
                        await self._try(step, make, emit)
                        return
                    except CallFailed as failed:
                        following = self._way.after(self.attempts[-1], failed.failure)
                        if following is None:
                            raise
                        step = following
                    await asyncio.sleep(step.pause_s)
        except TimeoutError:
            raise CallFailed(self._interruption()) from None

    def _interruption(self) -> Failure:
        attempt = self.attempts[-1]
        failure = attempt.failure
        if failure is not None and failure.reason in _INTERRUPTIONS:
            return failure
        return interrupted(attempt, self._active, self._clock.monotonic_s())

    async def _try(self, step: Step, make: Run, emit: Emit | None) -> None:
        attempt = self._next(step)
        delay_s = self._times.delay_s(attempt.deployment.name, self._way.hedge_after_ms)
        if delay_s is None:
            try:
                await make(attempt, emit)
            finally:
                self._times.learn(attempt)
            return
        race = Race(attempt, make, emit)
        try:
            await race.run(delay_s, lambda: self._rival(attempt))
        finally:
            self._finish(race, attempt)

    def _rival(self, attempt: Attempt) -> Attempt | None:
        """A second attempt beside this one, where the retry budget has one."""
        if not self._router.retries.spend(attempt):
            return None
        return self._next(self._way.beside(attempt))

    def _finish(self, race: Race, first: Attempt) -> None:
        """Put the attempt that counts at the end, and remember how the other one failed."""
        last = race.winner or first
        for attempt in race.attempts:
            self._times.learn(attempt)
            if attempt is not last and attempt.reserved and attempt.failure is not None and not attempt.beaten:
                self._way.failed(attempt)
        self.attempts.remove(last)
        self.attempts.append(last)

    def _next(self, step: Step) -> Attempt:
        deployment = step.deployment
        call = self._way.call_for(deployment)
        limit = call.parameters.max_output_tokens
        if limit is None:
            limit = deployment.default_max_output_tokens
        # An attempt that was refused before its hold has used no id up.
        ordinal = 1 + sum(attempt.reserved for attempt in self.attempts)
        attempt_id = f"{call.call_id}/{ordinal}"
        attempt = Attempt(
            attempt_id=attempt_id,
            deployment=deployment,
            request=ProviderRequest(attempt_id, deployment.model, call, limit, deployment.reasoning_style),
            owner=self._owner,
            nonce=call.dispatch_nonce,
            deadline=self._arrived_s + self._active.timeout_ms / 1_000,
            stopwatch=Stopwatch(self._clock, self._arrived_s),
            cause=step.cause,
            waits=step.waits,
        )
        self.attempts.append(attempt)
        return attempt
