"""Circuit breakers: a deployment that keeps failing is left alone for a while, then tried with a single call.

    closed -> open         most of the recent calls failed, or many in a row
    open -> half-open      its time is over; `probes_max` calls may pass, all others are still refused
    half-open -> closed    a probe worked
    half-open -> open      a probe failed; the time open doubles

Opening again soon after closing makes the time longer too. Times are jittered, so that replicas do not probe together.
Source of the rules: Envoy's outlier detection (ratio with a minimum volume, consecutive failures, growing ejection).
"""

from __future__ import annotations

import logging
import random
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from services.gateway.attempts import Attempt
from services.gateway.breaker_share import Alone, BreakerShare, SharedBreaker
from services.gateway.catalogue import Deployment
from services.gateway.failures import refused
from services.gateway.layer import Around
from services.gateway.recent import Recent
from services.runtime import telemetry
from services.runtime.clock import Clock

_log = logging.getLogger(__name__)

_SLICES = 10
_PROBE_UNDER_WAY_RETRY_MS = 1_000
_EXPONENT_MAX = 20


class BreakerState(Enum):
    """What a breaker does with the next call."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Verdict(Enum):
    """What an attempt says about its deployment."""

    WORKED = "worked"
    FAILED = "failed"
    SILENT = "silent"
    """Nothing: it never left, its caller gave it up, or the fault was ours."""


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a breaker opens, and for how long.

    Attributes:
        window_s: how far back calls count.
        failure_ratio: share of failed calls from which it opens, where at least `calls_min` are in the window.
        consecutive_failures: failures in a row that open it, however few calls there are.
        open_s: first time open; doubled with every opening that follows closely, up to `open_max_s`.
        probes_max: calls under way while half-open.
        unanswered_s: a call that had heard nothing for so long when its deadline struck counts as failed.
        deployments_max: breakers kept; the one not used for longest is forgotten.
    """

    window_s: float = 30.0
    failure_ratio: float = 0.5
    calls_min: int = 20
    consecutive_failures: int = 10
    open_s: float = 5.0
    open_max_s: float = 120.0
    probes_max: int = 1
    unanswered_s: float = 10.0
    deployments_max: int = 10_000


@dataclass(frozen=True, slots=True)
class BreakerView:
    """A breaker for people to look at: calls and failures of its window; `probe_in_ms` is 0 where it is not open."""

    deployment: str
    state: BreakerState
    calls: int
    failures: int
    probe_in_ms: int


class Permit(NamedTuple):
    """A call that a breaker let pass. `era` tells calls from before a change of state from those after it."""

    era: int
    probe: bool


@dataclass(slots=True)
class _Slice:
    number: int
    calls: int = 0
    failures: int = 0


class Breaker:
    """The breaker of one deployment."""

    def __init__(
        self, deployment: str, rules: BreakerRules, clock: Clock, rng: random.Random, share: BreakerShare | None = None
    ) -> None:
        self.deployment = deployment
        self._share = share or Alone()
        self._rules = rules
        self._clock = clock
        self._rng = rng
        self._slices: deque[_Slice] = deque()
        self._in_a_row = 0
        self._state = BreakerState.CLOSED
        self._era = 0
        self._probes = 0
        self._probe_at_s = 0.0
        self._openings = 0
        self._closed_at_s = 0.0

    def admit(self) -> Permit | None:
        """Let a call pass, or None; every permit has to come back through `finish`."""
        if self._state is BreakerState.OPEN and self._clock.monotonic_s() >= self._probe_at_s:
            self._change(BreakerState.HALF_OPEN)
        if self._state is BreakerState.CLOSED:
            return Permit(self._era, probe=False)
        if self._state is BreakerState.HALF_OPEN and self._probes < self._rules.probes_max:
            self._probes += 1
            return Permit(self._era, probe=True)
        return None

    def finish(self, permit: Permit, verdict: Verdict) -> None:
        """A call is over. One that began before the last change of state says nothing about the new one."""
        if permit.era != self._era:
            return
        if permit.probe:
            self._probes -= 1
            if verdict is Verdict.WORKED:
                self._close()
            elif verdict is Verdict.FAILED:
                self._open()
        elif verdict is not Verdict.SILENT:
            self._count(failed=verdict is Verdict.FAILED)

    def refuses(self) -> bool:
        """Whether `admit` would give None now."""
        if self._state is BreakerState.OPEN:
            return self._clock.monotonic_s() < self._probe_at_s
        return self._state is BreakerState.HALF_OPEN and self._probes >= self._rules.probes_max

    @property
    def retry_after_ms(self) -> int:
        """When a refused caller may come back."""
        if self._state is BreakerState.OPEN:
            return max(1, round((self._probe_at_s - self._clock.monotonic_s()) * 1_000))
        return _PROBE_UNDER_WAY_RETRY_MS

    def view(self) -> BreakerView:
        """The state now."""
        self._forget_old()
        return BreakerView(
            deployment=self.deployment,
            state=self._state,
            calls=sum(each.calls for each in self._slices),
            failures=sum(each.failures for each in self._slices),
            probe_in_ms=self.retry_after_ms if self._state is BreakerState.OPEN else 0,
        )

    def _count(self, *, failed: bool) -> None:
        number = self._forget_old()
        if not self._slices or self._slices[-1].number != number:
            self._slices.append(_Slice(number))
        newest = self._slices[-1]
        newest.calls += 1
        if not failed:
            self._in_a_row = 0
            return
        newest.failures += 1
        self._in_a_row += 1
        if self._in_a_row >= self._rules.consecutive_failures or self._too_many_failed():
            self._open()

    def _too_many_failed(self) -> bool:
        calls = sum(each.calls for each in self._slices)
        failures = sum(each.failures for each in self._slices)
        return calls >= self._rules.calls_min and failures >= calls * self._rules.failure_ratio

    def _forget_old(self) -> int:
        """Drop what the window has left behind; returns the number of the slice that is now."""
        number = int(self._clock.monotonic_s() / self._rules.window_s * _SLICES)
        while self._slices and self._slices[0].number <= number - _SLICES:
            self._slices.popleft()
        return number

    def _open(self) -> None:
        now = self._clock.monotonic_s()
        if self._state is BreakerState.CLOSED and now - self._closed_at_s > self._rules.open_max_s:
            self._openings = 0
        longest = min(self._rules.open_max_s, self._rules.open_s * 2 ** min(self._openings, _EXPONENT_MAX))
        open_s = longest * self._rng.uniform(0.75, 1.0)
        self._openings += 1
        self._probe_at_s = now + open_s
        self._change(BreakerState.OPEN)
        self._share.tell(self.shared())
        _log.warning("the circuit breaker of %s is open for %.1f s: its calls keep failing", self.deployment, open_s)

    def _close(self) -> None:
        self._closed_at_s = self._clock.monotonic_s()
        self._slices.clear()
        self._change(BreakerState.CLOSED)
        self._share.tell(self.shared())
        _log.info("the circuit breaker of %s is closed again", self.deployment)

    def shared(self) -> SharedBreaker:
        """The state as other replicas should know it."""
        is_open = self._state is not BreakerState.CLOSED
        open_ms = max(0, round((self._probe_at_s - self._clock.monotonic_s()) * 1_000)) if is_open else 0
        return SharedBreaker(self.deployment, is_open, open_ms, self._openings)

    def adopt(self, change: SharedBreaker) -> None:
        """Follow a change that another replica made; calls under way say nothing about the new state."""
        self._openings = change.openings
        now = self._clock.monotonic_s()
        if not change.is_open:
            if self._state is not BreakerState.CLOSED:
                self._closed_at_s = now
                self._slices.clear()
                self._change(BreakerState.CLOSED)
                _log.info("the circuit breaker of %s is closed again: another replica's probe worked", self.deployment)
            return
        self._probe_at_s = now + change.open_ms / 1_000
        if self._state is not BreakerState.OPEN:
            self._change(BreakerState.OPEN)
            _log.warning(
                "the circuit breaker of %s is open for %.1f s: calls of another replica keep failing",
                self.deployment,
                change.open_ms / 1_000,
            )

    def _change(self, state: BreakerState) -> None:
        open_before, open_now = (each is not BreakerState.CLOSED for each in (self._state, state))
        telemetry.level("breakers_open").add(open_now - open_before)
        self._state = state
        self._era += 1
        self._probes = 0
        self._in_a_row = 0
        telemetry.counter("breaker_changes", to=state.value).add()


class Breakers:
    """The breaker layer of the pipeline: one breaker per deployment that was called, which follows those elsewhere."""

    def __init__(
        self,
        clock: Clock,
        rules: BreakerRules | None = None,
        rng: random.Random | None = None,
        share: BreakerShare | None = None,
    ) -> None:
        self._rules = rules = rules or BreakerRules()
        spread = rng or random.Random()  # noqa: S311 (spreads probes, hides nothing)
        self._share = share = share or Alone()
        self._breakers = Recent(lambda name: Breaker(name, rules, clock, spread, share), rules.deployments_max)
        self._refused = telemetry.counter("breaker_refused")
        # They are there, as 0, before the first breaker opens.
        telemetry.level("breakers_open")
        for state in BreakerState:
            telemetry.counter("breaker_changes", to=state.value)

    def guarded(self, attempt: Attempt) -> Around[tuple[Breaker, Permit] | None]:
        """The attempt may go out inside; what became of it counts on the way out.

        Raises CallFailed(CIRCUIT_OPEN), not dispatched. An attempt whose call ignores the breaker is neither refused
        nor counted.
        """
        return Around(attempt, self._enter, self._leave)

    async def _enter(self, attempt: Attempt) -> tuple[Breaker, Permit] | None:
        if attempt.request.call.ignore_circuit_breaker or not attempt.deployment.circuit_breaker:
            return None
        breaker = self._breakers.get(attempt.deployment.name)
        permit = await self._admitted(breaker)
        if permit is None:
            self._refused.add()
            message = (
                f"{breaker.deployment} keeps failing, so nothing was sent; try again later, use another model, or set "
                "resilience.ignore_circuit_breaker"
            )
            raise refused("CIRCUIT_OPEN", message, retry_after_ms=breaker.retry_after_ms)
        return breaker, permit

    async def _leave(self, attempt: Attempt, taken: tuple[Breaker, Permit] | None) -> None:
        if taken is None:
            return
        breaker, permit = taken
        breaker.finish(permit, self._verdict(attempt))
        if permit.probe:
            self._share.probed(breaker.deployment)

    async def _admitted(self, breaker: Breaker) -> Permit | None:
        permit = breaker.admit()
        if permit is None or not permit.probe:
            return permit
        allowed = False
        try:
            allowed = await self._share.may_probe(breaker.deployment)
        finally:
            if not allowed:
                breaker.finish(permit, Verdict.SILENT)
        return permit if allowed else None

    def adopt(self, change: SharedBreaker) -> None:
        """Follow a change of another replica."""
        self._breakers.get(change.deployment).adopt(change)

    def changes(self) -> list[SharedBreaker]:
        """What is open here."""
        return [change for breaker in self._breakers.sorted() if (change := breaker.shared()).is_open]

    def is_open(self, deployment: Deployment) -> bool:
        """Whether a call to the deployment would be refused now, as far as can be told without asking."""
        return deployment.circuit_breaker and self._breakers.get(deployment.name).refuses()

    def views(self) -> list[BreakerView]:
        """All breakers, by deployment."""
        return [breaker.view() for breaker in self._breakers.sorted()]

    def _verdict(self, attempt: Attempt) -> Verdict:
        failure = attempt.failure
        if failure is None:
            return Verdict.WORKED if attempt.dispatched else Verdict.SILENT
        if failure.reason in ("CANCELLED", "INTERNAL"):
            return Verdict.SILENT
        if failure.reason == "DEADLINE_EXCEEDED":
            unanswered = not attempt.heard and attempt.duration_us >= self._rules.unanswered_s * 1_000_000
            return Verdict.FAILED if unanswered else Verdict.SILENT
        return Verdict.FAILED if failure.rule.faults_deployment else Verdict.WORKED
