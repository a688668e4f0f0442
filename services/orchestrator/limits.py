"""How a run may use the providers: the limits asked for, and the limits in force."""

from __future__ import annotations

from dataclasses import dataclass

CONCURRENCY_DEFAULT = 5
ATTEMPTS_MAX_DEFAULT = 3
TIMEOUT_MS_DEFAULT = 30_000
TIMEOUT_MS_MIN = 100
REQUESTS_PER_MINUTE_DEFAULT = 60

MOCK_PROVIDER = "mock"
"""The provider whose calls are not paced by default: they cost nothing and reach nobody."""


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Limits as a person states them; 0 means "not stated".

    `requests_per_minute` not stated means REQUESTS_PER_MINUTE_DEFAULT for real providers and none for the mock.
    """

    concurrency: int = 0
    attempts_max: int = 0
    timeout_ms: int = 0
    requests_per_minute: int = 0
    retry_unknown: bool = False
    max_cost_nano_usd: int = 0
    """What all calls of the run together may cost; 0: only budgets limit it."""
    ignore_circuit_breaker: bool = False
    priority: int = 0
    """Among the runs of a project those with a higher one are served first."""
    fixed_concurrency: bool = False
    """Keep to `concurrency` also where a provider refuses calls as too many; else it is the most that is tried."""

    def overridden_by(self, other: RunLimits) -> RunLimits:
        """These limits with what `other` states put in their place."""
        return RunLimits(
            concurrency=other.concurrency or self.concurrency,
            attempts_max=other.attempts_max or self.attempts_max,
            timeout_ms=other.timeout_ms or self.timeout_ms,
            requests_per_minute=other.requests_per_minute or self.requests_per_minute,
            retry_unknown=other.retry_unknown or self.retry_unknown,
            max_cost_nano_usd=other.max_cost_nano_usd or self.max_cost_nano_usd,
            ignore_circuit_breaker=other.ignore_circuit_breaker or self.ignore_circuit_breaker,
            priority=other.priority or self.priority,
            fixed_concurrency=other.fixed_concurrency or self.fixed_concurrency,
        )

    def in_force(self) -> RunLimits:
        """These limits with the defaults filled in (the rate's default depends on the provider and stays 0)."""
        return RunLimits(
            concurrency=self.concurrency or CONCURRENCY_DEFAULT,
            attempts_max=self.attempts_max or ATTEMPTS_MAX_DEFAULT,
            timeout_ms=self.timeout_ms or TIMEOUT_MS_DEFAULT,
            requests_per_minute=self.requests_per_minute,
            retry_unknown=self.retry_unknown,
            max_cost_nano_usd=self.max_cost_nano_usd,
            ignore_circuit_breaker=self.ignore_circuit_breaker,
            priority=self.priority,
            fixed_concurrency=self.fixed_concurrency,
        )

    def rate_for(self, provider: str) -> int:
        """Calls a minute that the run may make to a provider; 0 means no limit."""
        if self.requests_per_minute:
            return self.requests_per_minute
        return 0 if provider == MOCK_PROVIDER else REQUESTS_PER_MINUTE_DEFAULT
