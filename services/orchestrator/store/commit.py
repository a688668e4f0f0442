"""One transaction for everything that a process has to write: calls sent, results, retries, scores, finished ranges.

Statements work on all rows of a run at once. A run's progress row is locked first, so that its sequences have no gap
and no later commit shows a smaller one. Deliveries that come late or twice leave this path for `late`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, update

from services.orchestrator.congestion import ModelCalls
from services.orchestrator.ledger import (
    CellAgain,
    CellResult,
    CellScores,
    CellSettled,
    Exhausted,
    Sent,
    ShardBack,
    ShardEnd,
    ShardKey,
    Slowed,
    Write,
)
from services.orchestrator.records import COUNTED_OUTCOMES, EventKind
from services.orchestrator.states import RunStatus, Step, may
from services.orchestrator.store import tables as t
from services.orchestrator.store.late import deliver_late
from services.orchestrator.store.rows import bill_values, statistics_of
from services.orchestrator.store.run_commit import RunCommit, attempt_row, close_calls, open_bills, write_results
from services.orchestrator.store.runs import end_run_if_done, event_row, lock_progress, take_step
from services.orchestrator.store.statements import (
    CLOSE_BILL_AS_READ,
    COUNT_COMPLETE,
    COUNT_OPEN_CALLS,
    COUNTERS,
    DELETE_RETRIES_OF_RANGE,
    DELETE_SHARD,
    GIVE_BACK,
    HELD_SHARDS,
    LOCK_SHARD,
    PASS_SLOTS,
    SAVE_PROGRESS,
    Statements,
)

DEFAULT_SCORE_SET = "default"
BRANDS_SCORE_SET = "brands"
"""Under which the brands of an answer are kept beside its scores."""


def commit(
    connection: Connection, statements: Statements, worker_id: str, batches: Sequence[Sequence[Write]]
) -> list[list[bool]]:
    """Write everything; answers each Write: False means that the ledger did not accept it (see the Write)."""
    now_us = statements.database.now_us(connection)
    answers = [[True] * len(batch) for batch in batches]
    by_run: dict[str, list[tuple[Write, int, int]]] = {}
    for outer, batch in enumerate(batches):
        for inner, write in enumerate(batch):
            run_id = write.shard.run_id if isinstance(write, Sent | ShardEnd | ShardBack) else write.run_id
            by_run.setdefault(run_id, []).append((write, outer, inner))
    # Always in the order of the ids, so that two transactions never wait for each other.
    for run_id in sorted(by_run):
        placed = by_run[run_id]
        run = RunCommit(connection, statements, run_id, now_us, {})
        for index in _commit_run(run, worker_id, [write for write, _, _ in placed]):
            answers[placed[index][1]][placed[index][2]] = False
    return answers


def _commit_run(run: RunCommit, worker_id: str, writes: list[Write]) -> list[int]:
    """Write what concerns one run; the indices of the writes that are refused."""
    refused: list[int] = []
    if not all(isinstance(write, Sent) for write in writes):
        progress = lock_progress(run.connection, run.run_id)
        if progress is None:
            return list(range(len(writes)))
        run.progress = progress
        _write_outcomes(run, [write for write in writes if isinstance(write, CellResult | CellAgain)])
        _write_scores(run, [write for write in writes if isinstance(write, CellScores)])
        _write_bills(run, [write for write in writes if isinstance(write, CellSettled)])
        if any(isinstance(write, Exhausted) for write in writes):
            _exhaust(run)
        for write in writes:
            if isinstance(write, Slowed):
                _write_call_limits(run, worker_id, write.calls)
        backs = [(index, write) for index, write in enumerate(writes) if isinstance(write, ShardBack)]
        refused.extend(index for index, back in backs if not _take_back(run, worker_id, back.shard))
        ends = [(index, write) for index, write in enumerate(writes) if isinstance(write, ShardEnd)]
        refused_ends = [index for index, end in ends if not _end_shard(run, worker_id, end)]
        refused.extend(refused_ends)
        _write_progress(run, ending=len(refused_ends) < len(ends))
    sent = [(index, write) for index, write in enumerate(writes) if isinstance(write, Sent)]
    if sent:
        refused.extend(_write_sent(run, worker_id, sent))
    return refused


def _write_sent(run: RunCommit, worker_id: str, sent: list[tuple[int, Sent]]) -> list[int]:
    """Note calls that may leave; the indices of those that must not: shard lost, result there, or number used."""
    held = {(row.first_cell, row.fence) for row in run.execute(HELD_SHARDS, {"of_worker": worker_id})}
    cells = [write.cell for _, write in sent]
    ended = _ended_cells(run, cells)
    used = _open_calls(run, cells)
    repeated = [write.cell for _, write in sent if write.attempt > 1]
    if repeated:
        used.update((row.cell, row.attempt) for row in run.execute(run.statements.recorded_calls, {"cells": repeated}))
    refused, rows = [], []
    for index, write in sent:
        lost = (write.shard.first_cell, write.shard.fence) not in held
        if lost or write.cell in ended or (write.cell, write.attempt) in used:
            refused.append(index)
            continue
        rows.append(
            {
                "run_id": run.run_id,
                "cell": write.cell,
                "attempt": write.attempt,
                "worker_id": worker_id,
                "nonce": write.nonce,
                "sent_us": run.now_us,
            }
        )
    run.insert(t.in_flight, rows)
    if repeated:
        run.execute(run.statements.delete_retries, {"cells": repeated})
    return refused


def _ended_cells(run: RunCommit, cells: list[int]) -> set[int]:
    """Those of the cells that have a result."""
    return set(run.execute(run.statements.ended_cells, {"cells": cells}).scalars())


def _open_calls(run: RunCommit, cells: list[int]) -> set[tuple[int, int]]:
    """Cell and attempt of the cells' calls that may have left."""
    return {(row.cell, row.attempt) for row in run.execute(run.statements.open_calls, {"cells": cells})}


def _write_outcomes(run: RunCommit, outcomes: list[CellResult | CellAgain]) -> None:
    if not outcomes:
        return
    cells = sorted({outcome.cell for outcome in outcomes})
    open_calls = _open_calls(run, cells)
    ended = _ended_cells(run, cells)
    results: list[CellResult] = []
    again: list[CellAgain] = []
    late_ones: list[CellResult | CellAgain] = []
    for outcome in outcomes:
        call = (outcome.cell, outcome.attempt)
        if call not in open_calls or outcome.cell in ended:
            late_ones.append(outcome)
            continue
        open_calls.discard(call)
        if isinstance(outcome, CellResult):
            ended.add(outcome.cell)
            results.append(outcome)
        else:
            again.append(outcome)
    write_results(run, results)
    _write_again(run, again)
    close_calls(run, [*results, *again], all_of_cells=not open_calls and not late_ones)
    for outcome in late_ones:
        deliver_late(run, outcome)


def _write_again(run: RunCommit, again: list[CellAgain]) -> None:
    for call in again:
        run.add_bill(call.usage, call.cost)
        if call.outcome in COUNTED_OUTCOMES:
            run.deltas["attempts_failed"] += 1
    run.insert(t.attempts, [attempt_row(run, call, call.outcome, call.reason) for call in again])
    open_bills(run, again)
    rows = [
        {
            "run_id": run.run_id,
            "cell": call.cell,
            "attempt": call.attempt + 1,
            "not_before_us": call.not_before_us,
        }
        for call in again
        if call.not_before_us is not None
    ]
    run.insert(t.retries, rows)


def _write_scores(run: RunCommit, scored: list[CellScores]) -> None:
    if not scored:
        return
    waiting = set(run.execute(run.statements.unscored_cells, {"cells": [write.cell for write in scored]}).scalars())
    fresh = {write.cell: write for write in scored if write.cell in waiting}
    if not fresh:
        return
    found = [(cell, DEFAULT_SCORE_SET, write.packed, write.merit) for cell, write in fresh.items()]
    found += [(cell, BRANDS_SCORE_SET, write.brands, None) for cell, write in fresh.items() if write.brands]
    rows = [
        {"run_id": run.run_id, "cell": cell, "score_set": score_set, "packed": packed, "merit": merit}
        for cell, score_set, packed, merit in found
    ]
    run.insert(t.scores, rows, on_conflict="DO NOTHING")
    run.execute(run.statements.mark_scored, {"cells": list(fresh)})
    run.deltas["scored"] += len(fresh)


def _write_bills(run: RunCommit, bills: list[CellSettled]) -> None:
    """Add amounts to the run, to an attempt's record, and to the cell's result, which has all its attempts in it."""
    for bill in bills:
        key = {"of_cell": bill.cell, "of_attempt": bill.attempt, "outcome_known": bill.outcome_known}
        closed = run.execute(CLOSE_BILL_AS_READ, key)
        if not closed.rowcount:
            continue
        amounts = bill_values(bill.usage, bill.cost)
        for table in (t.results, t.attempts):
            changed = update(table).where(table.c.run_id == run.run_id, table.c.cell == bill.cell)
            if table is t.attempts:
                changed = changed.where(table.c.attempt == bill.attempt)
            run.connection.execute(changed.values({name: table.c[name] + amount for name, amount in amounts.items()}))
        run.add_bill(bill.usage, bill.cost)


def _write_call_limits(run: RunCommit, worker_id: str, calls: Sequence[ModelCalls]) -> None:
    rows = [{"run_id": run.run_id, "worker_id": worker_id, **each._asdict()} for each in calls]
    run.insert(t.call_limits, rows, "(run_id, model, worker_id) DO UPDATE SET calls_max = excluded.calls_max")


def _end_shard(run: RunCommit, worker_id: str, end: ShardEnd) -> bool:
    """Delete a range whose cells are finished and pass its slots on; False when it is not, or is held by another."""
    shard = end.shard
    row = run.execute(
        LOCK_SHARD,
        {"first_cell_of_range": shard.first_cell, "of_fence": shard.fence, "of_worker": worker_id},
    ).one_or_none()
    if row is None:
        return False
    cells = {"first_cell_of_range": shard.first_cell, "last_cell_of_range": shard.first_cell + row.cells - 1}
    if not _finished(run, cells, row.cells):
        return False
    run.execute(DELETE_SHARD, {"first_cell_of_range": shard.first_cell})
    run.execute(DELETE_RETRIES_OF_RANGE, cells)
    if end.heir is not None and row.slots > end.back:
        more = {"first_cell_of_range": end.heir, "of_worker": worker_id, "more_slots": row.slots - end.back}
        run.execute(PASS_SLOTS, more)
    return True


def _exhaust(run: RunCommit) -> None:
    """Make no further call of a run that is under way."""
    status = RunStatus(run.progress["status"])
    if may(Step.EXHAUST, status):
        take_step(run.connection, run.run_id, Step.EXHAUST, status, RunStatus.EXHAUSTING)
        run.progress["status"] = RunStatus.EXHAUSTING.value


def _take_back(run: RunCommit, worker_id: str, shard: ShardKey) -> bool:
    """Leave a range and its slots to whoever claims them; False when it is held by another."""
    held = {"first_cell_of_range": shard.first_cell, "of_fence": shard.fence, "of_worker": worker_id}
    return bool(run.execute(GIVE_BACK, held).rowcount)


def _finished(run: RunCommit, cells: Mapping[str, int], count: int) -> bool:
    """Whether nothing is left to do for a range.

    No call is open, and (unless stopping) every cell has its result, every answer its scores.
    """
    if run.execute(COUNT_OPEN_CALLS, cells).scalar_one():
        return False
    return run.stopping or bool(run.execute(COUNT_COMPLETE, cells).scalar_one() == count)


def _write_progress(run: RunCommit, *, ending: bool) -> None:
    """Apply the counters, tell watchers where the run stands, and end the run when that was the last of it."""
    changed = bool(run.deltas) or bool(run.events)
    for name, amount in run.deltas.items():
        run.progress[name] += amount
    if ending and not run.ended:
        _save_progress(run)
        if end_run_if_done(run.connection, run.progress, run.now_us):
            run.insert(t.events, run.events)
            return
    if changed:
        if not run.ended:
            statistics = statistics_of(run.progress)
            run.events.append(event_row(run.run_id, run.next_sequence(), EventKind.PROGRESS, statistics, run.now_us))
        _save_progress(run)
    run.insert(t.events, run.events)


def _save_progress(run: RunCommit) -> None:
    names = ("last_sequence", *COUNTERS)
    run.execute(SAVE_PROGRESS, {f"new_{name}": run.progress[name] for name in names})
