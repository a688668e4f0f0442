"""Summaries of spend over many raw events, through gRPC, checked against scans of the events.

    python -m bench.cost_summaries [--database postgresql|sqlite] [--events 10000000] [--questions 400]

Events of 90 days by 1,000 users, 50 models and 20 tags are loaded (by COPY on PostgreSQL); the service makes its views
of them as it always does. The last line of output is one JSON object; `bench/README.md` explains its keys.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import uvloop
from google.protobuf.duration_pb2 import Duration

from bench.cost_server import CostServer, DatabaseKind, cost_server
from llmlab.api.cost.v1 import spend_pb2 as pb
from llmlab.api.cost.v1.spend_pb2_grpc import UsageServiceStub

PROJECT = "prj_bench"
EVENTS = 10_000_000
SQLITE_EVENTS = 500_000
QUESTIONS = 400
CHECKED = 12
DAYS = 90
USERS, MODELS, TEAMS, ENVIRONMENTS, KEYS, RUNS_A_DAY = 1_000, 50, 10, 10, 100, 10
SEED = 20261121
DAY_US = 86_400_000_000
FOLD_EVENTS = 100_000
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Asia/Tokyo")
COLUMNS = (
    "project_id source event_id digest provider model provider_model user_id key_id run_id tags input_tokens"
    " cache_read_tokens cache_write_5m_tokens cache_write_1h_tokens input_audio_tokens output_tokens reasoning_tokens"
    " output_audio_tokens steps usage_source succeeded priced cost_nano_usd cost_parts price_version held_nano_usd"
    " occurred_us charged_us recorded_us service_tier metadata tag_count calls unpriced_calls sequence"
).split()


_NEW_PROJECT = (
    "INSERT INTO projects (project_id, held_nano_usd, prices_revision, budgets_revision, event_sequence)"
    " VALUES ({}, 0, 0, 0, {})"
)


def model_name(number: int) -> tuple[str, str]:
    """Provider and model."""
    return f"provider{number % 5}", f"model-{number:02d}"


def rows(events: int, start_us: int) -> Iterator[tuple[Any, ...]]:
    """Yields the events in the order of their times, spread evenly."""
    chance = random.Random(SEED)  # noqa: S311 - a seeded load
    step_us = DAYS * DAY_US // events
    for number in range(events):
        draw = chance.getrandbits(62)
        provider, model = model_name(draw % MODELS)
        tags = f'{{"team":"t{draw // 50 % TEAMS}"}}'
        if draw & 1:
            tags = f'{{"env":"e{draw // 500 % ENVIRONMENTS}","team":"t{draw // 50 % TEAMS}"}}'
        user, key = f"usr_{draw // 5_000 % USERS}", f"key_{draw // 5_000_000 % KEYS}"
        at_us = start_us + number * step_us
        run = f"run_{number * step_us // DAY_US}_{draw % RUNS_A_DAY}" if draw & 2 else ""
        tokens, cost = draw // 7 % 9_000, draw // 11 % 5_000_000
        counts = (tokens, tokens // 2, 0, 0, 0, tokens // 3, 0, 0, 0)
        names = (PROJECT, "bench", f"e{number}", b"", provider, model, "", user, key, run, tags)
        yield (
            *names,
            *counts,
            1,
            True,
            True,
            cost,
            "{}",
            "bench-1",
            0,
            at_us,
            0,
            at_us,
            "",
            "{}",
            1 + (draw & 1),
            1,
            0,
            number + 1,
        )


def load_postgresql(url: str, events: int, start_us: int) -> None:
    """Copies the events, and then tells the service of them."""
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("SET search_path = cost")
        with cursor.copy(f"COPY usage_events ({', '.join(COLUMNS)}) FROM STDIN") as copy:
            lines: list[str] = []
            for row in rows(events, start_us):
                lines.append("\t".join("\\\\x" if value == b"" else str(value) for value in row))
                if len(lines) == 5_000:
                    copy.write("\n".join(lines) + "\n")
                    lines.clear()
            copy.write("".join(f"{line}\n" for line in lines))
        cursor.execute("ANALYZE usage_events")
        cursor.execute(_NEW_PROJECT.format("%s", "%s"), (PROJECT, events))


def load_sqlite(file: Path, events: int, start_us: int) -> None:
    """Inserts the events, and then tells the service of them."""
    with sqlite3.connect(file, timeout=60) as connection:
        places = ", ".join("?" * len(COLUMNS))
        connection.executemany(
            f"INSERT INTO usage_events ({', '.join(COLUMNS)}) VALUES ({places})",  # noqa: S608 - our own names
            rows(events, start_us),
        )
        connection.execute(_NEW_PROJECT.format("?", "?"), (PROJECT, events))


class Questions:
    """Representative questions, of random users, models, tags, windows and zones."""

    def __init__(self, seed: int, end: datetime) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - a seeded load
        self._end = end

    def next(self) -> tuple[str, pb.SummarizeSpendRequest]:
        """Returns what kind of question it is, and the question."""
        kind, make = self._chance.choice(KINDS)
        request = pb.SummarizeSpendRequest(time_zone=self._chance.choice(ZONES), page_size=100)
        if self._chance.random() < 0.3:
            back = self._chance.choice((0, 20, 50))
            request.period = (self._end - timedelta(days=back)).strftime("%Y-%m")
        else:
            request.rolling.CopyFrom(Duration(seconds=86_400 * self._chance.choice((7, 30, 30, 90))))
        make(request, self._chance)
        return kind, request


def _by(*names: str, **more: Any) -> Callable[[pb.SummarizeSpendRequest, random.Random], None]:
    """Builds a question grouped by dimensions; `more` are its fields, and which filters it has."""
    filters = more.pop("filters", ())

    def make(request: pb.SummarizeSpendRequest, chance: random.Random) -> None:
        request.group_by.extend(pb.SpendDimension.Value(f"SPEND_DIMENSION_{name.upper()}") for name in names)
        request.MergeFrom(pb.SummarizeSpendRequest(**more))
        values = {
            "user_id": f"usr_{chance.randrange(USERS)}",
            "key_id": f"key_{chance.randrange(KEYS)}",
            "tag": f"team=t{chance.randrange(TEAMS)}",
            "run_id": f"run_{chance.randrange(DAYS)}_{chance.randrange(RUNS_A_DAY)}",
        }
        for name in filters:
            if name == "model":
                request.filter.provider, request.filter.model = model_name(chance.randrange(MODELS))
            else:
                setattr(request.filter, name, values[name])

    return make


TOP = {"order": pb.SPEND_ORDER_COST}
KINDS = (
    ("total", _by()),
    ("total compared", _by(compare=True)),
    ("day", _by("day")),
    ("week", _by("week")),
    ("model", _by("model")),
    ("model compared", _by("model", compare=True)),
    ("provider by month", _by("month", "provider")),
    ("day, model", _by("day", "model")),
    ("top users", _by("user", **TOP)),
    ("top users compared", _by("user", compare=True, **TOP)),
    ("tags in full", _by("tag")),
    ("tags split", _by("tag", tag_share=pb.TAG_SHARE_SPLIT)),
    ("day, tag", _by("day", "tag")),
    ("tag, model", _by("tag", "model")),
    ("top keys", _by("key", **TOP)),
    ("top runs", _by("run", **TOP)),
    ("a user's days", _by("day", filters=("user_id",))),
    ("a user's models", _by("model", filters=("user_id",))),
    ("a model's days", _by("day", filters=("model",))),
    ("a model's top users", _by("user", filters=("model",), **TOP)),
    ("a tag's models", _by("model", filters=("tag",))),
    ("a tag's top users", _by("user", filters=("tag",), **TOP)),
    ("a key's models", _by("model", filters=("key_id",))),
    ("a run's models", _by("model", filters=("run_id",))),
)


def scan(url: str, file: Path, request: pb.SummarizeSpendRequest, answer: pb.SummarizeSpendResponse) -> tuple[int, int]:
    """Adds the events of an answer's window up, one by one: calls and cost."""
    wanted = [("provider", "="), ("model", "="), ("user_id", "="), ("key_id", "="), ("run_id", "=")]
    conditions = ["project_id = 'prj_bench'"]
    conditions += [f"occurred_us >= {answer.start_time.ToMicroseconds()}"]
    conditions += [f"occurred_us < {answer.end_time.ToMicroseconds()}"]
    conditions += [
        f"{name} {sign} '{getattr(request.filter, name)}'" for name, sign in wanted if getattr(request.filter, name)
    ]
    if request.filter.tag:
        name, _, value = request.filter.tag.partition("=")
        conditions.append(f"""tags LIKE '%"{name}":"{value}"%'""")
    statement = f"SELECT count(*), coalesce(sum(cost_nano_usd), 0) FROM usage_events WHERE {' AND '.join(conditions)}"  # noqa: S608
    if url:
        with psycopg.connect(url) as connection:
            connection.execute("SET search_path = cost")
            row = connection.execute(statement).fetchone()
    else:
        with sqlite3.connect(file) as connection:
            row = connection.execute(statement).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


async def ask(
    server: CostServer, questions: int, end: datetime, check: Callable[..., tuple[int, int]]
) -> dict[str, Any]:
    """Asks one question after another, and returns the latencies; fails where an answer is not what a scan gives."""
    metadata = server.metadata(PROJECT, "READ")
    by_kind: dict[str, list[float]] = {}
    async with server.channel() as channel:
        stub = UsageServiceStub(channel)
        asked = Questions(SEED, end)
        for number in range(questions + len(KINDS)):
            kind, request = asked.next()
            began = time.perf_counter()
            answer = await stub.SummarizeSpend(request, metadata=metadata, timeout=60)
            if number >= len(KINDS):  # the first ones warm connections and caches
                by_kind.setdefault(kind, []).append((time.perf_counter() - began) * 1_000)
            if number < CHECKED:
                found = await asyncio.to_thread(check, request, answer)
                if found != (answer.total.calls, answer.total.cost.cost_nano_usd):
                    raise SystemExit(f"{kind}: {found} by a scan, not what was answered: {request} {answer.total}")
    every = [value for values in by_kind.values() for value in values]
    return {
        "summary_p50_ms": round(quantile(every, 0.5), 1),
        "summary_p99_ms": round(quantile(every, 0.99), 1),
        "summary_max_ms": round(max(every), 1),
        "counts": {"summaries": len(every), "summaries_checked_by_a_scan": CHECKED},
        "summary_max_ms_by_kind": {kind: round(max(values), 1) for kind, values in sorted(by_kind.items())},
    }


def quantile(values: list[float], share: float) -> float:
    """The value below which a share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def measure(kind: DatabaseKind, events: int, questions: int) -> dict[str, Any]:
    """Loads, waits for the service's views, asks."""
    end = datetime.now(UTC)
    start_us = int(end.timestamp()) * 1_000_000 - DAYS * DAY_US
    settings = {"LLMLAB_COST_FOLD_MAX_EVENTS": str(FOLD_EVENTS), "LLMLAB_COST_FOLD_INTERVAL_S": "0.2"}
    with tempfile.TemporaryDirectory(prefix="llmlab-bench-") as folder:
        home = Path(folder)
        home.chmod(0o755)  # noqa: ASYNC240 - PostgreSQL runs as a user of its own
        async with cost_server(kind, home, settings) as server:
            url, file = server.postgres.server.url if server.postgres else "", home / "cost.db"
            began = time.monotonic()
            if url:
                await asyncio.to_thread(load_postgresql, url, events, start_us)
            else:
                await asyncio.to_thread(load_sqlite, file, events, start_us)
            loaded_s = time.monotonic() - began
            print(f"{events:,} events loaded in {loaded_s:.0f} s", file=sys.stderr)
            folded_s = await until_folded(url, file, events)
            print(f"folded in {folded_s:.0f} s", file=sys.stderr)

            def check(request: pb.SummarizeSpendRequest, answer: pb.SummarizeSpendResponse) -> tuple[int, int]:
                return scan(url, file, request, answer)

            latencies = await ask(server, questions, end, check)
    latencies["counts"]["summed_events"] = events
    return {"summary_loaded_s": round(loaded_s, 1), "summary_folded_s": round(folded_s, 1), **latencies}


async def until_folded(url: str, file: Path, events: int) -> float:
    """Waits until the views hold every event; returns the seconds."""
    statement = "SELECT coalesce(max(folded_sequence), 0) FROM spend_progress"
    began = time.monotonic()
    while True:
        await asyncio.sleep(0.5)
        if url:
            with psycopg.connect(url) as connection:
                connection.execute("SET search_path = cost")
                row = connection.execute(statement).fetchone()
        else:
            with sqlite3.connect(file) as connection:
                row = connection.execute(statement).fetchone()
        if row is not None and row[0] >= events:
            return time.monotonic() - began


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
