"""What fifty watchers of one run at full speed cost it: the same run with and without them, in turns.

    make -s bench NAME=watchers
    python -m bench.watchers [--watchers 50] [--turns 12] [--turn-seconds 6]

The watchers are a process of their own that reads what it gets and decodes nothing. The last line of output is one JSON
object; `bench/README.md` explains its keys.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict
from statistics import mean
from typing import Any

import grpc
import psutil
import uvloop

from bench.cpu import cpu_s
from bench.embedded_lab import lab
from bench.environment import environment
from bench.pipeline import ROOT, study
from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.client import Client, Endpoints

WATCHERS = 50
TURNS = 12
TURN_S = 6.0
CELLS = 1_000_000
_METHOD = "/llmlab.api.orchestrator.v1.RunService/WatchRun"


async def watch(job: dict[str, Any]) -> None:
    """What the watchers' process does until it is told to stop by the end of its standard input."""
    endpoints = Endpoints(**job["endpoints"])
    async with Client(endpoints, api_key=job["api_key"]) as client:
        metadata = (("authorization", f"Bearer {await client.access_token()}"),)
    request = run_pb2.WatchRunRequest(run_id=job["run_id"], after_sequence=job["after"]).SerializeToString()
    read = [0] * job["watchers"]

    async def one(number: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(endpoints.orchestrator, options=options) as channel:
            method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(_METHOD)
            async for message in method(request, metadata=metadata):
                read[number] += len(message)

    tasks = [asyncio.create_task(one(number)) for number in range(job["watchers"])]
    await asyncio.to_thread(sys.stdin.read)
    print(json.dumps({"bytes_least": min(read), "bytes_most": max(read), "ended": sum(t.done() for t in tasks)}))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def rate_of(client: Client, run_id: str, seconds: float) -> tuple[float, float]:
    """Cells a second, and CPU milliseconds of this process a cell, for so long."""
    this = psutil.Process()
    before, began_s, used_s = await client.get_run(run_id), time.monotonic(), cpu_s(this)
    await asyncio.sleep(seconds)
    after = await client.get_run(run_id)
    if after.HasField("end_time"):
        raise SystemExit("the run ended too soon")
    cells = after.statistics.cells_done - before.statistics.cells_done
    return cells / (time.monotonic() - began_s), (cpu_s(this) - used_s) * 1_000 / max(1, cells)


async def measure(watchers: int, turns: int, turn_s: float) -> dict[str, Any]:
    """Turns without and with watchers, one after the other."""
    alone, watched, read = [], [], []
    async with lab() as (client, endpoints, api_key):
        experiment = await client.create_experiment("watchers", study(CELLS))
        run = await client.start_run(experiment.experiment_id)
        await asyncio.sleep(turn_s / 2)
        for _ in range(turns):
            alone.append(await rate_of(client, run.run_id, turn_s))
            standing = await client.get_run(run.run_id)
            job = {
                "endpoints": asdict(endpoints),
                "api_key": api_key,
                "run_id": run.run_id,
                "after": standing.last_sequence,
                "watchers": watchers,
            }
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bench.watchers", "--watch", json.dumps(job),
                cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
            await asyncio.sleep(turn_s / 2)  # until it has started and caught up
            watched.append(await rate_of(client, run.run_id, turn_s))
            told, _ = await process.communicate(b"")
            read.append(json.loads(told))
        await client.cancel_run(run.run_id)
    alone_per_s, watched_per_s = mean(rate for rate, _ in alone), mean(rate for rate, _ in watched)
    return {
        "alone_cells_per_s": round(alone_per_s, 1),
        "watched_cells_per_s": round(watched_per_s, 1),
        "ratio": round(watched_per_s / alone_per_s, 3),
        "alone_cpu_ms_per_cell": round(mean(cpu for _, cpu in alone), 3),
        "watched_cpu_ms_per_cell": round(mean(cpu for _, cpu in watched), 3),
        "read": read,
    }


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--watchers", type=int, default=WATCHERS)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--turn-seconds", type=float, default=TURN_S)
    parser.add_argument("--watch", type=json.loads, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.watch:
        uvloop.run(watch(chosen.watch))
        return
    result = uvloop.run(measure(chosen.watchers, chosen.turns, chosen.turn_seconds))
    print(json.dumps({"benchmark": "watchers", "watchers": chosen.watchers, **environment(), **result}))


if __name__ == "__main__":
    main()
