"""Questions about spend answered by a scan of the events, with none of the service's code."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

import psycopg

from bench.cost_events import PROJECT
from bench.cost_questions import Question
from llmlab.api.cost.v1 import spend_pb2 as pb

Connection = psycopg.Connection | sqlite3.Connection
Row = tuple[tuple[str, ...], int, int, int]
"""Keys, calls, cost, output tokens."""
_COLUMNS: Final = {
    "model": "provider || '/' || model",
    "provider": "provider",
    "user": "user_id",
    "key": "key_id",
    "run": "run_id",
    "tag": "coalesce(entry.key || '=' || entry.value, '')",
    "project": "project_id",
}
_PERIODS: Final = {"day": ("YYYY-MM-DD", "%Y-%m-%d"), "week": ('IYYY-"W"IW', "%G-W%V"), "month": ("YYYY-MM", "%Y-%m")}
_FILTERS: Final = ("provider", "model", "user_id", "key_id", "run_id")


def scan(
    connection: psycopg.Connection | sqlite3.Connection, question: Question, window_us: tuple[int, int]
) -> list[Row]:
    """The groups of a window that fit the filter, added up event by event; without groups the total."""
    request = question.request
    on_sqlite = isinstance(connection, sqlite3.Connection)
    if isinstance(connection, sqlite3.Connection):
        connection.create_function("period_key", 3, _period_key, deterministic=True)
    columns = [_column(name, request.time_zone or "UTC", on_sqlite=on_sqlite) for name in question.group_by]
    source, cost = "usage_events", "cost_nano_usd"
    if "tag" in question.group_by:
        source += f" LEFT JOIN {'json_each(tags)' if on_sqlite else 'json_each_text(tags::json)'} AS entry ON true"
    if request.tag_share == pb.TAG_SHARE_SPLIT:
        # An event's tags are "team", or "env" and "team": the first one has what the division leaves.
        rest = "CASE WHEN tag_count = 1 OR entry.key = 'env' THEN cost_nano_usd % tag_count ELSE 0 END"
        cost = f"cost_nano_usd / tag_count + {rest}"
    conditions = [f"project_id = '{PROJECT}' AND occurred_us >= {window_us[0]} AND occurred_us < {window_us[1]}"]
    conditions += [f"{name} = '{wanted}'" for name in _FILTERS if (wanted := getattr(request.filter, name))]
    if request.filter.tag:
        name, _, value = request.filter.tag.partition("=")
        conditions.append(f"""tags LIKE '%"{name}":"{value}"%'""")
        if "tag" in question.group_by:
            conditions.append(f"{_COLUMNS['tag']} = '{request.filter.tag}'")
    grouped = f" GROUP BY {', '.join(columns)}" if columns else ""
    sums = f"count(*), coalesce(sum({cost}), 0), coalesce(sum(output_tokens), 0)"
    statement = f"SELECT {', '.join([*columns, sums])} FROM {source} WHERE {' AND '.join(conditions)}{grouped}"  # noqa: S608
    rows = connection.execute(statement).fetchall()
    return [(tuple(keys), int(calls), int(cost), int(tokens)) for *keys, calls, cost, tokens in rows]


def _column(name: str, zone: str, *, on_sqlite: bool) -> str:
    if name not in _PERIODS:
        return _COLUMNS[name]
    of_postgresql, of_python = _PERIODS[name]
    if on_sqlite:
        return f"period_key(occurred_us, '{zone}', '{of_python}')"
    return f"to_char(to_timestamp(occurred_us / 1000000) AT TIME ZONE '{zone}', '{of_postgresql}')"


def _period_key(at_us: int, zone: str, pattern: str) -> str:
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).astimezone(ZoneInfo(zone)).strftime(pattern)
