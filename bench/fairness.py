"""How long ten cells take beside a huge run that has taken every call that the worker makes at once.

    make -s bench NAME=fairness
    python -m bench.fairness [--cells 100000] [--rounds 5]

All services in this process, on SQLite. The last line of output is one JSON object; `bench/README.md` explains its
keys.
"""

from __future__ import annotations

import argparse
import json
import time
from statistics import median
from typing import Any

import uvloop

from bench.embedded_lab import lab
from bench.environment import environment
from bench.pipeline import study
from llmlab.api.common.v1 import value_pb2
from llmlab.api.orchestrator.v1 import experiment_pb2
from llmlab.client import Client

CELLS = 100_000
ROUNDS = 5
SMALL_CELLS = 10
CONCURRENCY = 1_024
"""More than one worker has: the huge run takes all that it gets."""
LATENCIES_MS = {"quick": 50, "slow": 5_000}
"""Of the huge run's calls. Slow ones leave a worker nothing to hand on for seconds."""
_SETTLED_AFTER_CELLS = 500


def delayed(cells: int, latency_ms: int, concurrency: int) -> experiment_pb2.ExperimentSpec:
    """A study whose calls take so long."""
    spec = study(cells)
    spec.models[0].provider_options["ttft_ms"].CopyFrom(value_pb2.Value(int_value=latency_ms))
    spec.limits.concurrency = concurrency
    spec.limits.timeout_ms = 60_000
    return spec


async def seconds_of(client: Client, experiment_id: str) -> float:
    """From StartRun until the last event."""
    began = time.monotonic()
    run = await client.start_run(experiment_id)
    async for event in client.watch_run(run.run_id):
        if event.WhichOneof("event") == "completed":
            return time.monotonic() - began
    raise SystemExit("the ten cells did not complete")


async def beside(client: Client, small: str, cells: int, latency_ms: int, rounds: int) -> list[float]:
    """Runs the ten cells again and again while a huge run goes on."""
    huge = await client.create_experiment("huge", delayed(cells, latency_ms, CONCURRENCY))
    run = await client.start_run(huge.experiment_id)
    async for event in client.watch_run(run.run_id):
        done = event.progress.statistics.cells_done
        # By then its calls fill every place, and answers come as steadily as they will.
        if done >= min(_SETTLED_AFTER_CELLS, cells // 4):
            break
    found = [await seconds_of(client, small) for _ in range(rounds)]
    standing = await client.get_run(run.run_id)
    if standing.HasField("end_time"):
        raise SystemExit("the huge run ended too soon: give it more --cells")
    await client.cancel_run(run.run_id)
    async for event in client.watch_run(run.run_id, after_sequence=standing.last_sequence):
        if event.WhichOneof("event") == "cancelled":
            break
    return found


async def measure(cells: int, rounds: int) -> dict[str, Any]:
    """The ten cells alone, then beside each huge run."""
    async with lab() as (client, _, _):
        few = await client.create_experiment("few", delayed(SMALL_CELLS, LATENCIES_MS["quick"], 5))
        await seconds_of(client, few.experiment_id)  # connections and scorers are warm after it
        alone_s = median([await seconds_of(client, few.experiment_id) for _ in range(rounds)])
        result: dict[str, Any] = {"alone_s": round(alone_s, 3)}
        for name, latency_ms in LATENCIES_MS.items():
            found = await beside(client, few.experiment_id, cells, latency_ms, rounds)
            result[name] = {
                "beside_s": round(median(found), 3),
                "beside_max_s": round(max(found), 3),
                "added_s": round(max(found) - alone_s, 3),
            }
    worst = max(LATENCIES_MS, key=lambda name: float(result[name]["added_s"]))
    return {**result, "beside_s": result[worst]["beside_max_s"], "added_s": result[worst]["added_s"]}


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=CELLS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    chosen = parser.parse_args()
    result = uvloop.run(measure(chosen.cells, chosen.rounds))
    print(json.dumps({"benchmark": "fairness", "cells": chosen.cells, **environment(), **result}))


if __name__ == "__main__":
    main()
