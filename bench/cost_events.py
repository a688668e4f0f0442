"""Usage events for benchmarks: 90 days of 1,000 users, 50 models, 20 tags, 100 keys and 10 runs a day, loaded in bulk.

The events are on record as if the service had written them; its views of them are made by the service.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, cast

import psycopg

PROJECT: Final = "prj_bench"
DAYS: Final = 90
USERS, MODELS, PROVIDERS, TEAMS, ENVIRONMENTS, KEYS, RUNS_A_DAY = 1_000, 50, 5, 10, 10, 100, 10
SEED: Final = 20261121
DAY_US: Final = 86_400_000_000
PIECE: Final = 5_000
COLUMNS: Final = (
    "project_id source event_id digest provider model provider_model user_id key_id run_id tags input_tokens"
    " cache_read_tokens cache_write_5m_tokens cache_write_1h_tokens input_audio_tokens output_tokens reasoning_tokens"
    " output_audio_tokens steps usage_source succeeded priced cost_nano_usd cost_parts price_version held_nano_usd"
    " occurred_us charged_us recorded_us service_tier metadata tag_count calls unpriced_calls sequence"
).split()
_WORDS: Final = frozenset(
    "project_id source event_id digest provider model provider_model user_id key_id run_id tags cost_parts"
    " price_version service_tier metadata".split()
)
_NUMBERS: Final = [index for index, name in enumerate(COLUMNS) if name not in _WORDS]
_FLAGS: Final = {"true": 1}
_COPY: Final = f"COPY usage_events ({', '.join(COLUMNS)}) FROM STDIN"
_INDEXES: Final = (
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'cost' AND tablename = 'usage_events'"
    " AND indexname <> 'usage_events_pkey' ORDER BY indexname"
)
_NEW_PROJECT = (
    "INSERT INTO projects (project_id, held_nano_usd, prices_revision, budgets_revision, event_sequence)"
    " VALUES ({}, 0, 0, 0, {})"
)


def model_name(number: int) -> tuple[str, str]:
    """Provider and model."""
    return f"provider{number % PROVIDERS}", f"model-{number:02d}"


def lines(events: int, start_us: int) -> Iterator[str]:
    """Yields the events in the order of their times, spread evenly: values separated by tabs, as COPY takes them."""
    chance = random.Random(SEED)  # noqa: S311 - a seeded load
    models = ["\t".join((*model_name(number), "")) for number in range(MODELS)]
    tags = [[f'{{"team":"t{team}"}}'] * ENVIRONMENTS for team in range(TEAMS)]
    tags += [[f'{{"env":"e{env}","team":"t{team}"}}' for env in range(ENVIRONMENTS)] for team in range(TEAMS)]
    step_us = DAYS * DAY_US // events
    for number in range(events):
        draw = chance.getrandbits(62)
        tagged = draw & 1
        at_us = start_us + number * step_us
        run = f"run_{number * step_us // DAY_US}_{draw % RUNS_A_DAY}" if draw & 2 else ""
        tokens = draw // 7 % 9_000
        tag_set = tags[draw // 50 % TEAMS + TEAMS * tagged][draw // 500 % ENVIRONMENTS]
        yield (
            f"{PROJECT}\tbench\te{number}\t\\\\x\t{models[draw % MODELS]}\tusr_{draw // 5_000 % USERS}"
            f"\tkey_{draw // 5_000_000 % KEYS}\t{run}\t{tag_set}"
            f"\t{tokens}\t{tokens // 2}\t0\t0\t0\t{tokens // 3}\t0\t0\t0\t1\ttrue\ttrue\t{draw // 11 % 5_000_000}\t{{}}"
            f"\tbench-1\t0\t{at_us}\t{at_us}\t{at_us}\t\t{{}}\t{1 + tagged}\t1\t0\t{number + 1}\n"
        )


def load_postgresql(connect: Callable[[], psycopg.Connection], events: int, start_us: int) -> None:
    """Copies the events, and then tells the service of them. Indexes are made at the end, of all events at once."""
    with connect() as connection:
        run = cast("Callable[..., object]", connection.execute)
        run("SET maintenance_work_mem = '512MB'")
        indexes = connection.execute(_INDEXES).fetchall()
        for name, _ in indexes:
            run(f"DROP INDEX {name}")
        run("ALTER TABLE usage_events DROP CONSTRAINT usage_events_pkey")
        with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            for piece in _pieces(events, start_us):
                copy.write("".join(piece))
        run("ALTER TABLE usage_events ADD PRIMARY KEY (project_id, source, event_id)")
        for _, definition in indexes:
            run(definition)
        run(_NEW_PROJECT.format("%s", "%s"), (PROJECT, events))
    with connect() as connection:
        # What autovacuum does a while after so many rows.
        connection.autocommit = True
        connection.execute("VACUUM (ANALYZE) usage_events")


def load_sqlite(connect: Callable[[], sqlite3.Connection], events: int, start_us: int) -> None:
    """Inserts the events, and then tells the service of them."""
    statement = f"INSERT INTO usage_events ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608
    with connect() as connection:
        for piece in _pieces(events, start_us):
            connection.executemany(statement, [_values(line) for line in piece])
        connection.execute(_NEW_PROJECT.format("?", "?"), (PROJECT, events))


def _pieces(events: int, start_us: int) -> Iterator[list[str]]:
    every = lines(events, start_us)
    while piece := list(islice(every, PIECE)):
        yield piece


def _values(line: str) -> list[str | int | bytes]:
    """What COPY would read in a line."""
    values: list[str | int | bytes] = [*line[:-1].split("\t")]
    for index in _NUMBERS:
        values[index] = int(_FLAGS.get(str(values[index]), values[index]))
    values[COLUMNS.index("digest")] = b""
    return values
