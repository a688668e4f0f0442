"""The statements of the hot path, built once: building one anew costs more than running it."""

from __future__ import annotations

from sqlalchemy import BindParameter, Boolean, bindparam, delete, func, select, update

from services.orchestrator.states import CellStatus
from services.orchestrator.store import tables as t
from services.orchestrator.store.rows import BILL_COLUMNS, bill_columns
from services.runtime.database import Database

COUNTERS = ("done", "failed", "unknown", "cancelled", "scored", "attempts_failed", *BILL_COLUMNS, "latency_sum_us")
"""Columns of `run_progress` that only add up."""

_RUN: BindParameter[str] = bindparam("of_run")
_CELL: BindParameter[int] = bindparam("of_cell")
_FIRST: BindParameter[int] = bindparam("first_cell_of_range")
_LAST: BindParameter[int] = bindparam("last_cell_of_range")

LOCK_PROGRESS = (
    select(t.run_progress, t.runs.c.cells)
    .join(t.runs, t.runs.c.run_id == t.run_progress.c.run_id)
    .where(t.run_progress.c.run_id == _RUN)
    .with_for_update(of=t.run_progress)
)
SAVE_PROGRESS = (
    update(t.run_progress)
    .where(t.run_progress.c.run_id == _RUN)
    .values({name: bindparam(f"new_{name}") for name in ("last_sequence", *COUNTERS)})
)

HELD_SHARDS = (
    select(t.shards.c.first_cell, t.shards.c.fence)
    .where(t.shards.c.run_id == _RUN, t.shards.c.worker_id == bindparam("of_worker"))
    .with_for_update(read=True)
)
_HELD_SHARD = (
    t.shards.c.run_id == _RUN,
    t.shards.c.first_cell == _FIRST,
    t.shards.c.fence == bindparam("of_fence"),
    t.shards.c.worker_id == bindparam("of_worker"),
)
LOCK_SHARD = select(t.shards.c.cells, t.shards.c.slots).where(*_HELD_SHARD).with_for_update()
GIVE_BACK = update(t.shards).where(*_HELD_SHARD).values(worker_id="", slots=0)
DELETE_SHARD = delete(t.shards).where(t.shards.c.run_id == _RUN, t.shards.c.first_cell == _FIRST)
PASS_SLOTS = (
    update(t.shards)
    .where(
        t.shards.c.run_id == _RUN,
        t.shards.c.first_cell == _FIRST,
        t.shards.c.worker_id == bindparam("of_worker"),
    )
    .values(slots=t.shards.c.slots + bindparam("more_slots"))
)
COUNT_OPEN_CALLS = (
    select(func.count())
    .select_from(t.in_flight)
    .where(t.in_flight.c.run_id == _RUN, t.in_flight.c.cell.between(_FIRST, _LAST))
)
_IS_DONE = t.results.c.status == CellStatus.DONE.value
COUNT_COMPLETE = (
    select(func.count())
    .select_from(t.results)
    .where(
        t.results.c.run_id == _RUN,
        t.results.c.cell.between(_FIRST, _LAST),
        ~_IS_DONE | t.results.c.scored.is_(True),
    )
)
DELETE_RETRIES_OF_RANGE = delete(t.retries).where(t.retries.c.run_id == _RUN, t.retries.c.cell.between(_FIRST, _LAST))
CLOSE_CALL = delete(t.in_flight).where(
    t.in_flight.c.run_id == _RUN, t.in_flight.c.cell == _CELL, t.in_flight.c.attempt == bindparam("of_attempt")
)

_BILL_OF_CALL = (
    t.open_bills.c.run_id == _RUN,
    t.open_bills.c.cell == _CELL,
    t.open_bills.c.attempt == bindparam("of_attempt"),
)
CLOSE_BILL = delete(t.open_bills).where(*_BILL_OF_CALL)
CLOSE_BILL_AS_READ = CLOSE_BILL.where(
    (t.open_bills.c.status != CellStatus.UNKNOWN.value) == bindparam("outcome_known", type_=Boolean)
)
POSTPONE_BILL = update(t.open_bills).where(*_BILL_OF_CALL).values(ask_at_us=bindparam("next_us"))


class Statements:
    """Statements that take a list of cells (`cells`), in the form that the database's dialect likes."""

    def __init__(self, database: Database) -> None:
        self.database = database
        in_flight = (t.in_flight.c.run_id == _RUN, database.among(t.in_flight.c.cell, "cells"))
        results = (t.results.c.run_id == _RUN, database.among(t.results.c.cell, "cells"))
        unscored = (*results, t.results.c.scored.is_(False), _IS_DONE)
        self.open_calls = select(t.in_flight.c.cell, t.in_flight.c.attempt).where(*in_flight)
        self.close_calls = delete(t.in_flight).where(*in_flight)
        self.recorded_calls = select(t.attempts.c.cell, t.attempts.c.attempt).where(
            t.attempts.c.run_id == _RUN, database.among(t.attempts.c.cell, "cells")
        )
        self.sampled_answers = select(t.results.c.cell, t.results.c.output_tokens, t.results.c.latency_us).where(
            *results, _IS_DONE
        )
        self.ended_cells = select(t.results.c.cell).where(*results)
        self.unscored_cells = select(t.results.c.cell).where(*unscored)
        self.mark_scored = update(t.results).where(*unscored).values(scored=True)
        self.delete_retries = delete(t.retries).where(
            t.retries.c.run_id == _RUN, database.among(t.retries.c.cell, "cells")
        )
        self.earlier_bills = (
            select(t.attempts.c.cell, *(func.sum(column) for column in bill_columns(t.attempts)))
            .where(t.attempts.c.run_id == _RUN, database.among(t.attempts.c.cell, "cells"))
            .group_by(t.attempts.c.cell)
        )
