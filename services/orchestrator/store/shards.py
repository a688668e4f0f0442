"""What the ledger knows about the cells of a range, for a worker that takes it over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Table, case, func, select

from services.orchestrator.calls import Usage
from services.orchestrator.ledger import Dangling, DueRetry, OpenBill, ShardState, StoredAnswer
from services.orchestrator.outcomes import CellHistory
from services.orchestrator.states import CellStatus
from services.orchestrator.store import tables as t
from services.orchestrator.store.rows import USAGE_COLUMNS, usage_of


def load_shard(connection: Connection, run_id: str, first_cell: int, cells: int) -> ShardState:
    """The state of a range; cells in none of its lists are untouched."""

    def of(table: Table) -> tuple[Any, ...]:
        return table.c.run_id == run_id, table.c.cell.between(first_cell, first_cell + cells - 1)

    results = connection.execute(select(t.results).where(*of(t.results))).mappings().all()
    calls = connection.execute(select(t.in_flight.c.cell, t.in_flight.c.attempt).where(*of(t.in_flight))).all()
    retries = connection.execute(select(t.retries).where(*of(t.retries))).all()
    refused = func.sum(case((t.attempts.c.outcome == "refused", 1), else_=0))
    unsent = func.sum(case((t.attempts.c.outcome == "unsent", 1), else_=0))
    histories = connection.execute(
        select(
            t.attempts.c.cell,
            func.count().label("all"),
            refused.label("refused"),
            unsent.label("unsent"),
            func.max(t.attempts.c.attempt).label("last"),
        )
        .where(*of(t.attempts))
        .group_by(t.attempts.c.cell)
    ).all()
    return ShardState(
        finished=frozenset(row["cell"] for row in results),
        in_flight=tuple(Dangling(row.cell, row.attempt) for row in calls),
        retries=tuple(DueRetry(row.cell, row.attempt, row.not_before_us) for row in retries),
        histories={row.cell: _history(row) for row in histories},
        unscored=tuple(row["cell"] for row in results if row["status"] == CellStatus.DONE.value and not row["scored"]),
        open_bills=_open_bills(connection, run_id, [row for row in results if not row["settled"]]),
    )


def _history(row: Row[Any]) -> CellHistory:
    refused, unsent = int(row.refused), int(row.unsent)
    return CellHistory(row.all - refused - unsent, refused, unsent, row.last)


def _open_bills(connection: Connection, run_id: str, rows: Sequence[Mapping[Any, Any]]) -> tuple[OpenBill, ...]:
    """What the results' own calls took: a row has the earlier attempts in it, which have bills of their own."""
    if not rows:
        return ()
    columns = [t.attempts.c[name] for name in USAGE_COLUMNS]
    earlier: dict[int, list[Any]] = {}
    attempts = connection.execute(
        select(t.attempts.c.cell, *columns).where(
            t.attempts.c.run_id == run_id, t.attempts.c.cell.in_([row["cell"] for row in rows])
        )
    )
    for cell, *counts in attempts:
        before = earlier.get(cell, [0] * len(counts))
        earlier[cell] = [a + b for a, b in zip(before, counts, strict=True)]
    return tuple(
        OpenBill(
            cell=row["cell"],
            attempt=row["attempt"],
            status=CellStatus(row["status"]),
            usage=_own_usage(usage_of(row), earlier.get(row["cell"])),
            provider_model=row["provider_model"],
            created_us=row["created_us"],
        )
        for row in rows
    )


def _own_usage(total: Usage, earlier: Sequence[int] | None) -> Usage:
    if earlier is None:
        return total
    # One flag says that some figure of the cell is estimated; which call's it was is not kept.
    return Usage(*(a - b for a, b in zip(total, earlier, strict=True)))._replace(estimated=total.estimated)


def stored_answers(connection: Connection, run_id: str, cells: Sequence[int]) -> list[StoredAnswer]:
    """The answers of finished cells, for scoring."""
    rows = connection.execute(
        select(t.results.c.cell, t.results.c.finish_reason, t.result_bodies.c.answer)
        .join(
            t.result_bodies,
            (t.result_bodies.c.run_id == t.results.c.run_id) & (t.result_bodies.c.cell == t.results.c.cell),
        )
        .where(t.results.c.run_id == run_id, t.results.c.cell.in_(list(cells)))
    )
    return [StoredAnswer(row.cell, row.finish_reason, bytes(row.answer)) for row in rows]
