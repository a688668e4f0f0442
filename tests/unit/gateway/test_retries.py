"""When a failed attempt is followed by another one, on a clock that the test moves."""

from __future__ import annotations

import random
from typing import Any

import pytest

from services.gateway.attempts import Attempt
from services.gateway.failures import RULES, Failure
from services.gateway.retries import Retries, RetryRules
from services.runtime.backoff import Backoff
from services.runtime.clock import ManualClock
from tests.support.gateway import attempt_of, call

PLENTY = RetryRules(backoff=Backoff(100, 1_000), budget_per_minute=1_000, budget_max=1_000)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def failed(failure: Failure | None, *, deadline_s: float = 60.0, **more: Any) -> Attempt:
    attempt = attempt_of(call(**({"retries_max": 2} | more)))
    attempt.deadline = deadline_s
    attempt.failure = failure
    return attempt


def of(reason: str, **more: Any) -> Failure:
    return Failure(reason, "", **({"dispatched": True} | more))


@pytest.mark.parametrize("reason", sorted(RULES))
def test_the_error_table_decides_and_ambiguous_failures_are_left_alone(clock: ManualClock, reason: str) -> None:
    retries = Retries(clock, PLENTY)
    again = retries.pause_s(failed(of(reason)), 0, 0) is not None
    ambiguous = reason in ("NETWORK_ERROR", "STREAM_TRUNCATED")
    assert again is (RULES[reason].retryable and not ambiguous)
    allowed = retries.pause_s(failed(of(reason), retry_ambiguous=True), 0, 0) is not None
    assert allowed is RULES[reason].retryable


def test_what_never_left_is_not_ambiguous(clock: ManualClock) -> None:
    assert Retries(clock, PLENTY).pause_s(failed(of("NETWORK_ERROR", dispatched=False)), 0, 0) is not None


def test_nothing_after_the_first_content(clock: ManualClock) -> None:
    shown = of("PROVIDER_OVERLOADED", output_began=True)
    assert Retries(clock, PLENTY).pause_s(failed(shown, retry_ambiguous=True), 0, 0) is None


def test_a_refusal_of_the_gateway_itself_is_not_tried_again(clock: ManualClock) -> None:
    assert Retries(clock, PLENTY).pause_s(failed(None), 0, 0) is None


def test_the_number_of_retries_is_bounded(clock: ManualClock) -> None:
    retries = Retries(clock, PLENTY)
    failure = of("PROVIDER_ERROR")
    assert retries.pause_s(failed(failure), 1, 0) is not None
    assert retries.pause_s(failed(failure), 2, 0) is None
    assert retries.pause_s(failed(failure, retries_max=0), 0, 0) is None


def test_the_wait_is_jittered_over_a_ceiling_that_doubles(clock: ManualClock) -> None:
    retries = Retries(clock, PLENTY, random.Random(7))
    for attempts, ceiling_s in ((1, 0.1), (2, 0.2), (3, 0.4), (8, 1.0)):
        pauses = [retries.pause_s(failed(of("PROVIDER_ERROR"), retries_max=10), attempts - 1, 0) for _ in range(50)]
        found = [pause for pause in pauses if pause is not None]
        assert len(found) == 50
        assert max(found) <= ceiling_s
        assert max(found) - min(found) > ceiling_s / 2


@pytest.mark.parametrize("asked_ms", [1, 700, 5_000, 30_000])
def test_a_retry_after_is_never_cut_short(clock: ManualClock, asked_ms: int) -> None:
    retries = Retries(clock, PLENTY)
    failure = of("RATE_LIMITED", retry_after_ms=asked_ms)
    for _ in range(50):
        pause_s = retries.pause_s(failed(failure), 0, asked_ms)
        assert pause_s is not None
        assert pause_s >= asked_ms / 1_000


def test_nothing_begins_after_the_deadline(clock: ManualClock) -> None:
    retries = Retries(clock, PLENTY)
    failure = of("RATE_LIMITED", retry_after_ms=5_000)
    assert retries.pause_s(failed(failure, deadline_s=5.0), 0, 5_000) is None
    assert retries.pause_s(failed(failure, deadline_s=5.2), 0, 5_000) is not None
    clock.advance(0.2)
    assert retries.pause_s(failed(failure, deadline_s=5.2), 0, 5_000) is None


def test_retries_are_a_share_of_the_calls_and_a_few_a_minute(clock: ManualClock) -> None:
    retries = Retries(clock, RetryRules(budget_share=0.2, budget_per_minute=6, budget_max=50))
    attempt = failed(of("PROVIDER_ERROR"), deadline_s=1e9)

    def spent(calls: int) -> int:
        for _ in range(calls):
            retries.began("scripted/model")
        return sum(retries.pause_s(attempt, 0, 0) is not None for _ in range(calls))

    assert spent(1_000) == 50
    assert spent(100) in (19, 20)
    clock.advance(30)
    assert spent(0) == 0
    assert spent(10) in (4, 5)
    assert retries.pause_s(failed(of("PROVIDER_ERROR"), deadline_s=1e9), 0, 0) is None


def test_deployments_have_budgets_of_their_own(clock: ManualClock) -> None:
    retries = Retries(clock, RetryRules(budget_per_minute=1))
    attempt = failed(of("PROVIDER_ERROR"))
    assert retries.pause_s(attempt, 0, 0) is not None
    assert retries.pause_s(attempt, 0, 0) is None
    other = attempt_of(attempt.request.call, model="other")
    other.failure, other.deadline = attempt.failure, 60.0
    assert retries.pause_s(other, 0, 0) is not None
