"""What telemetry costs: the pipeline's study on the embedded product without any, and with figures and traces.

    make -s bench NAME=telemetry
    python -m bench.telemetry [--cells 500] [--turns 80] [--processes 2] [--every-cell]

All ways run in one process, each on services and a home of its own, and take turns. These are short and many, because
the machine's speed drifts by more than telemetry costs; as great a share of their cells is followed as of the 5,000 of
`bench.pipeline`. Several processes do that one after another, so that the luck of one with its memory does not decide.
The last line of output is one JSON object; `bench/README.md` explains its keys.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil
import uvloop

from bench.cpu import cpu_s
from bench.environment import environment
from bench.pipeline import CELLS as PIPELINE_CELLS
from bench.pipeline import ROOT, run_study
from llmlab.cli.embedded import start_services
from llmlab.cli.tracing import traced_command
from llmlab.client import Client, find_credentials
from services.orchestrator.policy import WorkerPolicy

CELLS = 500
TURNS = 80
PROCESSES = 2
WARM_CELLS = 200
EVERY_CELL = "on_every_cell"
_FOLLOWED = "LLMLAB_ORCHESTRATOR_TRACE_RUN_CELLS_MAX"


def ways(cells: int, *, every_cell: bool) -> dict[str, dict[str, str]]:
    """The environment of each way, beside nothing else of llmlab's."""
    followed = max(1, WorkerPolicy().traced_cells_max * cells // PIPELINE_CELLS)
    found = {
        "off": {"LLMLAB_TELEMETRY": "false"},
        # The run belongs to the trace of a command, so it is recorded, and some of its cells are followed.
        "on": {"LLMLAB_TRACE_FILE": "spans.jsonl", _FOLLOWED: str(followed)},
    }
    if every_cell:
        found[EVERY_CELL] = {"LLMLAB_TRACE_FILE": "spans.jsonl", _FOLLOWED: "1000000"}
    return found


@asynccontextmanager
async def open_way(folder: Path, environ: Mapping[str, str]) -> AsyncIterator[Client]:
    """Services of their own, with this environment."""
    for name in [name for name in os.environ if name.startswith("LLMLAB_")]:
        del os.environ[name]
    os.environ.update(environ)
    if "LLMLAB_TRACE_FILE" in environ:
        os.environ["LLMLAB_TRACE_FILE"] = str(folder / environ["LLMLAB_TRACE_FILE"])
    async with start_services(folder, fixed_ports=False) as endpoints:
        _, api_key = find_credentials(folder, {})
        async with Client(endpoints, api_key=api_key or "") as client:
            yield client


async def take_turns(folder: Path, cells: int, turns: int, *, every_cell: bool) -> dict[str, Any]:
    """Studies of all ways by turns, in each possible order: who comes after himself finds the caches warm."""
    environments = ways(cells, every_cell=every_cell)
    orders = itertools.cycle(itertools.permutations(environments))
    this = psutil.Process()
    taken: dict[str, dict[str, list[float]]] = {name: {"cpu_s": [], "seconds": []} for name in environments}
    async with AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(open_way(folder / name, environ))
            for name, environ in environments.items()
        }
        for client in clients.values():
            await run_study(client, WARM_CELLS)
        for _ in range(turns):
            for name in next(orders):
                before_s = cpu_s(this)
                taken[name]["seconds"].append(await run_study(clients[name], cells))
                taken[name]["cpu_s"].append(cpu_s(this) - before_s)
    spans = {name: _lines(folder / name / "spans.jsonl") / (turns * cells + WARM_CELLS) for name in environments}
    return {"taken": taken, "spans": spans}


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def one_process(cells: int, turns: int, *, every_cell: bool) -> dict[str, Any]:
    """What `take_turns` found in a new process."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LLMLAB_")}
    with tempfile.TemporaryDirectory(prefix="llmlab-bench-") as folder:
        size = ["--cells", str(cells), "--turns", str(turns), *(["--every-cell"] if every_cell else [])]
        done = subprocess.run(  # noqa: S603 - ourselves
            [sys.executable, "-m", "bench.telemetry", "--in", folder, *size],
            # The client's own spans, three a study, are the same for all ways.
            env={**inherited, "PYTHONPATH": str(ROOT), "LLMLAB_TRACE_FILE": str(Path(folder) / "client.jsonl")},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(cells: int, turns: int, processes: int, *, every_cell: bool) -> dict[str, Any]:
    """The figures of all processes."""
    names = list(ways(cells, every_cell=every_cell))
    found = []
    for number in range(processes):
        found.append(one_process(cells, turns, every_cell=every_cell))
        costs = {name: _cost(found[-1:], name, "cpu_s")["median"] for name in names}
        print(f"process {number + 1}: CPU above `off`, percent: {costs}", file=sys.stderr)
    figures = {
        name: {
            "cpu_ms_per_cell": round(median(_all(found, name, "cpu_s")) * 1_000 / cells, 3),
            "spans_per_cell": round(median(each["spans"][name] for each in found), 3),
        }
        for name in names
    }
    dearest = {"every_cell_cpu_cost_percent": _cost(found, EVERY_CELL, "cpu_s")} if every_cell else {}
    return {
        "cells": cells,
        "turns": turns,
        "processes": processes,
        "ways": figures,
        "telemetry_cpu_cost_percent": _cost(found, "on", "cpu_s"),
        "telemetry_cost_percent": _cost(found, "on", "seconds"),
        **dearest,
    }


def _all(found: list[dict[str, Any]], name: str, figure: str) -> list[float]:
    return [value for each in found for value in each["taken"][name][figure]]


def _cost(found: list[dict[str, Any]], name: str, figure: str) -> dict[str, float]:
    """How much more of a figure a way took than `off` of the same turn: median and quartiles, in percent."""
    pairs = zip(_all(found, name, figure), _all(found, "off", figure), strict=True)
    low, middle, high = quantiles([(on / off - 1) * 100 for on, off in pairs], n=4)
    return {"median": round(middle, 2), "quartile_1": round(low, 2), "quartile_3": round(high, 2)}


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=CELLS)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--every-cell", action="store_true", help="also with every cell of the run followed")
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.folder is not None:
        taking = take_turns(chosen.folder, chosen.cells, chosen.turns, every_cell=chosen.every_cell)
        with traced_command(["bench"], dict(os.environ)):
            print(json.dumps(uvloop.run(taking)))
        return
    figures = measure(chosen.cells, chosen.turns, chosen.processes, every_cell=chosen.every_cell)
    print(json.dumps({"benchmark": "telemetry", **environment(), **figures}))


if __name__ == "__main__":
    main()
