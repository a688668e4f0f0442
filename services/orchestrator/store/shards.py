"""What the ledger knows about the cells of a range, for a worker that takes it over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Table, case, func, select

from services.orchestrator.ledger import Dangling, DueRetry, ShardState, StoredAnswer
from services.orchestrator.outcomes import CellHistory
from services.orchestrator.records import COUNTED_OUTCOMES, EARLIER
from services.orchestrator.states import CellStatus
from services.orchestrator.store import tables as t
from services.orchestrator.store.rows import open_bill_of


def load_shard(connection: Connection, run_id: str, first_cell: int, cells: int) -> ShardState:
    """The state of a range; cells in none of its lists are untouched."""

    def of(table: Table) -> tuple[Any, ...]:
        return table.c.run_id == run_id, table.c.cell.between(first_cell, first_cell + cells - 1)

    results = connection.execute(select(t.results).where(*of(t.results))).mappings().all()
    bills = connection.execute(select(t.open_bills).where(*of(t.open_bills))).mappings().all()
    calls = connection.execute(select(t.in_flight.c.cell, t.in_flight.c.attempt).where(*of(t.in_flight))).all()
    retries = connection.execute(select(t.retries).where(*of(t.retries))).all()

    def times(*outcomes: str) -> Any:
        return func.sum(case((t.attempts.c.outcome.in_(outcomes), 1), else_=0))

    histories = connection.execute(
        select(
            t.attempts.c.cell,
            func.count().label("all"),
            times("refused").label("refused"),
            times("unsent", f"refused{EARLIER}").label("unsent"),
            times(*(f"{outcome}{EARLIER}" for outcome in COUNTED_OUTCOMES)).label("earlier"),
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
        open_bills=tuple(open_bill_of(row) for row in bills),
    )


def _history(row: Row[Any]) -> CellHistory:
    refused, unsent, earlier = int(row.refused), int(row.unsent), int(row.earlier)
    return CellHistory(row.all - refused - unsent - earlier, refused, unsent, row.last, earlier)


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
