"""The whole path: mock cells without delay, each held, sent, answered, scored with the default set, settled, persisted.

    make -s bench NAME=pipeline
    python -m bench.pipeline [--cells 5000] [--mode embedded|processes|both]

The last line of output is one JSON object; `bench/README.md` explains its keys.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import uvloop

from bench.cpu import ServiceSampler, cpu_s, rss_mb, thread_cpu_s
from bench.environment import environment
from llmlab.api.common.v1 import content_pb2, value_pb2
from llmlab.api.orchestrator.v1 import experiment_pb2, run_pb2
from llmlab.cli.embedded import start_services
from llmlab.client import SERVICES, Client, Endpoints, find_credentials
from services.runtime import telemetry

ROOT = Path(__file__).resolve().parent.parent
CELLS = 5000
CONCURRENCY = 128
SAMPLE_EVERY_S = 0.1
PORT_BASE = 17410


def study(cells: int) -> experiment_pb2.ExperimentSpec:
    """Builds a study of that many cells: one prompt, 100 rows (fewer where there are fewer cells), the rest repeats."""
    rows = min(100, cells)
    return experiment_pb2.ExperimentSpec(
        prompts=[
            experiment_pb2.PromptTemplate(
                name="question",
                messages=[
                    experiment_pb2.MessageTemplate(
                        role=content_pb2.ROLE_USER, text="Explain topic {{number}} to a beginner in one paragraph."
                    )
                ],
            )
        ],
        dataset=experiment_pb2.Dataset(
            rows=[experiment_pb2.Row(columns={"number": value_pb2.Value(int_value=number)}) for number in range(rows)]
        ),
        models=[experiment_pb2.ModelTarget(model="mock/instant")],
        repeats=cells // rows,
        limits=experiment_pb2.RunLimits(concurrency=CONCURRENCY),
    )


async def run_study(client: Client, cells: int) -> float:
    """Runs the study to its end and returns the seconds from its start; fails unless every cell was done and scored."""
    experiment = await client.create_experiment("bench", study(cells))
    began = time.monotonic()
    run = await client.start_run(experiment.experiment_id)
    async for event in client.watch_run(run.run_id):
        if event.WhichOneof("event") in ("completed", "failed", "cancelled"):
            break
    seconds = time.monotonic() - began
    ended = await client.get_run(run.run_id)
    statistics = ended.statistics
    if ended.status != run_pb2.RUN_STATUS_COMPLETED or statistics.cells_scored != experiment.cells:
        raise SystemExit(f"the run did not complete: {ended}")
    return seconds


class PeakMemory:
    """Follows the resident memory of processes while the run goes on."""

    def __init__(self, processes: dict[str, psutil.Process]) -> None:
        self._processes = processes
        self.peak_mb = 0.0

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Samples until the block ends."""
        task = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            task.cancel()

    async def _follow(self) -> None:
        while True:
            self.peak_mb = max(self.peak_mb, rss_mb(self._processes.values()))
            await asyncio.sleep(SAMPLE_EVERY_S)


async def embedded(cells: int) -> dict[str, Any]:
    """Measures all services in this process, on SQLite."""
    this = psutil.Process()
    with tempfile.TemporaryDirectory(prefix="llmlab-bench-") as folder:
        home = Path(folder)
        async with start_services(home, fixed_ports=False) as endpoints:
            _, api_key = find_credentials(home, {})
            async with Client(endpoints, api_key=api_key or "") as client:
                await run_study(client, 100)  # connections, caches and the scorers' processes are warm after it
                memory = PeakMemory({"all": this})
                before_s, threads_before, counted = cpu_s(this), thread_cpu_s(), telemetry.snapshot()
                with ServiceSampler(ROOT, SERVICES) as sampler:
                    async with memory.following():
                        seconds = await run_study(client, cells)
                used_s, threads = cpu_s(this) - before_s, thread_cpu_s()
                counts = _counts(counted, telemetry.snapshot())
    by_service = _embedded_shares(sampler.shares(), threads_before, threads, used_s)
    return {**_figures(cells, seconds, used_s, by_service, memory.peak_mb), "counts": counts}


def _counts(before: dict[str, Any], after: dict[str, Any]) -> dict[str, int]:
    """RPCs by method, commits and rows inserted by schema, in the measured run: a shortcut would show here."""
    counts: dict[str, int] = {}
    for series, value in after.items():
        if series.startswith(("rpcs{", "commits{", "rows_inserted{")):
            name = re.sub(r"code=OK,|service=\w+", "", series).replace(",}", "}")
            counts[name] = counts.get(name, 0) + int(value - before.get(series, 0))
    return {name: count for name, count in sorted(counts.items()) if count}


def _embedded_shares(
    shares: dict[str, float], before: dict[str, float], after: dict[str, float], used_s: float
) -> dict[str, float]:
    """Divides CPU seconds: the loop's thread by samples, named threads by name, child processes to metrics."""
    spent = {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}
    loop_s = spent.pop("MainThread", 0.0)
    by_service = {name: share * loop_s for name, share in shares.items()}
    for name, seconds in spent.items():
        owner = next((service for service in SERVICES if service in name), "shared")
        by_service[owner] = by_service.get(owner, 0.0) + seconds
    # What is left was used by child processes (the scorers) and by grpc's own threads.
    children_s = max(used_s - loop_s - sum(spent.values()), 0.0)
    by_service["metrics_processes_and_grpc_threads"] = children_s
    return by_service


async def processes(cells: int) -> dict[str, Any]:
    """Measures five processes on PostgreSQL and Redis, which are started for it unless URLs are given."""
    with tempfile.TemporaryDirectory(prefix="llmlab-bench-") as folder:
        environ = {**os.environ, "LLMLAB_HOME": folder, **_ports()}
        _tool(environ, "up")
        try:
            running = _recorded()
            endpoints, api_key = find_credentials(Path(folder), {})
            async with Client(endpoints or Endpoints(), api_key=api_key or "") as client:
                await run_study(client, 100)
                memory = PeakMemory({name: running[name] for name in SERVICES})
                before = {name: cpu_s(process) for name, process in running.items()}
                async with memory.following():
                    seconds = await run_study(client, cells)
                by_service = {name: cpu_s(process) - before[name] for name, process in running.items()}
        finally:
            _tool(environ, "down")
    used_s = sum(by_service[name] for name in SERVICES)
    return _figures(cells, seconds, used_s, by_service, memory.peak_mb)


def _ports() -> dict[str, str]:
    """Ports of their own, so that a benchmark can run beside `make up`."""
    variables: dict[str, str] = {}
    for offset, name in enumerate(SERVICES):
        variables[f"LLMLAB_{name.upper()}_PORT"] = str(PORT_BASE + offset)
        variables[f"LLMLAB_{name.upper()}_TARGET"] = f"127.0.0.1:{PORT_BASE + offset}"
    return variables


def _tool(environ: dict[str, str], command: str) -> None:
    subprocess.run(  # noqa: S603 - our own tool
        [sys.executable, "-m", "tools.processes", command], env=environ, cwd=ROOT, check=True, stdout=sys.stderr
    )


def _recorded() -> dict[str, psutil.Process]:
    from tools.processes import SERVERS, running

    found = {name: running(name) for name in (*SERVICES, *SERVERS)}
    return {name: process for name, process in found.items() if process is not None}


def _figures(
    cells: int, seconds: float, used_s: float, by_service: dict[str, float], peak_rss_mb: float
) -> dict[str, Any]:
    return {
        "cells": cells,
        "cells_per_s": round(cells / seconds, 1),
        "cpu_ms_per_cell": round(used_s * 1000 / cells, 3),
        "cpu_ms_per_cell_by_service": {
            name: round(value * 1000 / cells, 3) for name, value in sorted(by_service.items())
        },
        "peak_rss_mb": peak_rss_mb,
    }


def _in_a_process_of_its_own(mode: str, cells: int) -> dict[str, Any]:
    """Runs one mode in a fresh process, so that neither memory nor caches of another are counted."""
    done = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, "-m", "bench.pipeline", "--mode", mode, "--cells", str(cells)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])[mode]
    return result


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=CELLS)
    parser.add_argument("--mode", choices=["embedded", "processes", "both"], default="both")
    chosen = parser.parse_args()
    if chosen.mode == "both":
        result = {mode: _in_a_process_of_its_own(mode, chosen.cells) for mode in ("embedded", "processes")}
    else:
        measure = embedded if chosen.mode == "embedded" else processes
        result = {chosen.mode: uvloop.run(measure(chosen.cells))}
    print(json.dumps({"benchmark": "pipeline", **environment(), **result}))


if __name__ == "__main__":
    main()
