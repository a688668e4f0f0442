"""Rate limits of four replicas on one Redis, against one node alone: what is admitted, and what is asked of Redis.

    make -s bench NAME=limits
    python -m bench.limits [--seconds 6]

Each replica is the gateway's own limit layer on a clock of its own, hours and percents apart from the others. A crowd
of callers asks all the time for more than the limit allows; the same crowd then asks one node that keeps its buckets in
memory: the oracle. The last line of output is one JSON object; `bench/README.md` explains its keys.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import uvloop

from bench.environment import environment
from bench.redis_process import RedisProcess
from services.gateway.attempts import Attempt
from services.gateway.calls import Call, Message, Owner, ProviderRequest, TextPart
from services.gateway.catalogue import Deployment
from services.gateway.failures import CallFailed
from services.gateway.limits import LocalLimits, RateLimits
from services.gateway.redis_limits import RedisLimits
from services.gateway.redis_link import LinkRules, RedisLink
from services.gateway.timing import Stopwatch
from services.gateway.usage import TokenUsage, estimate_input_tokens
from services.runtime.clock import SYSTEM_CLOCK

CALLERS = 64
BURST_S = 1.0
REQUESTS_PER_MINUTE = 30_000
TOKENS_PER_MINUTE = 3_000_000
OUTPUT_RESERVED = 180
OUTPUT_USED = 80
SKEWS = ((0.0, 1.0), (3_600.0, 1.05), (-7_200.0, 0.95), (86_400.0, 1.1))
"""Seconds that each replica's clock is ahead, and how fast it runs."""


@dataclass(frozen=True)
class SkewedClock:
    """A wrong clock."""

    ahead_s: float
    rate: float

    def now_us(self) -> int:
        """See Clock.now_us."""
        return round((SYSTEM_CLOCK.now_us() * self.rate) + self.ahead_s * 1_000_000)

    def monotonic_s(self) -> float:
        """See Clock.monotonic_s."""
        return SYSTEM_CLOCK.monotonic_s() * self.rate + self.ahead_s


@dataclass
class Admitted:
    """What a crowd got."""

    calls: int = 0
    tokens: int = 0
    refused: int = 0
    seconds: float = 0.0


CALL = Call("bench", "bench/model", (Message("user", (TextPart("Why is the sky blue?"),)),), 60_000)


def attempt(deployment: Deployment, clock: SkewedClock) -> Attempt:
    """An attempt that reserves more than it will use."""
    return Attempt(
        attempt_id="bench/1",
        deployment=deployment,
        request=ProviderRequest("bench/1", "model", CALL, OUTPUT_RESERVED),
        owner=Owner("prj"),
        nonce="",
        deadline=clock.monotonic_s() + 60,
        stopwatch=Stopwatch(clock),
    )


async def crowd(replicas: list[tuple[RateLimits, SkewedClock]], deployment: Deployment, seconds: float) -> Admitted:
    """All callers ask again and again, for so long."""
    found = Admitted()
    used = TokenUsage(estimate_input_tokens(CALL), output_tokens=OUTPUT_USED)
    began_s = time.monotonic()

    async def caller(number: int) -> None:
        limits, clock = replicas[number % len(replicas)]
        while time.monotonic() - began_s < seconds:
            mine = attempt(deployment, clock)
            try:
                async with limits.admitted(mine):
                    mine.dispatched = True
                    mine.usage = used
            except CallFailed as failed:
                found.refused += 1
                await asyncio.sleep(failed.failure.retry_after_ms / 1_000)
                continue
            if time.monotonic() - began_s < seconds:
                found.calls += 1
                found.tokens += used.input_tokens + used.output_tokens

    await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    found.seconds = seconds
    return found


@asynccontextmanager
async def shared(url: str) -> AsyncIterator[list[tuple[RateLimits, SkewedClock]]]:
    """Four replicas on one Redis."""
    async with AsyncExitStack() as stack:
        replicas = []
        for ahead_s, rate in SKEWS:
            clock = SkewedClock(ahead_s, rate)
            link = await stack.enter_async_context(RedisLink.open(url, LinkRules(timeout_s=5.0)))
            # Connected before the time begins.
            await link.ask(link.client.ping)
            store = RedisLimits(link, LocalLimits(clock))
            stack.push_async_callback(store.close)
            replicas.append((RateLimits(store, clock), clock))
        yield replicas


def alone() -> list[tuple[RateLimits, SkewedClock]]:
    """One node with its buckets in memory."""
    clock = SkewedClock(0.0, 1.0)
    return [(RateLimits(LocalLimits(clock), clock), clock)]


async def compared(url: str, deployment: Deployment, seconds: float, unit: str) -> dict[str, float]:
    """What the replicas admit, beside the oracle."""
    async with shared(url) as replicas:
        theirs = await crowd(replicas, deployment, seconds)
    oracle = await crowd(alone(), deployment, seconds)
    got, right = (theirs.calls, oracle.calls) if unit == "requests" else (theirs.tokens, oracle.tokens)
    print(f"{unit}: four replicas {got}, oracle {right}", file=sys.stderr)
    return {
        f"{unit}_admitted": got,
        f"{unit}_oracle": right,
        f"{unit}_error_percent": round(100 * (got / right - 1), 2),
        f"{unit}_callers_refused": theirs.refused,
    }


async def questions(url: str, redis: RedisProcess, calls: int = 2_000) -> dict[str, float]:
    """What calls within their limits ask of Redis: one after the other, and many at a time."""
    free = Deployment("bench", "free", 100, "", requests_per_minute=10**9, tokens_per_minute=10**12)
    counts: dict[str, float] = {}
    for name, at_a_time in (("alone", 1), ("together", CALLERS)):
        async with shared(url) as replicas:
            before = redis.script_calls()

            async def some(number: int) -> None:
                limits, clock = replicas[number % len(replicas)]
                for _ in range(calls // at_a_time):  # noqa: B023 (likewise)
                    mine = attempt(free, clock)
                    mine.dispatched = True
                    async with limits.admitted(mine):
                        mine.usage = TokenUsage(
                            mine.request.max_output_tokens, output_tokens=estimate_input_tokens(CALL)
                        )

            began_s = time.perf_counter()
            await asyncio.gather(*(some(number) for number in range(at_a_time)))
            counts[f"round_trips_per_call_{name}"] = round((redis.script_calls() - before) / calls, 3)
            counts[f"ms_per_call_{name}"] = round((time.perf_counter() - began_s) / calls * 1_000, 3)
    return counts


async def measure(seconds: float) -> dict[str, float]:
    """All figures."""
    requests = Deployment("bench", "rpm", 100, "", requests_per_minute=REQUESTS_PER_MINUTE, burst_s=BURST_S)
    tokens = Deployment("bench", "tpm", 100, "", tokens_per_minute=TOKENS_PER_MINUTE, burst_s=BURST_S)
    with RedisProcess() as redis:
        return {
            **await compared(redis.url, requests, seconds, "requests"),
            **await compared(redis.url, tokens, seconds, "tokens"),
            **await questions(redis.url, redis),
        }


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="how long each crowd asks")
    arguments = parser.parse_args()
    found = uvloop.run(measure(arguments.seconds))
    print(json.dumps({"benchmark": "limits", **environment(), **found}))


if __name__ == "__main__":
    main()
