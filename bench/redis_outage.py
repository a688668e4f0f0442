"""Redis is frozen, killed and started again under load: what callers of the gateway feel of it.

    make -s bench NAME=redis_outage
    python -m bench.redis_outage [--rate 100] [--seconds 4]

One gateway with limits and shared breakers on and accounting off (it would add the waits of a disk), mock answers
without delay; calls arrive at a fixed rate whatever becomes of those before. The last line of output is one JSON
object; `bench/README.md` explains its keys.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import grpc
import uvloop

from bench.environment import environment
from bench.gateway_lab import Lab, call, gateway_lab
from bench.redis_process import RedisProcess
from llmlab.api.gateway.v1 import gateway_pb2

HUNG_MS = 1_000.0
PHASES = ("with_redis", "frozen", "thawed", "killed", "started_again")


class Lines(logging.Handler):
    """Keeps what the link to Redis says."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        self.said.append(record.getMessage())


async def phase(lab: Lab, name: str, rate: int, seconds: float) -> tuple[list[float], int]:
    """Milliseconds of each call that arrives in this time, and how many failed."""
    latencies: list[float] = []
    failed = 0

    async def one(number: int) -> None:
        nonlocal failed
        began_s = time.perf_counter()
        request = gateway_pb2.CompleteRequest(call=call("mock/instant", f"{name}/{number}"))
        try:
            await lab.gateway.Complete(request, metadata=lab.metadata, timeout=30)
        except grpc.aio.AioRpcError as error:
            failed += 1
            print(f"{name}: {error.code().name} {error.details()}", file=sys.stderr)
        latencies.append((time.perf_counter() - began_s) * 1_000)

    began_s = time.monotonic()
    tasks = []
    for number in range(round(rate * seconds)):
        await asyncio.sleep(max(0.0, began_s + number / rate - time.monotonic()))
        tasks.append(asyncio.create_task(one(number)))
    await asyncio.gather(*tasks)
    return sorted(latencies), failed


async def measure(rate: int, seconds: float) -> dict[str, Any]:
    """All figures."""
    lines = Lines()
    logger = logging.getLogger("services.gateway.redis_link")
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    found: dict[str, Any] = {"rate_per_s": rate, "seconds_per_phase": seconds}
    with RedisProcess() as redis:
        steps: dict[str, Callable[[], None]] = {
            "frozen": redis.freeze, "thawed": redis.thaw, "killed": redis.kill, "started_again": redis.start
        }  # fmt: skip
        async with gateway_lab(redis_url=redis.url, key_requests_per_minute=1_000_000, accounting="off") as lab:
            await phase(lab, "warm_up", rate, 1.0)
            for name in PHASES:
                running = asyncio.create_task(phase(lab, name, rate, seconds))
                if name in steps:
                    # In the middle of calls.
                    await asyncio.sleep(0.2)
                    await asyncio.to_thread(steps[name])
                latencies, failed = await running
                found |= {
                    f"{name}_p50_ms": round(latencies[len(latencies) // 2], 2),
                    f"{name}_p99_ms": round(latencies[int(len(latencies) * 0.99)], 2),
                    f"{name}_max_ms": round(latencies[-1], 2),
                    f"{name}_failed": failed,
                    f"{name}_hung": sum(latency > HUNG_MS for latency in latencies),
                }
                print(f"{name}: p99 {found[f'{name}_p99_ms']} ms", file=sys.stderr)
    base = found["with_redis_p99_ms"]
    found["added_p99_ms"] = round(max(found[f"{name}_p99_ms"] for name in PHASES[1:]) - base, 2)
    found["log_lines"] = lines.said
    return found


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=100, help="calls a second")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a phase")
    arguments = parser.parse_args()
    found = uvloop.run(measure(arguments.rate, arguments.seconds))
    print(json.dumps({"benchmark": "redis_outage", **environment(), **found}))


if __name__ == "__main__":
    main()
