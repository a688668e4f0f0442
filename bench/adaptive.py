"""How close a run that finds its concurrency by itself comes to the best fixed one.

    make -s bench NAME=adaptive
    python -m bench.adaptive [--cells 4000] [--at-once 50]

The mock admits 50 calls at once and answers 429 to others; its answers take 200 ms. All services in this process, on
SQLite. The last line of output is one JSON object; `bench/README.md` explains its keys.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

import uvloop

from bench.embedded_lab import lab
from bench.environment import environment
from bench.fairness import delayed
from llmlab.client import Client
from services.runtime import telemetry

CELLS = 4_000
AT_ONCE = 50
LATENCY_MS = 200
MOST = 200
"""The adaptive run's own limit."""
FIXED = (30, 40, 45, 50, 55, 60, 75, 100)
ATTEMPTS = 10
"""So that no cell fails for lack of attempts, however many of them are refused."""


async def run_once(client: Client, cells: int, concurrency: int, *, fixed: bool) -> dict[str, float]:
    """One run, from its first quarter to its last: how many cells a second, and how many calls were refused."""
    spec = delayed(cells, LATENCY_MS, concurrency)
    spec.limits.fixed_concurrency = fixed
    spec.limits.attempts_max = ATTEMPTS
    experiment = await client.create_experiment("adaptive", spec)
    before = _refused()
    run = await client.start_run(experiment.experiment_id)
    marks = [
        (event.progress.statistics.cells_done, time.monotonic())
        async for event in client.watch_run(run.run_id)
        if event.WhichOneof("event") == "progress"
    ]
    ended = await client.get_run(run.run_id)
    refused = _refused() - before
    if ended.statistics.cells_failed:
        print(f"{ended.statistics.cells_failed} cells failed at {concurrency}", file=sys.stderr)
    first = next(mark for mark in marks if mark[0] >= cells // 4)
    last = next(mark for mark in marks if mark[0] >= cells * 9 // 10)
    calls = cells + refused
    return {
        "cells_per_s": round((last[0] - first[0]) / (last[1] - first[1]), 1),
        "rate_limited_percent": round(100 * refused / calls, 2),
    }


def _refused() -> int:
    """Calls that the mock has answered with 429."""
    return int(sum(value for series, value in telemetry.snapshot().items() if series.startswith("mock_rate_limited")))


async def measure(cells: int, at_once: int) -> dict[str, Any]:
    """Every fixed setting, then the one that adapts."""
    os.environ["LLMLAB_GATEWAY_MOCK_CALLS_AT_ONCE"] = str(at_once)
    async with lab() as (client, _, _):
        await run_once(client, 200, 10, fixed=True)  # connections and scorers are warm after it
        fixed = {}
        for concurrency in FIXED:
            fixed[concurrency] = await run_once(client, cells // 2, concurrency, fixed=True)
            print(f"fixed at {concurrency}: {fixed[concurrency]}", file=sys.stderr)
        adaptive = await run_once(client, cells, MOST, fixed=False)
    best = max(fixed, key=lambda concurrency: fixed[concurrency]["cells_per_s"])
    return {
        "best_fixed": best,
        "best_fixed_cells_per_s": fixed[best]["cells_per_s"],
        "adaptive_cells_per_s": adaptive["cells_per_s"],
        "ratio": round(adaptive["cells_per_s"] / fixed[best]["cells_per_s"], 3),
        "rate_limited_percent": adaptive["rate_limited_percent"],
        "fixed": fixed,
    }


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=CELLS)
    parser.add_argument("--at-once", type=int, default=AT_ONCE)
    chosen = parser.parse_args()
    result = uvloop.run(measure(chosen.cells, chosen.at_once))
    print(json.dumps({"benchmark": "adaptive", "cells": chosen.cells, **environment(), **result}))


if __name__ == "__main__":
    main()
