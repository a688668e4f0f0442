"""Holds and settlements: pairs a second through batch RPCs, and the latency of single holds at a steady rate.

    python -m bench.cost_holds [--database postgresql|sqlite] [--seconds 8]

Every hold is under three hard budgets that overlap (project, key, tag); `user_budgets_pairs_per_s` adds one for each of
5,000 users. The last line of output is one JSON object; `bench/README.md` explains its keys.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from bench.cost_server import CostServer, DatabaseKind, cost_server
from llmlab.api.common.v1 import usage_pb2
from llmlab.api.cost.v1 import budget_pb2, hold_pb2, spend_pb2
from llmlab.api.cost.v1.budget_pb2_grpc import BudgetServiceStub
from llmlab.api.cost.v1.hold_pb2_grpc import HoldServiceStub

if TYPE_CHECKING:
    from llmlab.api.cost.v1.hold_pb2_grpc import HoldServiceAsyncStub

PROJECT = "prj_bench"
BATCH = 64
"""Items of a batch: as many as the gateway gathers."""
WORKERS = 4
"""Batches under way at once."""
SINGLES_PER_S = 200
USERS = 5_000
KEYS = 20
LIMIT_NANO_USD = 10**15
WARM_UP_S = 1.0
SEED = 20261121


class Load:
    """Holds and settlements with ids of their own, by a seeded mix of users, keys and tags."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._numbers = itertools.count()
        self._random = random.Random(f"{SEED}-{name}")  # noqa: S311 - a load that can be repeated

    def items(self, count: int) -> tuple[list[hold_pb2.HoldItem], list[hold_pb2.SettleItem]]:
        """Returns new holds and their settlements."""
        pairs = [self._pair() for _ in range(count)]
        return [hold for hold, _ in pairs], [settle for _, settle in pairs]

    def _pair(self) -> tuple[hold_pb2.HoldItem, hold_pb2.SettleItem]:
        attempt_id = f"{self._name}/{next(self._numbers)}/1/1"
        attribution = spend_pb2.Attribution(
            user_id=f"usr_{self._random.randrange(USERS)}",
            key_id=f"key_{self._random.randrange(KEYS)}",
            run_id=self._name,
            tags={"team": "research"},
        )
        hold = hold_pb2.HoldItem(
            attempt_id=attempt_id,
            nonce="n1",
            provider="openai",
            model="gpt-4o-mini",
            input_tokens_max=1_000,
            output_tokens_max=500,
            attribution=attribution,
            expires_in_ms=60_000,
        )
        usage = usage_pb2.TokenUsage(input_tokens=900, output_tokens=300, source=usage_pb2.USAGE_SOURCE_MEASURED)
        return hold, hold_pb2.SettleItem(attempt_id=attempt_id, usage=usage, succeeded=True)


async def create_budgets(server: CostServer, scopes: Iterator[budget_pb2.BudgetScope]) -> None:
    """Creates one hard budget for each scope."""
    async with server.channel() as channel:
        stub = BudgetServiceStub(channel)
        metadata = server.metadata(PROJECT, "MANAGE")
        for scope in scopes:
            wanted = budget_pb2.Budget(name="bench", limit_nano_usd=LIMIT_NANO_USD, scope=scope)
            await stub.CreateBudget(budget_pb2.CreateBudgetRequest(budget=wanted), metadata=metadata)


def overlapping_scopes() -> Iterator[budget_pb2.BudgetScope]:
    """Yields the project, each key and the tag: three budgets for every call."""
    yield budget_pb2.BudgetScope()
    yield budget_pb2.BudgetScope(tag="team=research")
    for number in range(KEYS):
        yield budget_pb2.BudgetScope(key_id=f"key_{number}")


async def pairs_per_s(server: CostServer, name: str, seconds: float) -> dict[str, Any]:
    """Measures pairs a second and their CPU time, with batches of 64 of four workers."""
    load = Load(name)
    done = 0

    async def work(stub: HoldServiceAsyncStub, until: float) -> None:
        nonlocal done
        metadata = server.metadata(PROJECT)
        while time.monotonic() < until:
            holds, settles = load.items(BATCH)
            held = await stub.HoldBatch(hold_pb2.HoldBatchRequest(items=holds), metadata=metadata)
            settled = await stub.SettleBatch(hold_pb2.SettleBatchRequest(items=settles), metadata=metadata)
            if any(one.HasField("error") for one in (*held.outcomes, *settled.outcomes)):
                raise SystemExit(f"a hold or a settlement was refused: {held} {settled}")
            done += BATCH

    async with server.channel() as channel:
        stub: HoldServiceAsyncStub = HoldServiceStub(channel)
        await asyncio.gather(*[work(stub, time.monotonic() + WARM_UP_S) for _ in range(WORKERS)])
        done, began, before = 0, time.monotonic(), server.cpu_s()
        await asyncio.gather(*[work(stub, began + seconds) for _ in range(WORKERS)])
        elapsed, after = time.monotonic() - began, server.cpu_s()
    return {
        "pairs_per_s": round(done / elapsed, 1),
        "pairs": done,
        "cpu_ms_per_pair": {part: round((after[part] - before[part]) * 1_000 / done, 4) for part in after},
    }


async def single_holds(server: CostServer, seconds: float) -> dict[str, Any]:
    """Measures single holds that arrive at 200/s whatever becomes of those before, each settled after its answer."""
    load = Load("single")
    latencies_ms: list[float] = []

    async def call(stub: HoldServiceAsyncStub, at: float) -> None:
        (hold,), (settle,) = load.items(1)
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        began = max(at, time.monotonic() - 0.001)
        await stub.Hold(hold_pb2.HoldRequest(item=hold), metadata=server.metadata(PROJECT))
        latencies_ms.append((time.monotonic() - began) * 1_000)
        await stub.Settle(hold_pb2.SettleRequest(item=settle), metadata=server.metadata(PROJECT))

    async with server.channel() as channel:
        stub: HoldServiceAsyncStub = HoldServiceStub(channel)
        for count, kept in ((SINGLES_PER_S, False), (int(SINGLES_PER_S * seconds), True)):
            latencies_ms.clear()
            start = time.monotonic() + 0.1
            async with asyncio.TaskGroup() as tasks:
                for number in range(count):
                    tasks.create_task(call(stub, start + number / SINGLES_PER_S))
            if kept:
                break
    ordered = sorted(latencies_ms)
    return {
        "hold_p50_ms": round(ordered[len(ordered) // 2], 3),
        "hold_p99_ms": round(ordered[int(len(ordered) * 0.99)], 3),
        "single_holds": len(ordered),
    }


async def measure(kind: DatabaseKind, seconds: float) -> dict[str, Any]:
    """Measures everything on one kind of database."""
    with tempfile.TemporaryDirectory(prefix="llmlab-bench-") as folder:
        async with cost_server(kind, Path(folder)) as server:
            await create_budgets(server, overlapping_scopes())
            pairs = await pairs_per_s(server, "batches", seconds)
            print(f"{kind}: {pairs}", file=sys.stderr)
            singles = await single_holds(server, seconds)
            print(f"{kind}: {singles}", file=sys.stderr)
            await create_budgets(server, (budget_pb2.BudgetScope(user_id=f"usr_{user}") for user in range(USERS)))
            of_users = await pairs_per_s(server, "users", seconds)
            print(f"{kind}: {of_users}", file=sys.stderr)
    return {
        "hold_settle_pairs_per_s": pairs["pairs_per_s"],
        "hold_p50_ms": singles["hold_p50_ms"],
        "hold_p99_ms": singles["hold_p99_ms"],
        "pair_cpu_ms": pairs["cpu_ms_per_pair"],
        "user_budgets_pairs_per_s": of_users["pairs_per_s"],
        "counts": {"pairs": pairs["pairs"], "single_holds": singles["single_holds"]},
    }


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql")
    parser.add_argument("--seconds", type=float, default=8.0)
    chosen = parser.parse_args()
    print(json.dumps(uvloop.run(measure(chosen.database, chosen.seconds))))


if __name__ == "__main__":
    main()
