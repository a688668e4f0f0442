"""Whether and when a failed attempt is followed by another one.

Only failures of the provider are tried again, only before the first content, never past the caller's deadline, never
before a Retry-After is over, and only while retries are a small share of all calls: when everything fails, retries
would multiply the load. A failure where the model may have worked unseen is tried again only where the call allows it,
because that can pay twice.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from services.gateway.attempts import Attempt
from services.gateway.recent import Recent
from services.runtime import telemetry
from services.runtime.backoff import Backoff
from services.runtime.clock import Clock


@dataclass(frozen=True, slots=True)
class RetryRules:
    """How patient the gateway is with providers.

    Attributes:
        backoff: waits between attempts; a Retry-After comes on top.
        budget_share: retries that every call adds to its deployment's budget.
        budget_per_minute: retries that time adds, so that a rarely called deployment has some too.
        budget_max: retries that a budget can hold; it begins with those of a minute.
        deployments_max: budgets kept; the one not used for longest is forgotten.
    """

    backoff: Backoff = field(default_factory=lambda: Backoff(base_ms=250, cap_ms=10_000))
    budget_share: float = 0.2
    budget_per_minute: float = 10.0
    budget_max: float = 100.0
    deployments_max: int = 10_000


class RetryBudget:
    """A token bucket: calls and time fill it, each retry takes one."""

    def __init__(self, rules: RetryRules, clock: Clock) -> None:
        self._rules = rules
        self._clock = clock
        self._retries = min(rules.budget_per_minute, rules.budget_max)
        self._filled_at_s = clock.monotonic_s()

    def earn(self) -> None:
        """A call began."""
        self._add(self._rules.budget_share)

    def spend(self) -> bool:
        """Take one retry, where there is one."""
        now = self._clock.monotonic_s()
        self._add((now - self._filled_at_s) / 60 * self._rules.budget_per_minute)
        self._filled_at_s = now
        if self._retries < 1:
            return False
        self._retries -= 1
        return True

    def _add(self, retries: float) -> None:
        self._retries = min(self._rules.budget_max, self._retries + retries)


class Retries:
    """The retry layer of the pipeline."""

    def __init__(self, clock: Clock, rules: RetryRules | None = None, rng: random.Random | None = None) -> None:
        self._clock = clock
        self._rules = rules or RetryRules()
        self._rng = rng or random.Random()  # noqa: S311 (spreads retries, hides nothing)
        self._budgets = Recent(lambda _: RetryBudget(self._rules, clock), self._rules.deployments_max)
        self._made = telemetry.counter("retries")
        self._out_of_budget = telemetry.counter("retries_out_of_budget")

    def began(self, deployment: str) -> None:
        """A call to the deployment began, which earns its share of a retry."""
        self._budgets.get(deployment).earn()

    def pause_s(self, attempt: Attempt, retried: int, wait_ms: int | None) -> float | None:
        """Seconds until the attempt after this failed one; None: there is none. `retried` were made before.

        `wait_ms` is the least time to wait; None where the next attempt goes to another deployment of the model, which
        needs no wait and may have the key or the model that this one lacks.
        """
        failure = attempt.failure
        call = attempt.request.call
        if failure is None or retried >= call.retries_max or failure.output_began:
            return None
        if not failure.retryable and (wait_ms is not None or failure.rule.fallback != "general"):
            return None
        if failure.ambiguous and not call.retry_ambiguous:
            return None
        delay_ms = 0 if wait_ms is None else self._rules.backoff.delay_ms(retried + 1, self._rng, at_least_ms=wait_ms)
        if self._clock.monotonic_s() + delay_ms / 1_000 >= attempt.deadline:
            return None
        return delay_ms / 1_000 if self.spend(attempt) else None

    def spend(self, attempt: Attempt) -> bool:
        """Take one attempt more from the budget of the deployment, where there is one."""
        if not self._budgets.get(attempt.deployment.name).spend():
            self._out_of_budget.add()
            return False
        self._made.add()
        return True
