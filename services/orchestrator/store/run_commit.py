"""What the hot path and the late path of a commit share: the run being written, and its results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, CursorResult, Executable, Table

from services.orchestrator.calls import Money, Usage
from services.orchestrator.endings import open_bill
from services.orchestrator.ledger import CellAgain, CellResult
from services.orchestrator.states import ENDED, STOPPING, CellStatus, RunStatus
from services.orchestrator.store import tables as t
from services.orchestrator.store.rows import BILL_COLUMNS, bill_of, bill_row, bill_values
from services.orchestrator.store.statements import CLOSE_CALL, Statements
from services.runtime.database import Database

NO_BILL = (0,) * len(BILL_COLUMNS)


@dataclass(slots=True)
class RunCommit:
    """One run inside a transaction: its locked progress row, and what is to change in it."""

    connection: Connection
    statements: Statements
    run_id: str
    now_us: int
    progress: dict[str, Any]
    deltas: Counter[str] = field(default_factory=Counter)
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether the run's last event is written: then no further one is."""
        return RunStatus(self.progress["status"]) in ENDED

    @property
    def stopping(self) -> bool:
        """Whether no further call of the run is made."""
        return RunStatus(self.progress["status"]) in STOPPING

    def next_sequence(self) -> int:
        """The sequence of one more event."""
        self.progress["last_sequence"] += 1
        sequence: int = self.progress["last_sequence"]
        return sequence

    def add_bill(self, usage: Usage, cost: Money, sign: int = 1) -> None:
        """Count tokens and money into the run's sums."""
        for name, amount in zip(BILL_COLUMNS, (*usage, *cost), strict=True):
            if amount:
                self.deltas[name] += sign * amount

    def count(self, status: CellStatus, latency_us: int, sign: int = 1) -> None:
        """Count a cell that has ended."""
        self.deltas[status.value] += sign
        if status is CellStatus.DONE:
            self.deltas["latency_sum_us"] += sign * latency_us

    @property
    def database(self) -> Database:
        """The database that is written to."""
        return self.statements.database

    def execute(self, statement: Executable, values: Mapping[str, Any]) -> CursorResult[Any]:
        """Run one of the prepared statements for this run."""
        return self.connection.execute(statement, {"of_run": self.run_id, **values})

    def insert(self, table: Table, rows: Sequence[dict[str, Any]], on_conflict: str = "") -> None:
        """Insert rows, nothing for none."""
        self.database.insert_rows(self.connection, table, rows, on_conflict=on_conflict)


def close_calls(run: RunCommit, outcomes: Sequence[CellResult | CellAgain], *, all_of_cells: bool = False) -> None:
    """Delete the `sent` rows of calls that have an outcome; `all_of_cells`: their cells have no other calls open."""
    if all_of_cells and outcomes:
        run.execute(run.statements.close_calls, {"cells": [each.cell for each in outcomes]})
        return
    for each in outcomes:
        run.execute(CLOSE_CALL, {"of_cell": each.cell, "of_attempt": each.attempt})


def write_results(run: RunCommit, results: Sequence[CellResult], *, late: bool = False) -> None:
    """Insert results of cells that have none, each with its sequence.

    The result of a first dispatch has no other attempts, unless it comes `late`: then some may have been made since.
    """
    if not results:
        return
    earlier = earlier_bills(run, [result.cell for result in results if late or result.attempt > 1])
    rows, bodies = [], []
    for result in results:
        rows.append(result_row(run, result, run.next_sequence(), earlier.get(result.cell, NO_BILL)))
        run.add_bill(result.usage, result.cost)
        run.count(result.status, result.timing.latency_us)
        if result.answer or result.error:
            bodies.append({"run_id": run.run_id, "cell": result.cell, "answer": result.answer, "error": result.error})
    run.insert(t.results, rows)
    run.insert(t.result_bodies, bodies)
    open_bills(run, results)


def open_bills(run: RunCommit, calls: Sequence[CellResult | CellAgain]) -> None:
    """Note those of the calls, just put on record, whose cost is not known."""
    run.insert(t.open_bills, [bill_row(open_bill(call, run.now_us)) for call in calls if not call.settled])


def earlier_bills(run: RunCommit, cells: list[int]) -> dict[int, tuple[int, ...]]:
    """Tokens and money of the cells' attempts that gave no result, in the order of BILL_COLUMNS."""
    if not cells:
        return {}
    rows: Iterable[Sequence[Any]] = run.execute(run.statements.earlier_bills, {"cells": cells})
    return {row[0]: tuple(map(int, row[1:])) for row in rows}


def result_row(run: RunCommit, result: CellResult, sequence: int, earlier: tuple[int, ...]) -> dict[str, Any]:
    """The row of a result; tokens and money are its own and those of the cell's earlier attempts."""
    timing = result.timing
    own = (*result.usage, *result.cost)
    total = own if earlier is NO_BILL else tuple(a + b for a, b in zip(own, earlier, strict=True))
    usage, cost = bill_of(total)
    return {
        "run_id": run.run_id,
        "cell": result.cell,
        "sequence": sequence,
        "status": result.status.value,
        "model": result.model,
        "attempt": result.attempt,
        "attempts": result.attempts,
        "finish_reason": result.finish_reason,
        "provider_model": result.provider_model,
        **bill_values(usage._replace(estimated=min(usage.estimated, 1)), cost),
        "latency_us": timing.latency_us,
        "ttft_any_us": timing.ttft_any_us,
        "ttft_output_us": timing.ttft_output_us,
        "queue_us": timing.queue_us,
        "chunks": timing.chunks,
        "streamed": timing.streamed,
        "error_reason": result.error_reason,
        "scored": False,
        "created_us": run.now_us,
    }


def attempt_row(run: RunCommit, call: CellResult | CellAgain, outcome: str, reason: str) -> dict[str, Any]:
    """The record of a dispatch that did not give its cell's result."""
    return {
        "run_id": run.run_id,
        "cell": call.cell,
        "attempt": call.attempt,
        "outcome": outcome,
        "reason": reason,
        **bill_values(call.usage, call.cost),
        "at_us": run.now_us,
    }
