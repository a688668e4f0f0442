"""Deliveries out of turn: an answer of a worker that had lost its lease, a call that was given up and came back.

A paid answer is never thrown away: it becomes the result of a cell that has none, or takes the place of an UNKNOWN (or
CANCELLED) one. A cell never has a second result, and every call has exactly one record.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import RowMapping, delete, exists, insert, select, update

from services.orchestrator.ledger import CellAgain, CellResult
from services.orchestrator.records import was_made
from services.orchestrator.states import CellStatus
from services.orchestrator.store import tables as t
from services.orchestrator.store.events import result_event_row
from services.orchestrator.store.rows import BILL_COLUMNS, bill_of, bill_values
from services.orchestrator.store.run_commit import (
    NO_BILL,
    RunCommit,
    attempt_row,
    close_calls,
    earlier_bills,
    open_bills,
    result_row,
    write_results,
)
from services.orchestrator.store.statements import CLOSE_BILL

_REPLACEABLE = (CellStatus.UNKNOWN, CellStatus.CANCELLED)


def deliver_late(run: RunCommit, outcome: CellResult | CellAgain) -> None:
    """Put an outcome where it belongs when its call is not open any more, or its cell has a result already."""
    close_calls(run, [outcome])
    result = (
        run.connection.execute(
            select(t.results).where(t.results.c.run_id == run.run_id, t.results.c.cell == outcome.cell)
        )
        .mappings()
        .one_or_none()
    )
    record = run.connection.execute(select(t.attempts).where(*_attempt(run, outcome))).mappings().one_or_none()
    answer = outcome if isinstance(outcome, CellResult) and outcome.status is CellStatus.DONE else None
    if result is None:
        if answer is not None and not run.ended:
            _forget(run, outcome, record)
            run.connection.execute(
                delete(t.retries).where(t.retries.c.run_id == run.run_id, t.retries.c.cell == outcome.cell)
            )
            write_results(run, [answer], late=True)
            _reopen(run, outcome.cell)
    elif answer is not None and CellStatus(result["status"]) in _REPLACEABLE:
        _replace(run, answer, result, record)
    elif result["attempt"] != outcome.attempt and record is None:
        reason = outcome.error_reason if isinstance(outcome, CellResult) else outcome.reason
        run.insert(t.attempts, [attempt_row(run, outcome, "superseded", reason)])
        amounts = bill_values(outcome.usage, outcome.cost)
        run.connection.execute(
            update(t.results)
            .where(t.results.c.run_id == run.run_id, t.results.c.cell == outcome.cell)
            .values({name: t.results.c[name] + amount for name, amount in amounts.items()})
        )
        run.add_bill(outcome.usage, outcome.cost)
        open_bills(run, [outcome])


def _attempt(run: RunCommit, outcome: CellResult | CellAgain) -> tuple[Any, ...]:
    return (
        t.attempts.c.run_id == run.run_id,
        t.attempts.c.cell == outcome.cell,
        t.attempts.c.attempt == outcome.attempt,
    )


def _bill(row: RowMapping) -> tuple[int, ...]:
    return tuple(row[name] for name in BILL_COLUMNS)


def _forget(run: RunCommit, outcome: CellResult | CellAgain, record: RowMapping | None) -> None:
    """Delete the attempt's record and its open bill: the result is its record now."""
    run.execute(CLOSE_BILL, {"of_cell": outcome.cell, "of_attempt": outcome.attempt})
    if record is None:
        return
    run.connection.execute(delete(t.attempts).where(*_attempt(run, outcome)))
    run.add_bill(*bill_of(_bill(record)), sign=-1)
    if was_made(record["outcome"]):
        run.deltas["attempts_failed"] -= 1


def _replace(run: RunCommit, answer: CellResult, old: RowMapping, record: RowMapping | None) -> None:
    """Put an answer in the place of a result without one. The old event stays readable under its sequence."""
    before = earlier_bills(run, [answer.cell]).get(answer.cell, NO_BILL)
    own_usage, own_cost = bill_of(tuple(a - b for a, b in zip(_bill(old), before, strict=True)))
    _forget(run, answer, record)
    if old["attempt"] == answer.attempt:
        run.add_bill(own_usage, own_cost, sign=-1)
    else:
        reason = old["error_reason"]
        lost = CellAgain(run.run_id, answer.cell, old["attempt"], "unknown", reason, None, own_usage, own_cost)
        run.insert(t.attempts, [attempt_row(run, lost, "unknown", reason)])
        run.deltas["attempts_failed"] += 1
    earlier = earlier_bills(run, [answer.cell]).get(answer.cell, NO_BILL)
    sequence = old["sequence"] if run.ended else run.next_sequence()
    run.connection.execute(
        update(t.results)
        .where(t.results.c.run_id == run.run_id, t.results.c.cell == answer.cell)
        .values(result_row(run, answer, sequence, earlier))
    )
    bodies = {"answer": answer.answer, "error": answer.error}
    open_bills(run, [answer])
    upsert = run.database.upsert(t.result_bodies).values(run_id=run.run_id, cell=answer.cell, **bodies)
    run.connection.execute(upsert.on_conflict_do_update(index_elements=["run_id", "cell"], set_=bodies))
    run.add_bill(answer.usage, answer.cost)
    run.count(CellStatus(old["status"]), 0, sign=-1)
    run.count(CellStatus.DONE, answer.timing.latency_us)
    if not run.ended:
        run.events.append(result_event_row(old))
        _reopen(run, answer.cell)


def _reopen(run: RunCommit, cell: int) -> None:
    """See that somebody scores a late answer: a range that is finished is opened again for this one cell."""
    covered = run.connection.execute(
        select(
            exists().where(
                t.shards.c.run_id == run.run_id,
                t.shards.c.first_cell <= cell,
                t.shards.c.first_cell + t.shards.c.cells > cell,
            )
        )
    ).scalar_one()
    if not covered and not run.stopping:
        row = {"first_cell": cell, "cells": 1, "worker_id": "", "fence": 0, "slots": 0}
        run.connection.execute(insert(t.shards), {"run_id": run.run_id, **row})
