"""What the ledger knows about the cells of a range, for a worker that takes it over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, bindparam, case, func, select

from services.orchestrator.ledger import Dangling, DueRetry, ShardState, StoredAnswer
from services.orchestrator.outcomes import CellHistory
from services.orchestrator.records import COUNTED_OUTCOMES, EARLIER
from services.orchestrator.states import CellStatus
from services.orchestrator.store import tables as t
from services.orchestrator.store.rows import open_bill_of


def _of_range(table: Table) -> tuple[ColumnElement[bool], ...]:
    return table.c.run_id == bindparam("run"), table.c.cell.between(bindparam("first"), bindparam("last"))


def _times(*outcomes: str) -> ColumnElement[int]:
    return func.sum(case((t.attempts.c.outcome.in_(outcomes), 1), else_=0))


# Built once: a worker that takes over a run asks for one range after the other.
_RESULTS = select(t.results).where(*_of_range(t.results))
_BILLS = select(t.open_bills).where(*_of_range(t.open_bills))
_CALLS = select(t.in_flight.c.cell, t.in_flight.c.attempt).where(*_of_range(t.in_flight))
_RETRIES = select(t.retries).where(*_of_range(t.retries))
_HISTORIES = (
    select(
        t.attempts.c.cell,
        func.count().label("all"),
        _times("refused").label("refused"),
        _times("unsent", f"refused{EARLIER}").label("unsent"),
        _times(*(f"{outcome}{EARLIER}" for outcome in COUNTED_OUTCOMES)).label("earlier"),
        func.max(t.attempts.c.attempt).label("last"),
    )
    .where(*_of_range(t.attempts))
    .group_by(t.attempts.c.cell)
)


def load_shard(connection: Connection, run_id: str, first_cell: int, cells: int) -> ShardState:
    """The state of a range; cells in none of its lists are untouched."""
    of = {"run": run_id, "first": first_cell, "last": first_cell + cells - 1}
    results = connection.execute(_RESULTS, of).mappings().all()
    bills = connection.execute(_BILLS, of).mappings().all()
    calls = connection.execute(_CALLS, of).all()
    retries = connection.execute(_RETRIES, of).all()
    histories = connection.execute(_HISTORIES, of).all()
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
