"""What the provider's calls come to, as figures."""

from __future__ import annotations

import random
from typing import Any

from services.gateway.attempts import Cost
from services.gateway.breaker import Breaker, BreakerRules, Verdict
from services.gateway.failures import Failure
from services.gateway.figures import AttemptFigures
from services.gateway.usage import TokenUsage
from services.runtime import telemetry
from services.runtime.clock import ManualClock
from tests.support.gateway import attempt_of, call


def test_attempts_tokens_and_money_are_counted() -> None:
    telemetry.reset()
    figures = AttemptFigures()
    worked, failed = attempt_of(call()), attempt_of(call())
    worked.usage = TokenUsage(10, output_tokens=5)
    worked.cost = Cost(42, 0, "")
    failed.failure = Failure("PROVIDER_TIMEOUT", "", dispatched=True)
    for attempt in (worked, failed):
        figures.ended(attempt)
        figures.settled(attempt)
    found: dict[str, Any] = telemetry.snapshot()
    assert (found["attempts{outcome=worked}"], found["attempts{outcome=failed}"]) == (1, 1)
    assert (found["tokens{kind=input}"], found["tokens{kind=output}"], found["spend_nano_usd"]) == (10, 5, 42)


def test_open_breakers_are_counted_while_they_are_open() -> None:
    telemetry.reset()
    clock = ManualClock()
    breaker = Breaker("p/m", BreakerRules(consecutive_failures=1), clock, random.Random(1))
    for verdict, open_now in ((Verdict.FAILED, 1), (Verdict.WORKED, 0)):
        clock.advance(breaker.view().probe_in_ms / 1_000 + 0.001)
        permit = breaker.admit()
        assert permit is not None
        breaker.finish(permit, verdict)
        assert telemetry.snapshot()["breakers_open"] == open_now
