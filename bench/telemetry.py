"""What telemetry costs: the pipeline's study on the embedded product without any, and with figures and traces.

    make -s bench NAME=telemetry
    python -m bench.telemetry [--cells 5000] [--rounds 5]

Each way is a process of its own; all live through the whole run and take turns, so that a machine whose speed drifts is
no slower for one of them than for the others. The last line of output is one JSON object; `bench/README.md` explains
its keys.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import uvloop

from bench.cpu import cpu_s
from bench.environment import environment
from bench.pipeline import ROOT, run_study
from llmlab.cli.embedded import start_services
from llmlab.cli.tracing import traced_command
from llmlab.client import Client, find_credentials

CELLS = 5_000
ROUNDS = 5
WARM_CELLS = 200

WAYS: dict[str, dict[str, str]] = {
    "off": {"LLMLAB_TELEMETRY": "false"},
    # The run belongs to the trace of a command, so it is recorded, and some of its cells are followed.
    "on": {"LLMLAB_TRACE_FILE": "spans.jsonl"},
    "on_every_cell": {"LLMLAB_TRACE_FILE": "spans.jsonl", "LLMLAB_ORCHESTRATOR_TRACE_RUN_CELLS_MAX": "1000000"},
}
"""The environment of each way, beside nothing else of llmlab's."""


async def serve(home: Path) -> None:
    """Runs a study of as many cells as each line of standard input says, and prints what it took."""
    this = psutil.Process()
    async with start_services(home, fixed_ports=False) as endpoints:
        _, api_key = find_credentials(home, {})
        async with Client(endpoints, api_key=api_key or "") as client:
            while line := await asyncio.to_thread(sys.stdin.readline):
                before_s = cpu_s(this)
                seconds = await run_study(client, int(line))
                print(json.dumps({"seconds": seconds, "cpu_s": cpu_s(this) - before_s}), flush=True)


class Way:
    """A process that runs studies in one way."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LLMLAB_")}
        self.spans = folder / "spans.jsonl"
        self._process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-m", "bench.telemetry", "--serve", str(folder / "home")],
            cwd=folder,
            env={**inherited, **environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, cells: int) -> dict[str, float]:
        """One study; its seconds and CPU seconds."""
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("both are pipes")
        self._process.stdin.write(f"{cells}\n")
        self._process.stdin.flush()
        result: dict[str, float] = json.loads(self._process.stdout.readline())
        return result

    def close(self) -> None:
        """End the process; its last spans are written."""
        self._process.communicate()


@contextmanager
def ways() -> Iterator[dict[str, Way]]:
    """All ways, warm."""
    with tempfile.TemporaryDirectory(prefix="llmlab-bench-") as folder:
        opened: dict[str, Way] = {}
        try:
            for name, environ in WAYS.items():
                (Path(folder) / name).mkdir()
                opened[name] = Way(Path(folder) / name, environ)
            for way in opened.values():
                way.run(WARM_CELLS)
            yield opened
        finally:
            for way in opened.values():
                way.close()


def measure(cells: int, rounds: int) -> dict[str, Any]:
    """Studies in turns, the order reversed each time; each way against `off` of the same round."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    with ways() as opened:
        for number in range(rounds):
            for name in list(WAYS)[:: 1 if number % 2 else -1]:
                taken[name].append(opened[name].run(cells))
                print(f"round {number + 1} {name}: {cells / taken[name][-1]['seconds']:.0f} cells/s", file=sys.stderr)
        written = {name: way.spans for name, way in opened.items()}
        spans = {name: _lines(path) / (rounds * cells + WARM_CELLS) for name, path in written.items()}
    figures = {
        name: {
            "cells_per_s": round(cells / median(one["seconds"] for one in found), 1),
            "cpu_ms_per_cell": round(median(one["cpu_s"] for one in found) * 1_000 / cells, 3),
            "spans_per_cell": round(spans[name], 3),
        }
        for name, found in taken.items()
    }
    return {
        "cells": cells,
        "rounds": rounds,
        "ways": figures,
        "telemetry_cost_percent": _cost(taken, "on", "seconds"),
        "telemetry_cpu_cost_percent": _cost(taken, "on", "cpu_s"),
        "every_cell_cost_percent": _cost(taken, "on_every_cell", "seconds"),
        "every_cell_cpu_cost_percent": _cost(taken, "on_every_cell", "cpu_s"),
    }


def _cost(taken: dict[str, list[dict[str, float]]], name: str, figure: str) -> float:
    """How much more of a figure one way took than `off`, the median of the rounds."""
    ratios = [on[figure] / off[figure] for on, off in zip(taken[name], taken["off"], strict=True)]
    return round((median(ratios) - 1) * 100, 2)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=CELLS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve is not None:
        with traced_command(["bench"], os.environ):
            uvloop.run(serve(chosen.serve))
        return
    print(json.dumps({"benchmark": "telemetry", **environment(), **measure(chosen.cells, chosen.rounds)}))


if __name__ == "__main__":
    main()
