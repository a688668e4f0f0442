"""Deliveries out of turn: an answer of a worker that had lost its lease, a call that was given up and came back.

A paid answer is never thrown away: it becomes the result of a cell that has none, or takes the place of an UNKNOWN (or
CANCELLED) one. Where its cell has another answer already, and where the call has failed, its cost takes the place of
what was guessed when the call was lost. A cell never has a second result, and every call has exactly one record.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import RowMapping, delete, exists, insert, select, update

from services.orchestrator.calls import Money, Usage
from services.orchestrator.ledger import CellAgain, CellResult
from services.orchestrator.records import EARLIER, was_made
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

_LOST = CellStatus.UNKNOWN.value
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
    if answer is not None and result is None and not run.ended:
        _forget(run, outcome, record)
        run.connection.execute(
            delete(t.retries).where(t.retries.c.run_id == run.run_id, t.retries.c.cell == outcome.cell)
        )
        write_results(run, [answer], late=True)
        _reopen(run, outcome.cell)
    elif answer is not None and result is not None and CellStatus(result["status"]) in _REPLACEABLE:
        _replace(run, answer, result, record)
    elif record is not None:
        if record["outcome"].removesuffix(EARLIER) == _LOST and _is_known(outcome):
            _learn(run, outcome, result, record)
    elif result is not None and result["attempt"] != outcome.attempt:
        _supersede(run, outcome)
    elif result is not None and result["status"] == _LOST and _is_known(outcome):
        before = _own_bill(run, result)
        run.execute(CLOSE_BILL, {"of_cell": outcome.cell, "of_attempt": outcome.attempt})
        run.add_bill(*bill_of(before), sign=-1)
        _add_to_result(run, outcome.cell, bill_of(tuple(-amount for amount in before)))
        _add_call(run, outcome)


def _is_known(outcome: CellResult | CellAgain) -> bool:
    """Whether it says how a call that was made has ended."""
    return outcome.status is not CellStatus.UNKNOWN if isinstance(outcome, CellResult) else outcome.outcome == "failed"


def _learn(run: RunCommit, outcome: CellResult | CellAgain, result: RowMapping | None, record: RowMapping) -> None:
    """Put the end of a call that counts as lost in the place of what was guessed of it."""
    _forget(run, outcome, record)
    if result is not None:
        _add_to_result(run, outcome.cell, bill_of(tuple(-amount for amount in _bill(record))))
        _supersede(run, outcome)
        return
    run.insert(t.attempts, [attempt_row(run, outcome, record["outcome"], record["reason"])])
    run.deltas["attempts_failed"] += 1
    run.add_bill(outcome.usage, outcome.cost)
    open_bills(run, [outcome])


def _supersede(run: RunCommit, outcome: CellResult | CellAgain) -> None:
    """Note a call whose cell has its result from another one."""
    reason = outcome.error_reason if isinstance(outcome, CellResult) else outcome.reason
    run.insert(t.attempts, [attempt_row(run, outcome, "superseded", reason)])
    _add_call(run, outcome)


def _add_call(run: RunCommit, outcome: CellResult | CellAgain) -> None:
    """Add a call's tokens and cost to its cell's result and to the run."""
    _add_to_result(run, outcome.cell, (outcome.usage, outcome.cost))
    run.add_bill(outcome.usage, outcome.cost)
    open_bills(run, [outcome])


def _add_to_result(run: RunCommit, cell: int, bill: tuple[Usage, Money]) -> None:
    run.connection.execute(
        update(t.results)
        .where(t.results.c.run_id == run.run_id, t.results.c.cell == cell)
        .values({name: t.results.c[name] + amount for name, amount in bill_values(*bill).items()})
    )


def _attempt(run: RunCommit, outcome: CellResult | CellAgain) -> tuple[Any, ...]:
    return (
        t.attempts.c.run_id == run.run_id,
        t.attempts.c.cell == outcome.cell,
        t.attempts.c.attempt == outcome.attempt,
    )


def _bill(row: RowMapping) -> tuple[int, ...]:
    return tuple(row[name] for name in BILL_COLUMNS)


def _own_bill(run: RunCommit, result: RowMapping) -> tuple[int, ...]:
    """What the call that gave the result has cost, without the cell's other attempts."""
    before = earlier_bills(run, [result["cell"]]).get(result["cell"], NO_BILL)
    return tuple(a - b for a, b in zip(_bill(result), before, strict=True))


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
    own_usage, own_cost = bill_of(_own_bill(run, old))
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
