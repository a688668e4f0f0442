"""What telemetry costs: the pipeline's study on the embedded product without any, and with figures and traces.

    make -s bench NAME=telemetry
    python -m bench.telemetry [--cells 1000] [--turns 18] [--processes 3]

All ways run in one process, each on services and a home of its own, and take short turns, so that neither the machine's
speed, which drifts, nor the luck of a process with its memory is worse for one of them. Several processes do that one
after another. The last line of output is one JSON object; `bench/README.md` explains its keys.
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
from bench.pipeline import ROOT, run_study
from llmlab.cli.embedded import start_services
from llmlab.cli.tracing import traced_command
from llmlab.client import Client, find_credentials

CELLS = 1_000
TURNS = 18
PROCESSES = 3
WARM_CELLS = 200

WAYS: dict[str, dict[str, str]] = {
    "off": {"LLMLAB_TELEMETRY": "false"},
    # The run belongs to the trace of a command, so it is recorded, and some of its cells are followed.
    "on": {"LLMLAB_TRACE_FILE": "spans.jsonl"},
    "on_every_cell": {"LLMLAB_TRACE_FILE": "spans.jsonl", "LLMLAB_ORCHESTRATOR_TRACE_RUN_CELLS_MAX": "1000000"},
}
"""The environment of each way, beside nothing else of llmlab's."""


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


async def take_turns(folder: Path, cells: int, turns: int) -> dict[str, Any]:
    """Studies of all ways by turns, in each possible order: who comes after himself finds the caches warm."""
    orders = itertools.cycle(itertools.permutations(WAYS))
    this = psutil.Process()
    taken: dict[str, dict[str, list[float]]] = {name: {"cpu_s": [], "seconds": []} for name in WAYS}
    async with AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(open_way(folder / name, environ)) for name, environ in WAYS.items()
        }
        for client in clients.values():
            await run_study(client, WARM_CELLS)
        for _ in range(turns):
            for name in next(orders):
                before_s = cpu_s(this)
                taken[name]["seconds"].append(await run_study(clients[name], cells))
                taken[name]["cpu_s"].append(cpu_s(this) - before_s)
    spans = {name: _lines(folder / name / "spans.jsonl") / (turns * cells + WARM_CELLS) for name in WAYS}
    return {"taken": taken, "spans": spans}


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def one_process(cells: int, turns: int) -> dict[str, Any]:
    """What `take_turns` found in a new process."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LLMLAB_")}
    with tempfile.TemporaryDirectory(prefix="llmlab-bench-") as folder:
        done = subprocess.run(  # noqa: S603 - ourselves
            [sys.executable, "-m", "bench.telemetry", "--in", folder, "--cells", str(cells), "--turns", str(turns)],
            # The client's own spans, three a study, are the same for all ways.
            env={**inherited, "PYTHONPATH": str(ROOT), "LLMLAB_TRACE_FILE": str(Path(folder) / "client.jsonl")},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(cells: int, turns: int, processes: int) -> dict[str, Any]:
    """The figures of all processes."""
    found = []
    for number in range(processes):
        found.append(one_process(cells, turns))
        costs = {name: _cost(found[-1:], name, "cpu_s")["median"] for name in WAYS}
        print(f"process {number + 1}: CPU above `off`, percent: {costs}", file=sys.stderr)
    figures = {
        name: {
            "cpu_ms_per_cell": round(median(_all(found, name, "cpu_s")) * 1_000 / cells, 3),
            "spans_per_cell": round(median(each["spans"][name] for each in found), 3),
        }
        for name in WAYS
    }
    return {
        "cells": cells,
        "turns": turns,
        "processes": processes,
        "ways": figures,
        "telemetry_cpu_cost_percent": _cost(found, "on", "cpu_s"),
        "telemetry_cost_percent": _cost(found, "on", "seconds"),
        "every_cell_cpu_cost_percent": _cost(found, "on_every_cell", "cpu_s"),
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
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.folder is not None:
        with traced_command(["bench"], dict(os.environ)):
            print(json.dumps(uvloop.run(take_turns(chosen.folder, chosen.cells, chosen.turns))))
        return
    figures = measure(chosen.cells, chosen.turns, chosen.processes)
    print(json.dumps({"benchmark": "telemetry", **environment(), **figures}))


if __name__ == "__main__":
    main()
