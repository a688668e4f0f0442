"""Ingest of usage events through StreamUsage: durable events a second, and what each costs in CPU time.

    python -m bench.cost_ingest [--database postgresql|sqlite] [--seconds 10]

Events are of now, by 1,000 users, 50 models of real prices and 20 tags. The views are folded meanwhile, as they always
are; every second the events that wait for that are counted. The last line of output is one JSON object;
`bench/README.md` explains its keys.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import uvloop

from bench.cost_server import CostServer, DatabaseKind, cost_server
from llmlab.api.common.v1 import usage_pb2
from llmlab.api.cost.v1 import spend_pb2 as pb
from llmlab.api.cost.v1.spend_pb2_grpc import UsageServiceStub
from services.cost.pricing.catalogue import Catalogue

PROJECT = "prj_bench"
BATCH = 1_000
STREAMS = 2
SECONDS = 10.0
USERS, MODELS, TAGS = 1_000, 50, 20
SEED = 20261121


def models() -> list[str]:
    """Fifty models of OpenAI that have a price."""
    return [price.model for price in Catalogue.load().page("openai", "", ("", ""), MODELS)]


class Load:
    """Batches of new events; made before the clock starts, because making them is the reporters' work."""

    def __init__(self) -> None:
        self._chance = random.Random(SEED)  # noqa: S311 - a seeded load
        self._numbers = itertools.count()
        self._models = models()

    def batch(self) -> pb.StreamUsageRequest:
        """Returns a message of new events."""
        return pb.StreamUsageRequest(events=[self._event() for _ in range(BATCH)])

    def _event(self) -> pb.UsageEvent:
        chance = self._chance
        tags = {"team": f"t{chance.randrange(TAGS // 2)}", "env": f"e{chance.randrange(TAGS // 2)}"}
        if chance.random() < 0.5:
            del tags["env"]
        tokens = chance.randrange(9_000)
        return pb.UsageEvent(
            event_id=f"event-{next(self._numbers)}",
            source="bench",
            provider="openai",
            model=chance.choice(self._models),
            usage=usage_pb2.TokenUsage(input_tokens=tokens, cache_read_tokens=tokens // 2, output_tokens=tokens // 3),
            attribution=pb.Attribution(
                user_id=f"usr_{chance.randrange(USERS)}",
                key_id=f"key_{chance.randrange(100)}",
                run_id=f"run_{chance.randrange(10)}",
                tags=tags,
            ),
        )


async def check_total(server: CostServer, stub: Any, events: int) -> None:
    """Fails unless every acknowledged event is in a summary."""
    metadata = server.metadata(PROJECT, "READ")
    total = (await stub.SummarizeSpend(pb.SummarizeSpendRequest(), metadata=metadata, timeout=60)).total
    if total.calls != events:
        raise SystemExit(f"{total.calls} events in the summary, not {events}")


async def measure(kind: DatabaseKind, seconds: float) -> dict[str, Any]:
    """Streams for so many seconds; returns the rate and the CPU time of an event by who used it."""
    load = Load()
    prepared = [load.batch() for _ in range(int(seconds * 20) + 4)]
    with tempfile.TemporaryDirectory(prefix="llmlab-bench-") as folder:
        home = Path(folder)
        home.chmod(0o755)  # noqa: ASYNC240 - PostgreSQL runs as a user of its own
        async with cost_server(kind, home) as server, server.channel() as channel:
            stub = UsageServiceStub(channel)
            metadata = server.metadata(PROJECT, "WRITE")
            await stub.StreamUsage(_some(prepared[:4]), metadata=metadata)
            batches = iter(prepared[4:])
            before = server.cpu_s()
            began = time.monotonic()
            watching = asyncio.create_task(backlogs(partial(waiting_events, server, home)))
            answers = await asyncio.gather(
                *[stub.StreamUsage(_until(batches, began + seconds), metadata=metadata) for _ in range(STREAMS)]
            )
            lasted_s = time.monotonic() - began
            watching.cancel()
            waited = await watching
            used = {name: value - before[name] for name, value in server.cpu_s().items()}
            events = sum(answer.acknowledged for answer in answers)
            await check_total(server, stub, events + 4 * BATCH)
    return {
        "ingest_events_per_s": round(events / lasted_s),
        "ingest_backlog_max_events": max(waited, default=0),
        "ingest_backlog_end_events": waited[-1] if waited else 0,
        "counts": {"ingested_events": events},
        "ingest_cpu_us_per_event": {name: round(value / events * 1e6, 1) for name, value in used.items()},
    }


def waiting_events(server: CostServer, home: Path) -> tuple[int, int]:
    """How many events are on record, and how many of them are not folded yet."""
    statement = (
        "SELECT projects.event_sequence, projects.event_sequence - coalesce(folded_sequence, 0) FROM projects"
        " LEFT JOIN spend_progress ON spend_progress.project_id = projects.project_id"
    )
    connection: Any
    if server.postgres:
        connection = psycopg.connect(server.postgres.server.url, options="-c search_path=cost")
    else:
        connection = sqlite3.connect(home / "cost.db", timeout=60)
    with closing(connection):
        recorded, waiting = connection.execute(statement).fetchone()
    return recorded, waiting


async def backlogs(look: Callable[[], tuple[int, int]]) -> list[int]:
    """Looks every second until cancelled; returns the events that waited, and prints them every ten seconds."""
    waited: list[int] = []
    with suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(1.0)
            recorded, waiting = await asyncio.to_thread(look)
            waited.append(waiting)
            if len(waited) % 10 == 0:
                print(f"{recorded:,} events, {waiting:,} to be folded", file=sys.stderr, flush=True)
    return waited


async def _some(messages: list[pb.StreamUsageRequest]) -> AsyncIterator[pb.StreamUsageRequest]:
    for message in messages:
        yield message


async def _until(messages: Any, end: float) -> AsyncIterator[pb.StreamUsageRequest]:
    for message in messages:
        if time.monotonic() > end:
            return
        yield message


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    chosen = parser.parse_args()
    print(json.dumps(uvloop.run(measure(chosen.database, chosen.seconds))))


if __name__ == "__main__":
    main()
