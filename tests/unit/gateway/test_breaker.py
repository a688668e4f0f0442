"""Circuit breakers, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import random

import pytest

from services.gateway.attempts import Attempt
from services.gateway.breaker import Breaker, BreakerRules, Breakers, BreakerState, Permit, Verdict
from services.gateway.failures import RULES, CallFailed, Failure
from services.runtime.clock import ManualClock
from tests.support.gateway import attempt_of, call

RULES_HERE = BreakerRules(
    window_s=10.0, failure_ratio=0.5, calls_min=10, consecutive_failures=6, open_s=4.0, open_max_s=30.0
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> Breaker:
    return Breaker("p/m", RULES_HERE, clock, random.Random(1))


def passed(breaker: Breaker) -> Permit:
    permit = breaker.admit()
    assert permit is not None
    return permit


def take(breaker: Breaker, *verdicts: Verdict) -> None:
    for verdict in verdicts:
        breaker.finish(passed(breaker), verdict)


WORKED, FAILED, SILENT = Verdict.WORKED, Verdict.FAILED, Verdict.SILENT


def state(breaker: Breaker) -> BreakerState:
    return breaker.view().state


def wait_for_probe(breaker: Breaker, clock: ManualClock) -> None:
    clock.advance(breaker.view().probe_in_ms / 1_000 + 0.001)


def test_failures_in_a_row_open_it(breaker: Breaker) -> None:
    take(breaker, *[FAILED] * 5, WORKED, *[FAILED] * 3, SILENT)
    assert state(breaker) is BreakerState.CLOSED
    take(breaker, FAILED)
    # The tenth call of the window: nine of them failed.
    assert state(breaker) is BreakerState.OPEN


def test_the_share_of_failures_counts_from_a_minimum_of_calls(breaker: Breaker) -> None:
    take(breaker, *[FAILED, WORKED] * 4, FAILED)
    assert state(breaker) is BreakerState.CLOSED
    take(breaker, WORKED, FAILED)
    assert state(breaker) is BreakerState.OPEN


def test_what_the_window_has_left_behind_does_not_count(breaker: Breaker, clock: ManualClock) -> None:
    take(breaker, *[FAILED, WORKED] * 4)
    clock.advance(11)
    take(breaker, FAILED, WORKED, FAILED)
    view = breaker.view()
    assert (view.state, view.calls, view.failures) == (BreakerState.CLOSED, 3, 2)


def test_an_open_one_refuses_until_its_time_is_over(breaker: Breaker, clock: ManualClock) -> None:
    take(breaker, *[FAILED] * 6)
    assert breaker.admit() is None
    assert 3_000 <= breaker.retry_after_ms <= 4_000
    clock.advance(2.9)
    assert breaker.admit() is None
    wait_for_probe(breaker, clock)
    probe = passed(breaker)
    assert probe.probe
    assert breaker.admit() is None
    assert breaker.retry_after_ms == 1_000


def test_a_probe_that_works_closes_it(breaker: Breaker, clock: ManualClock) -> None:
    take(breaker, *[FAILED] * 6)
    wait_for_probe(breaker, clock)
    take(breaker, WORKED)
    view = breaker.view()
    assert (view.state, view.calls, view.probe_in_ms) == (BreakerState.CLOSED, 0, 0)


def test_a_probe_that_says_nothing_frees_its_place(breaker: Breaker, clock: ManualClock) -> None:
    take(breaker, *[FAILED] * 6)
    wait_for_probe(breaker, clock)
    take(breaker, SILENT)
    assert state(breaker) is BreakerState.HALF_OPEN
    assert passed(breaker).probe


def test_the_time_open_grows_to_its_bound_and_is_short_again_after_a_good_while(
    breaker: Breaker, clock: ManualClock
) -> None:
    take(breaker, *[FAILED] * 6)
    times = []
    for _ in range(6):
        times.append(breaker.view().probe_in_ms / 1_000)
        wait_for_probe(breaker, clock)
        take(breaker, FAILED)
    for time_s, longest in zip(times, (4, 8, 16, 30, 30, 30), strict=True):
        assert longest * 0.75 <= time_s <= longest
    wait_for_probe(breaker, clock)
    take(breaker, WORKED, *[FAILED] * 6)
    assert breaker.view().probe_in_ms > 4_000
    wait_for_probe(breaker, clock)
    take(breaker, WORKED)
    clock.advance(31)
    take(breaker, *[FAILED] * 6)
    assert breaker.view().probe_in_ms <= 4_000


def test_calls_from_before_a_change_say_nothing_after_it(breaker: Breaker, clock: ManualClock) -> None:
    late = [passed(breaker) for _ in range(3)]
    take(breaker, *[FAILED] * 6)
    breaker.finish(late[0], WORKED)
    assert state(breaker) is BreakerState.OPEN
    wait_for_probe(breaker, clock)
    probe = passed(breaker)
    breaker.finish(late[1], FAILED)
    assert state(breaker) is BreakerState.HALF_OPEN
    breaker.finish(probe, WORKED)
    breaker.finish(late[2], FAILED)
    assert breaker.view().calls == 0


async def guarded(breakers: Breakers, attempt: Attempt, failure: Failure | None, *, dispatched: bool = True) -> None:
    async with breakers.guarded(attempt):
        attempt.dispatched = dispatched
        attempt.failure = failure


FAULTS = {
    "PROVIDER_TIMEOUT",
    "PROVIDER_ERROR",
    "PROVIDER_UNAVAILABLE",
    "PROVIDER_OVERLOADED",
    "NETWORK_ERROR",
    "STREAM_TRUNCATED",
}


@pytest.mark.parametrize("reason", sorted(RULES))
async def test_only_faults_of_the_deployment_count_against_it(clock: ManualClock, reason: str) -> None:
    breakers = Breakers(clock, RULES_HERE)
    await guarded(breakers, attempt_of(call()), Failure(reason, "", dispatched=True))
    (view,) = breakers.views()
    assert view.failures == (reason in FAULTS)
    assert view.calls == (reason not in ("CANCELLED", "INTERNAL", "DEADLINE_EXCEEDED"))


@pytest.mark.parametrize(("heard", "duration_s", "failures"), [(False, 10.0, 1), (True, 10.0, 0), (False, 9.9, 0)])
async def test_a_provider_that_never_answers_fails(
    clock: ManualClock, heard: bool, duration_s: float, failures: int
) -> None:
    breakers = Breakers(clock, RULES_HERE)
    attempt = attempt_of(call())
    attempt.heard = heard
    attempt.duration_us = round(duration_s * 1_000_000)
    await guarded(breakers, attempt, Failure("DEADLINE_EXCEEDED", "", dispatched=True))
    assert breakers.views()[0].failures == failures


async def test_what_never_left_says_nothing_but_a_refused_connection_does(clock: ManualClock) -> None:
    breakers = Breakers(clock, RULES_HERE)
    await guarded(breakers, attempt_of(call()), None, dispatched=False)
    assert breakers.views()[0].calls == 0
    await guarded(breakers, attempt_of(call()), Failure("NETWORK_ERROR", "", dispatched=False), dispatched=False)
    assert breakers.views()[0].failures == 1


async def test_every_exit_frees_a_probe(clock: ManualClock) -> None:
    breakers = Breakers(clock, RULES_HERE)
    for _ in range(6):
        await guarded(breakers, attempt_of(call()), Failure("NETWORK_ERROR", "", dispatched=True))
    with pytest.raises(CallFailed, match="CIRCUIT_OPEN"):
        await guarded(breakers, attempt_of(call()), None)
    clock.advance(4)
    for error in (asyncio.CancelledError(), ZeroDivisionError(), CallFailed(Failure("X", "", dispatched=False))):
        with pytest.raises(type(error)):
            async with breakers.guarded(attempt_of(call())):
                raise error
    await guarded(breakers, attempt_of(call()), None)
    assert breakers.views()[0].state is BreakerState.CLOSED


async def test_a_call_that_ignores_it_is_neither_refused_nor_counted(clock: ManualClock) -> None:
    breakers = Breakers(clock, RULES_HERE)
    for _ in range(20):
        ignoring = attempt_of(call(ignore_circuit_breaker=True))
        await guarded(breakers, ignoring, Failure("NETWORK_ERROR", "", dispatched=True))
    assert breakers.views() == []


async def test_deployments_do_not_share_a_breaker_and_are_bounded(clock: ManualClock) -> None:
    breakers = Breakers(clock, BreakerRules(consecutive_failures=1, deployments_max=2))
    await guarded(breakers, attempt_of(call(), model="a"), Failure("NETWORK_ERROR", "", dispatched=True))
    await guarded(breakers, attempt_of(call(), model="b"), None)
    assert [view.state for view in breakers.views()] == [BreakerState.OPEN, BreakerState.CLOSED]
    await guarded(breakers, attempt_of(call(), model="c"), None)
    assert [view.deployment for view in breakers.views()] == ["scripted/b", "scripted/c"]
