"""How soon a killed run goes on: all services are killed (-9) when half of it is done, and started again.

    make -s bench NAME=resume
    python -m bench.resume [--cells 200000]

The last line of output is one JSON object; `bench/README.md` explains its keys.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import uvloop

from bench.cpu import rss_mb
from bench.embedded_lab import lab
from bench.environment import environment
from bench.pipeline import ROOT, study
from services.runtime import telemetry

CELLS = 200_000
LOOK_EVERY_S = 0.005
FOLLOWED_S = 20.0
"""How long memory is followed after the restart."""


async def work(home: Path, cells: int) -> None:
    """What the killed process does: a new run where there is none, and a line on standard output for each look."""
    async with lab(home) as (client, _, _):
        runs = [run async for run in client.list_runs()]
        if not runs:
            experiment = await client.create_experiment("resume", study(cells))
            await client.start_run(experiment.experiment_id)
        began_at_s = time.monotonic()
        before = first_call_s = None
        while True:
            called = telemetry.snapshot().get("attempts{outcome=worked}", 0)
            if before is None:
                before = called
            if called > before and first_call_s is None:
                first_call_s = time.monotonic()
                print(json.dumps({"first_call_s": first_call_s, "services_s": began_at_s}), flush=True)
            await asyncio.sleep(LOOK_EVERY_S if first_call_s is None else 0.5)
            if first_call_s is not None:
                (run, *_) = [run async for run in client.list_runs()]
                figures = {"done": run.statistics.cells_done, "ended": run.HasField("end_time")}
                print(json.dumps(figures), flush=True)


def started(home: Path, cells: int) -> subprocess.Popen[str]:
    """A process with all services."""
    command = [sys.executable, "-m", "bench.resume", "--work", str(home), "--cells", str(cells)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)  # noqa: S603 (ourselves)


def until_half(process: subprocess.Popen[str], cells: int) -> int:
    """Kills the process when half of the run is done; returns how many cells were."""
    assert process.stdout is not None
    for line in process.stdout:
        done = int(json.loads(line).get("done", 0))
        if done >= cells // 2:
            process.kill()
            process.wait()
            return done
    raise SystemExit("the services ended by themselves")


def resumed(process: subprocess.Popen[str], began_s: float) -> dict[str, Any]:
    """Follows the restarted process for a while."""
    assert process.stdout is not None
    watched = psutil.Process(process.pid)
    result: dict[str, Any] = {}
    peak_mb = 0.0
    for line in process.stdout:
        figures = json.loads(line)
        if "first_call_s" in figures:
            result["first_call_after_s"] = round(figures["first_call_s"] - began_s, 2)
            result["services_up_after_s"] = round(figures["services_s"] - began_s, 2)
        peak_mb = max(peak_mb, rss_mb([watched]))
        if time.monotonic() - began_s > FOLLOWED_S or figures.get("ended"):
            process.kill()
            process.wait()
            return {**result, "peak_rss_mb": peak_mb, "done_when_stopped": figures.get("done", 0)}
    raise SystemExit("the restarted services ended by themselves")


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=CELLS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.work:
        uvloop.run(work(chosen.work, chosen.cells))
        return
    with tempfile.TemporaryDirectory(prefix="llmlab-bench-") as folder:
        done = until_half(started(Path(folder), chosen.cells), chosen.cells)
        began_s = time.monotonic()
        result = resumed(started(Path(folder), chosen.cells), began_s)
    print(json.dumps({"benchmark": "resume", "cells": chosen.cells, "done_at_kill": done, **environment(), **result}))


if __name__ == "__main__":
    main()
