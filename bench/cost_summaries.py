"""Summaries of spend over many raw events, through gRPC, checked against scans of the events.

    python -m bench.cost_summaries [--database postgresql|sqlite] [--events 10000000] [--questions 1000]

Events of 90 days by 1,000 users, 50 models and 20 tags are loaded (by COPY on PostgreSQL); the service makes its views
of them as it always does. The last line of output is one JSON object; `bench/README.md` explains its keys.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import psycopg
import uvloop

from bench.cost_events import DAY_US, DAYS, PROJECT, load_postgresql, load_sqlite
from bench.cost_questions import Question, Questions
from bench.cost_scan import scan
from bench.cost_server import CostServer, DatabaseKind, cost_server
from llmlab.api.cost.v1 import spend_pb2 as pb
from llmlab.api.cost.v1.spend_pb2_grpc import UsageServiceStub
from services.cost.store.block_writer import PACKED_EVENTS_MIN

EVENTS = 10_000_000
SQLITE_EVENTS = 200_000
QUESTIONS = 1_000
WARM_UP = 40
CHECKED = 25
SLOWEST = 10
TELL_EVERY_S = 15.0
AIM_MS = 100
SEED, WARM_UP_SEED, CHECK_SEED = 20_261_121, 1, 2
MICROSECOND_NS = 1_000


class Asker:
    """Asks a cost service."""

    def __init__(self, server: CostServer, channel: grpc.aio.Channel) -> None:
        """Asks in the benchmark's project."""
        self._metadata = server.metadata(PROJECT, "READ")
        self._stub = UsageServiceStub(channel)

    async def answer(self, question: Question) -> tuple[pb.SummarizeSpendResponse, float]:
        """The page that is asked for, and its milliseconds."""
        response, took_ms = await self._ask(question.request)
        if question.second_page and response.next_page_token:
            following = pb.SummarizeSpendRequest()
            following.CopyFrom(question.request)
            following.page_token = response.next_page_token
            response, took_ms = await self._ask(following)
        return response, took_ms

    async def _ask(self, request: pb.SummarizeSpendRequest) -> tuple[pb.SummarizeSpendResponse, float]:
        began = time.perf_counter()
        response = await self._stub.SummarizeSpend(request, metadata=self._metadata, timeout=60)
        return response, (time.perf_counter() - began) * 1_000


async def latencies(asker: Asker, count: int, end: datetime) -> dict[str, Any]:
    """Asks one question after another, each once."""
    warming, questions = Questions(WARM_UP_SEED, end), Questions(SEED, end)
    for _ in range(WARM_UP):
        with suppress(grpc.aio.AioRpcError):
            await asker.answer(warming.next())
    took: list[tuple[float, Question]] = []
    refused: list[str] = []
    for _ in range(count):
        question = questions.next()
        try:
            took.append(((await asker.answer(question))[1], question))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            refused.append(str(question))
    took.sort(key=lambda pair: -pair[0])
    every = [one_ms for one_ms, _ in took]
    return {
        "summary_p50_ms": round(quantile(every, 0.5), 1),
        "summary_p99_ms": round(quantile(every, 0.99), 1),
        "summary_max_ms": round(every[0], 1),
        "summary_one_dimension_p99_ms": round(quantile([ms for ms, one in took if len(one.group_by) < 2], 0.99), 1),
        "summary_slower_than_100_ms_percent": round(100 * sum(one_ms > AIM_MS for one_ms in every) / len(every), 2),
        "summary_slowest": [f"{one_ms:.0f} ms: {question}" for one_ms, question in took[:SLOWEST]],
        "summary_refused": refused[:SLOWEST],
        "counts": {"summaries": len(took), "summaries_refused": len(refused)},
    }


async def check(asker: Asker, count: int, end: datetime, connect: Any) -> dict[str, Any]:
    """Compares answers with scans of the events; ends the program where one differs."""
    questions = Questions(CHECK_SEED, end)
    groups = 0
    for _ in range(count):
        question = questions.next()
        if question.request.compare:
            question = replace(question, second_page=False)
        answer, _ = await asker.answer(question)
        window_us = (answer.start_time.ToMicroseconds(), answer.end_time.ToMicroseconds())
        with connect() as connection:
            found = await asyncio.to_thread(scan, connection, question, window_us)
        by_cost = question.request.order == pb.SPEND_ORDER_COST
        found.sort(key=lambda row: (-row[2] if by_cost else 0, row[0]))
        size = question.request.page_size or 100
        if question.second_page and len(found) > size:
            found = found[size:]
        shown = [
            (tuple(row.keys), row.calls, row.cost.cost_nano_usd, row.usage.output_tokens)
            for row in (answer.rows if question.group_by else [answer.total])
        ]
        if question.request.compare and question.group_by:
            # Groups that there were only in the window before take places on the page.
            shown = [row for row in shown if row[1]]
            size = len(shown) if answer.next_page_token else len(found)
        if shown != found[:size]:
            raise SystemExit(f"a scan gives something else: {question}\n{question.request}\n{shown[:3]}\n{found[:3]}")
        groups += len(shown)
    return {"summaries_checked_by_a_scan": count, "groups_checked_by_a_scan": groups}


def quantile(values: list[float], share: float) -> float:
    """The value below which a share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def measure(kind: DatabaseKind, events: int, questions: int) -> dict[str, Any]:
    """Loads, waits for the service's views, asks."""
    end = datetime.now(UTC)
    start_us = int(end.timestamp()) * 1_000_000 - DAYS * DAY_US
    with tempfile.TemporaryDirectory(prefix="llmlab-bench-") as folder:
        home = Path(folder)
        home.chmod(0o755)  # noqa: ASYNC240 - PostgreSQL runs as a user of its own
        async with cost_server(kind, home, {"LLMLAB_COST_FOLD_INTERVAL_S": "0.2"}) as server:
            url, file = server.postgres.server.url if server.postgres else "", home / "cost.db"

            def connect() -> Any:
                if not url:
                    return sqlite3.connect(file, timeout=60, check_same_thread=False)
                return psycopg.connect(url, options="-c search_path=cost")

            began = time.monotonic()
            await asyncio.to_thread(load_postgresql if url else load_sqlite, connect, events, start_us)
            loaded_s = time.monotonic() - began
            print(f"{events:,} events loaded in {loaded_s:.0f} s", file=sys.stderr)
            used_s = server.cpu_s()
            folded_s = await until_folded(connect, events)
            cpu_s = sum(server.cpu_s().values()) - sum(used_s.values())
            print(f"folded in {folded_s:.0f} s", file=sys.stderr)
            used_s = server.cpu_s()
            packed_s = await until_packed(connect) if events >= PACKED_EVENTS_MIN else 0.0
            pack_cpu_s = sum(server.cpu_s().values()) - sum(used_s.values())
            print(f"packed in another {packed_s:.0f} s", file=sys.stderr)
            async with server.channel() as channel:
                asker = Asker(server, channel)
                figures = await latencies(asker, questions, end)
                figures["counts"] |= await check(asker, CHECKED, end, connect)
    figures["counts"]["summed_events"] = events
    return {
        "summary_loaded_s": round(loaded_s, 1),
        "summary_folded_s": round(folded_s, 1),
        "summary_packed_s": round(packed_s, 1),
        "fold_cpu_us_per_event": round(cpu_s / events * 1e6, 1),
        "pack_cpu_us_per_event": round(pack_cpu_s / events * 1e6, 1),
        **figures,
    }


class Progress:
    """Says now and then how far something has come, so that a person sees that it goes on."""

    def __init__(self, done: str) -> None:
        """`done` is said before how far it is."""
        self._done = done
        self._began_s = self._told_s = time.monotonic()

    def lasted_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began_s

    def tell(self, how_far: str) -> None:
        """Print how far it has come, unless that was done a moment ago."""
        if time.monotonic() - self._told_s >= TELL_EVERY_S:
            self._told_s = time.monotonic()
            print(f"{self.lasted_s():.0f} s: {self._done} {how_far}", file=sys.stderr, flush=True)


async def until_folded(connect: Any, events: int) -> float:
    """Waits until the views hold every event; returns the seconds."""
    progress = Progress("folded")
    while True:
        await asyncio.sleep(0.5)
        with connect() as connection:
            row = connection.execute("SELECT coalesce(max(folded_sequence), 0) FROM spend_progress").fetchone()
        if row[0] >= events:
            return progress.lasted_s()
        progress.tell(f"{row[0]:,} of {events:,} events")


async def until_packed(connect: Any) -> float:
    """Waits until every hour that is over is in blocks; returns the seconds."""
    progress = Progress("packed")
    statement = "SELECT coalesce(sum(closed_us - packed_us), 0) FROM spend_progress WHERE packed_us < closed_us"
    while True:
        await asyncio.sleep(0.5)
        with connect() as connection:
            left_us = connection.execute(statement).fetchone()[0]
        if not left_us:
            return progress.lasted_s()
        # While nothing is packed, all days since 1970 are left.
        progress.tell(f"all but {min(DAYS, left_us / DAY_US):.1f} of {DAYS} days")


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql")
    parser.add_argument("--events", type=int, default=0)
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    chosen = parser.parse_args()
    events = chosen.events or (EVENTS if chosen.database == "postgresql" else SQLITE_EVENTS)
    print(json.dumps(uvloop.run(measure(chosen.database, events, chosen.questions))))


if __name__ == "__main__":
    main()
