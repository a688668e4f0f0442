"""A run of a million cells: how soon it starts, and whether memory stays flat while it goes on.

    make -s bench NAME=size
    python -m bench.size [--cells 1000000] [--seconds 120]

The last line of output is one JSON object; `bench/README.md` explains its keys.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from statistics import linear_regression
from typing import Any

import psutil
import uvloop

from bench.cpu import rss_mb
from bench.embedded_lab import lab
from bench.environment import environment
from bench.pipeline import study

CELLS = 1_000_000
SECONDS = 120
SAMPLE_EVERY_S = 1.0
SETTLED = 1 / 3
"""The share of the time after which memory is judged: caches and pools fill up before."""


async def measure(cells: int, seconds: float) -> dict[str, Any]:
    """Starts the run, follows it, and cancels it."""
    this = psutil.Process()
    async with lab() as (client, _, _):
        experiment = await client.create_experiment("size", study(cells))
        began_s = time.monotonic()
        run = await client.start_run(experiment.experiment_id)
        started_s = time.monotonic() - began_s
        async for event in client.watch_run(run.run_id):
            if event.WhichOneof("event") == "result":
                break
        first_result_s = time.monotonic() - began_s
        times_s, memory_mb = [], []
        while (at_s := time.monotonic() - began_s) < seconds:
            times_s.append(at_s)
            memory_mb.append(rss_mb([this]))
            await asyncio.sleep(SAMPLE_EVERY_S)
        standing = await client.get_run(run.run_id)
        if standing.HasField("end_time"):
            print("the run ended before the time was over", file=sys.stderr)
        await client.cancel_run(run.run_id)
    first = int(len(times_s) * SETTLED)
    slope, _ = linear_regression(times_s[first:], memory_mb[first:])
    return {
        "start_run_s": round(started_s, 3),
        "first_result_s": round(first_result_s, 3),
        "seconds": round(times_s[-1], 1),
        "cells_done": standing.statistics.cells_done,
        "rss_mb_slope_per_minute": round(slope * 60, 3),
        "rss_mb_slope_per_100000_cells": round(slope * times_s[-1] * 100_000 / standing.statistics.cells_done, 3),
        "rss_mb": {"settled": memory_mb[first], "last": memory_mb[-1], "peak": max(memory_mb)},
    }


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=CELLS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    chosen = parser.parse_args()
    result = uvloop.run(measure(chosen.cells, chosen.seconds))
    print(json.dumps({"benchmark": "size", "cells": chosen.cells, **environment(), **result}))


if __name__ == "__main__":
    main()
