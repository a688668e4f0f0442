"""Runs survive anything: kill -9 of every service at random moments, of the database too, under load.

    make chaos [SEED=1] [KILLS=50]
    python -m bench.chaos [--seed 1] [--kills 50] [--cells 2000] [--minutes 15]

A whole cluster as separate processes on a durable PostgreSQL: five services and two worker processes. Studies of 2,000
cells run one after the other, two at once, each watched from its beginning to its end, while processes are killed
singly and in pairs, die at every failpoint of the crash table, or stand still until their lease is lost, and the
database crashes and restarts. The provider is the mock as one more process, whose log of calls is on disk before it
answers, and is never touched.

Afterwards, for every run: it ended, each cell has exactly one result, no call was made twice, every call has exactly
one record, and answers <= calls <= answers + unknown ones; what is unknown was under way at some kill; its watcher got
every event once; and the ledger's cost is that of the cost service, to the nano-USD. Prints a line a fault, a table,
and, last, one JSON object; exits with 1 where a promise was broken. A seed replays the same faults in the same order;
what is under way when they come is the machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar

from bench.chaos_checks import Story, charges, violations, wait_for_bills
from bench.chaos_faults import FAILPOINTS, LEASE_S, VICTIMS, WORKERS, Fault, Faults, Kind, plan
from bench.environment import environment
from llmlab.api.orchestrator.v1 import experiment_pb2
from llmlab.client import Client, LlmlabError
from tests.support.cluster import MockProvider, cluster, mock_provider
from tests.support.postgres import PostgresServer
from tests.support.witness import Call, catalogue, read_books, study

T = TypeVar("T")

RUNS_AT_ONCE: Final = 2
CONCURRENCY: Final = 48
TTFT_MS: Final = 150
RETRY_S: Final = 0.25
SETTINGS: Final = {
    "LLMLAB_DATABASE_POOL_SIZE": "4",
    "LLMLAB_ORCHESTRATOR_LEASE_MS": str(round(LEASE_S * 1_000)),
    # A share of every run for every worker.
    "LLMLAB_ORCHESTRATOR_GRANT_MAX": str(CONCURRENCY // len(WORKERS)),
    "LLMLAB_ORCHESTRATOR_UNKNOWN_AFTER_MS": "500",
    "LLMLAB_ORCHESTRATOR_BILL_SWEEP_MS": "1000",
    "LLMLAB_GATEWAY_HOLD_MARGIN_MS": "1000",
    "LLMLAB_COST_RECONCILE_INTERVAL_S": "0.5",
}
LIMITS: Final = experiment_pb2.RunLimits(
    concurrency=CONCURRENCY, requests_per_minute=1_000_000, attempts_max=10, timeout_ms=10_000
)


@dataclass(slots=True)
class Watched:
    """A run and the events that its watcher got."""

    run_id: str
    sequences: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Chaos:
    """One seed against one cluster."""

    client: Client
    faults: Faults
    mock: MockProvider
    cells: int
    runs: list[Watched] = field(default_factory=list)
    numbers: count[int] = field(default_factory=count)
    over: bool = False

    async def run(self, planned: list[Fault]) -> list[Story]:
        """Load and faults together; then what became of each run."""
        experiments = [await self._create(retry_unknown=retry_unknown) for retry_unknown in (False, True)]
        async with asyncio.TaskGroup() as group:
            for experiment_id in experiments[:RUNS_AT_ONCE]:
                group.create_task(self._keep_running(experiment_id))
            await self._break_things(planned)
            self.over = True
        return await self._stories()

    async def _create(self, *, retry_unknown: bool) -> str:
        limits = experiment_pb2.RunLimits(retry_unknown=retry_unknown)
        limits.MergeFrom(LIMITS)
        spec = study(self.cells, ttft_ms=TTFT_MS, limits=limits)
        name = "chaos, unknown cells again" if retry_unknown else "chaos"
        return (await self.client.create_experiment(name, spec)).experiment_id

    async def _keep_running(self, experiment_id: str) -> None:
        """One run after the other until the faults are over."""
        while not self.over:
            start = partial(self.client.start_run, experiment_id, request_id=f"chaos-{next(self.numbers)}")
            run = await _again(start)
            watched = Watched(run.run_id)
            self.runs.append(watched)
            async for event in self.client.watch_run(run.run_id):
                watched.sequences.append(event.sequence)

    async def _break_things(self, planned: list[Fault]) -> None:
        for number, fault in enumerate(planned, 1):
            before = len(self.faults.in_flight)
            await asyncio.to_thread(self.faults.inject, fault)
            under_way = len(self.faults.in_flight) - before
            print(f"{number:3}/{len(planned)} {fault}: {under_way} calls under way", flush=True)

    async def _stories(self) -> list[Story]:
        url = self.faults.postgres.url
        await wait_for_bills(url)
        runs = [await self.client.get_run(watched.run_id) for watched in self.runs]
        charged = await charges(self.client, url, runs)
        attempt_ids = [call["idempotency_key"] for call in self.mock.calls()]
        return [
            Story(
                read_books(url, run, attempt_ids),
                watched.sequences,
                charged[run.run_id],
                frozenset(Call(each.cell, each.attempt) for each in self.faults.in_flight if each.run_id == run.run_id),
            )
            for run, watched in zip(runs, self.runs, strict=True)
        ]


async def _again(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until somebody answers: the orchestrator may be away for as long as it takes to start."""
    while True:
        try:
            return await ask()
        except LlmlabError as error:
            if not error.retryable:
                raise
            await asyncio.sleep(RETRY_S)


@contextmanager
def _laboratory() -> Iterator[tuple[Faults, MockProvider]]:
    """A healthy cluster with nothing broken yet, and the witness that it calls."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        # The database's user, which is not root, finds its way through.
        folder.chmod(0o755)
        postgres = PostgresServer(folder / "pg", durable=True)
        postgres.start()
        try:
            with mock_provider(folder) as mock:
                (folder / "catalogue.yaml").write_text(catalogue(mock.base_url), encoding="utf-8")
                settings = {**SETTINGS, "LLMLAB_GATEWAY_CATALOGUE_FILE": str(folder / "catalogue.yaml")}
                workers = len(WORKERS) - 1
                with cluster(
                    folder, database_url=postgres.url, redis_url="", settings=settings, workers=workers
                ) as services:
                    yield Faults(services, postgres), mock
        finally:
            postgres.delete()


async def run_seed(seed: int, kills: int, cells: int, minutes: float) -> dict[str, Any]:
    """Run one seed on a cluster of its own; the figures, with what was broken under "violations"."""
    began = time.monotonic()
    stories: list[Story] = []
    broken: list[str] = []
    planned = plan(seed, kills)
    with _laboratory() as (faults, mock):
        try:
            async with asyncio.timeout(minutes * 60), faults.services.client() as client:
                stories = await Chaos(client, faults, mock, cells).run(planned)
        except* (AssertionError, TimeoutError, LlmlabError) as errors:
            broken += [f"{type(error).__name__}: {error}" for error in _leaves(errors)]
    broken += [sentence for story in stories for sentence in violations(story)]
    missed = {fault.failpoint for fault in planned if fault.failpoint} - faults.hits.keys()
    broken += [f"nobody died at {point}" for point in sorted(missed)]
    return _figures(faults, stories) | {"seconds": round(time.monotonic() - began), "violations": broken}


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _figures(faults: Faults, stories: list[Story]) -> dict[str, Any]:
    tried = Counter(record.outcome for story in stories for record in story.books.attempts)
    return {
        "kills": faults.kills.total(),
        "killed": {victim: faults.kills[victim] for victim in VICTIMS},
        "database_restarts": faults.done[Kind.DATABASE],
        "freezes": faults.done[Kind.FREEZE],
        "failpoints": {point: faults.hits[point] for point in FAILPOINTS},
        "under_way_at_kills": len(faults.in_flight),
        "runs": len(stories),
        "cells": sum(story.books.run.statistics.cells_total for story in stories),
        "done": sum(story.books.run.statistics.cells_done for story in stories),
        "unknown": sum(story.books.run.statistics.cells_unknown for story in stories),
        "attempts": dict(sorted(tried.items())),
        "calls": sum(len(story.books.attempt_ids) for story in stories),
        "events": sum(len(story.sequences) for story in stories),
        "ledger_nano_usd": sum(story.books.run.statistics.cost.cost_nano_usd for story in stories),
        "charged_nano_usd": sum(story.charged_nano_usd for story in stories),
    }


def _table(figures: dict[str, Any]) -> str:
    """One figure a line, those of a group below its name."""
    lines: list[str] = []
    for name, value in figures.items():
        if isinstance(value, dict):
            lines += [f"{name}:", *(f"  {each:32}{number:>14,}" for each, number in value.items())]
        elif isinstance(value, int):
            lines.append(f"{name:34}{value:>14,}")
    return "\n".join(lines)


def main() -> int:
    """Run one seed; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--cells", type=int, default=2_000)
    parser.add_argument("--minutes", type=float, default=15, help="after so long the cluster is given up")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    figures = asyncio.run(run_seed(chosen.seed, chosen.kills, chosen.cells, chosen.minutes))
    print(_table(figures))
    for sentence in figures["violations"]:
        print(sentence)
    print(json.dumps({"chaos": "cluster", "seed": chosen.seed, **environment(), **figures}))
    return 1 if figures["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
