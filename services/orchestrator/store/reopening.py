"""Cells that are claimed anew after a retry: their results go, and stay on record as earlier attempts.

It happens range by range, in the transaction of the claim, so that a retry of any size takes no time of its own and
no cell is without a result for longer than it is worked on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, and_, delete, func, or_, select, update

from services.orchestrator.records import COUNTED_OUTCOMES, EARLIER
from services.orchestrator.states import CellStatus
from services.orchestrator.store import tables as t
from services.orchestrator.store.events import result_event_row
from services.orchestrator.store.rows import BILL_COLUMNS, bill_columns
from services.runtime.database import Database

WINDOW_CELLS = 4_096
"""Cells that are looked through at once."""

_NOTHING_LEFT = or_(t.results.c.status != CellStatus.DONE.value, t.results.c.scored.is_(True))

_OUTCOMES = {CellStatus.FAILED: "failed", CellStatus.CANCELLED: "failed", CellStatus.UNKNOWN: "unknown"}


class Retry(NamedTuple):
    """The cells of a run that a retry has not come to yet."""

    run_id: str
    next_cell: int
    end: int
    unknown: bool
    """Whether cells with an unknown outcome are among them."""


def reopen(connection: Connection, database: Database, retry: Retry, cells_max: int, now_us: int) -> range:
    """The next range with cells that have no answer, or an answer without scores. Empty where there is none.

    Results without an answer are gone from it.

    The caller holds the run's progress row, sets its `retry_next` to the range's end and makes it a shard.
    """
    found = _next_range(connection, retry, cells_max)
    if found:
        _give_up_results(connection, database, retry, found, now_us)
    return found


def _kept(retry: Retry) -> list[str]:
    """The states of results that stay."""
    return [CellStatus.DONE.value] if retry.unknown else [CellStatus.DONE.value, CellStatus.UNKNOWN.value]


def _next_range(connection: Connection, retry: Retry, cells_max: int) -> range:
    for first in range(retry.next_cell, retry.end, WINDOW_CELLS):
        window = range(first, min(first + WINDOW_CELLS, retry.end))
        kept = and_(*_within(t.results, retry.run_id, window), t.results.c.status.in_(_kept(retry)), _NOTHING_LEFT)
        if connection.execute(select(func.count()).select_from(t.results).where(kept)).scalar_one() == len(window):
            continue
        left = set(window).difference(connection.execute(select(t.results.c.cell).where(kept)).scalars())
        shards = connection.execute(
            select(t.shards.c.first_cell, t.shards.c.cells).where(
                t.shards.c.run_id == retry.run_id,
                t.shards.c.first_cell < window.stop,
                t.shards.c.first_cell + t.shards.c.cells > window.start,
            )
        ).all()
        for shard in shards:
            left.difference_update(range(shard.first_cell, shard.first_cell + shard.cells))
        if left:
            start = min(left)
            ends = [shard.first_cell for shard in shards if shard.first_cell > start]
            return range(start, min(start + cells_max, window.stop, *ends))
    return range(retry.end, retry.end)


def _within(table: Table, run_id: str, cells: range) -> tuple[Any, ...]:
    return table.c.run_id == run_id, table.c.cell.between(cells.start, cells.stop - 1)


def _give_up_results(connection: Connection, database: Database, retry: Retry, cells: range, now_us: int) -> None:
    """Turn results without an answer into attempts, and all of their cells' attempts into earlier ones."""
    results = t.results.c
    given_up = and_(*_within(t.results, retry.run_id, cells), results.status.not_in(_kept(retry)))
    rows = connection.execute(select(t.results).where(given_up)).mappings().all()
    if not rows:
        return
    attempts = and_(*_within(t.attempts, retry.run_id, cells), t.attempts.c.cell.in_([row["cell"] for row in rows]))
    made = func.count().filter(t.attempts.c.outcome.in_(_made()))
    sums = (func.sum(column) for column in bill_columns(t.attempts))
    query = select(t.attempts.c.cell, made, *sums).where(attempts).group_by(t.attempts.c.cell)
    before = {row[0]: tuple(map(int, row[1:])) for row in connection.execute(query)}
    records = [_attempt(row, before.get(row["cell"], (0,) * (1 + len(BILL_COLUMNS))), now_us) for row in rows]
    connection.execute(
        update(t.attempts)
        .where(attempts, t.attempts.c.outcome.in_([*COUNTED_OUTCOMES, "refused"]))
        .values(outcome=t.attempts.c.outcome + EARLIER)
    )
    database.insert_rows(connection, t.attempts, records)
    database.insert_rows(connection, t.events, [result_event_row(row) for row in rows])
    for table in (t.result_bodies, t.scores):
        mine = and_(*_within(table, retry.run_id, cells), table.c.cell.in_([row["cell"] for row in rows]))
        connection.execute(delete(table).where(mine))
    connection.execute(delete(t.results).where(given_up))
    _count_out(connection, retry.run_id, [row["status"] for row in rows], records)


def _made() -> list[str]:
    return [outcome + suffix for outcome in sorted(COUNTED_OUTCOMES) for suffix in ("", EARLIER)]


def _attempt(row: Any, before: Sequence[int], now_us: int) -> dict[str, Any]:
    """The attempt that gave a result: what that has beyond the attempts before it (how many were made, their bills)."""
    outcome = _OUTCOMES[CellStatus(row["status"])] if row["attempts"] > before[0] else "refused"
    own = {name: row[name] - earlier for name, earlier in zip(BILL_COLUMNS, before[1:], strict=True)}
    return {
        "run_id": row["run_id"],
        "cell": row["cell"],
        "attempt": row["attempt"],
        "outcome": outcome + EARLIER,
        "reason": row["error_reason"],
        **own,
        "usage_estimated": max(0, own["usage_estimated"]),
        "at_us": now_us,
    }


def _count_out(
    connection: Connection, run_id: str, statuses: Sequence[str], attempts: Sequence[dict[str, Any]]
) -> None:
    progress = t.run_progress.c
    made = sum(attempt["outcome"] in _made() for attempt in attempts)
    changed = {status: progress[status] - statuses.count(status) for status in set(statuses)}
    connection.execute(
        update(t.run_progress)
        .where(progress.run_id == run_id)
        .values(**changed, attempts_failed=progress.attempts_failed + made)
    )
