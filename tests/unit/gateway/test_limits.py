"""Rate limits in memory, on a clock that the test moves, and the layer that applies them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.attempts import Attempt
from services.gateway.catalogue import Deployment
from services.gateway.failures import CallFailed
from services.gateway.limits import LimitRules, LocalLimits, RateLimits, Take
from services.gateway.usage import TokenUsage
from services.runtime.clock import SYSTEM_CLOCK, ManualClock
from tests.support.gateway import attempt_of, call


@given(
    per_minute=st.integers(1, 100_000),
    burst_s=st.floats(0.5, 60),
    steps=st.lists(st.tuples(st.floats(0, 30), st.integers(1, 2_000)), max_size=40),
)
def test_it_admits_what_a_token_bucket_admits(per_minute: int, burst_s: float, steps: list[tuple[float, int]]) -> None:
    clock = ManualClock()
    limits = LocalLimits(clock)
    burst = max(1.0, per_minute * burst_s / 60)
    level, then = burst, 0.0

    async def check() -> None:
        nonlocal level, then
        for pause_s, amount in steps:
            clock.advance(pause_s)
            now = clock.monotonic_s()
            level = min(burst, level + (now - then) * per_minute / 60)
            then = now
            asked = min(amount, burst)
            if abs(level - asked) * 60_000_000 / per_minute < 2:
                return  # too close to call within the rounding of a microsecond
            wait_ms = await limits.take((Take.of("k", per_minute, burst_s, amount),))
            assert (wait_ms == 0) is (level > asked)
            if wait_ms:
                assert wait_ms == pytest.approx((asked - level) * 60_000 / per_minute, abs=1.01)
            else:
                level -= asked

    asyncio.run(check())


async def test_forgotten_buckets_are_full() -> None:
    limits = LocalLimits(ManualClock(), buckets_max=2)
    for key in ("a", "b", "c", "a"):
        assert await limits.take((Take.of(key, 1, 60, 1),)) == 0
    assert await limits.take((Take.of("a", 1, 60, 1),)) == 60_000


def limited(*, rpm: int = 0, tpm: int = 0, burst_s: float = 60.0, timeout_s: float = 5.0) -> Attempt:
    attempt = attempt_of(call(), timeout_s=timeout_s)
    attempt.deployment = Deployment(
        "scripted", "model", 100, "", requests_per_minute=rpm, tokens_per_minute=tpm, burst_s=burst_s
    )
    return attempt


def layer(**rules: Any) -> RateLimits:
    return RateLimits(LocalLimits(SYSTEM_CLOCK), SYSTEM_CLOCK, LimitRules(**rules))


async def use(limits: RateLimits, attempt: Attempt, *, usage: TokenUsage | None = None, sent: bool = True) -> None:
    async with limits.admitted(attempt):
        attempt.dispatched = sent
        attempt.usage = usage


async def refusal(limits: RateLimits, attempt: Attempt) -> int:
    with pytest.raises(CallFailed) as caught:
        await use(limits, attempt)
    failure = caught.value.failure
    assert (failure.reason, failure.dispatched, failure.retryable) == ("RATE_LIMITED", False, True)
    return failure.retry_after_ms


async def test_a_deployments_requests_are_limited_and_the_wait_is_told() -> None:
    limits = layer()
    for _ in range(3):
        await use(limits, limited(rpm=3))
    assert 19_000 < await refusal(limits, limited(rpm=3)) <= 20_000
    await use(limits, limited())


async def test_a_keys_requests_are_limited_over_all_deployments() -> None:
    limits = layer(key_requests_per_minute=6)
    await use(limits, attempt_of(call(), model="a"))
    assert await refusal(limits, attempt_of(call(), model="b")) > 9_000


async def test_a_short_wait_is_waited_for() -> None:
    limits = layer()
    for _ in range(3):
        # Ten milliseconds for each, and no burst.
        await use(limits, limited(rpm=6_000, burst_s=0.001))


async def test_nothing_waits_past_the_deadline_or_the_longest_wait() -> None:
    patient = layer(wait_max_s=100.0)
    await use(patient, limited(rpm=60, burst_s=1))
    assert await refusal(patient, limited(rpm=60, burst_s=1, timeout_s=0.5)) <= 1_000
    hasty = layer(wait_max_s=0.0)
    await use(hasty, limited(rpm=600, burst_s=0.1))
    assert await refusal(hasty, limited(rpm=600, burst_s=0.1)) <= 100


async def test_tokens_are_reserved_by_estimate_and_corrected_by_usage() -> None:
    limits = layer()
    # Input estimate and 100 tokens of output are reserved; 10 are used.
    for _ in range(20):
        await use(limits, limited(tpm=300), usage=TokenUsage(4, output_tokens=6))
    assert await refusal(limits, limited(tpm=300)) > 0


async def test_what_never_left_takes_nothing() -> None:
    limits = layer()
    for _ in range(5):
        await use(limits, limited(rpm=1, tpm=200), sent=False)
    await use(limits, limited(rpm=1, tpm=200))


async def test_a_call_above_the_whole_burst_is_admitted_and_leaves_a_debt() -> None:
    limits = layer()
    await use(limits, limited(tpm=60, burst_s=1), usage=TokenUsage(100, output_tokens=100))
    assert await refusal(limits, limited(tpm=60, burst_s=1)) > 190_000


async def test_a_failure_inside_passes_through_and_gives_back() -> None:
    limits = layer()
    for error in (asyncio.CancelledError(), ZeroDivisionError()):
        with pytest.raises(type(error)):
            async with limits.admitted(limited(rpm=1)):
                raise error
    await use(limits, limited(rpm=1))
