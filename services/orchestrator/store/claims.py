"""Claims: who works on which cells. Leases are on the database's clock, fences tell an old holder from a new one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, bindparam, delete, exists, func, or_, select, update

from services.orchestrator.fairness import Candidate, claim_order, grant, room_for
from services.orchestrator.ledger import Claim, ClaimRequest, Pulse, ShardKey
from services.orchestrator.states import CLAIMABLE, RunStatus, Step
from services.orchestrator.store import tables as t
from services.orchestrator.store.reopening import Retry, reopen
from services.orchestrator.store.runs import end_run_if_done, lock_progress, take_step
from services.runtime.database import Database

CANDIDATES_MAX = 256
"""Runs that one claim looks at, the oldest first."""

# Built once: idle workers poll, and building a statement costs more than running it.
_RENEW = "(worker_id) DO UPDATE SET expires_us = excluded.expires_us"
_HELD = select(t.shards).where(t.shards.c.worker_id == bindparam("worker"))
_STATUSES = select(t.run_progress.c.run_id, t.run_progress.c.status).where(
    t.run_progress.c.run_id.in_(bindparam("runs", expanding=True))
)
_OTHER_WORKERS = select(t.workers.c.worker_id).where(t.workers.c.worker_id != bindparam("worker"))
_IS_LIVE = select(
    exists().where(t.workers.c.worker_id == bindparam("worker"), t.workers.c.expires_us >= bindparam("now_us"))
)
_LIVE_HOLDER = exists().where(
    t.workers.c.worker_id == t.shards.c.worker_id, t.workers.c.expires_us >= bindparam("now_us")
)
_PAUSED = exists().where(
    t.run_progress.c.run_id == t.shards.c.run_id, t.run_progress.c.status == RunStatus.PAUSED.value
)
_HAS_OPEN_CALLS = exists().where(
    t.in_flight.c.run_id == t.shards.c.run_id,
    t.in_flight.c.cell >= t.shards.c.first_cell,
    t.in_flight.c.cell < t.shards.c.first_cell + t.shards.c.cells,
)
# A paused run waits, but what came of calls that a dead worker had under way is found out at once.
_IS_ORPHAN = (~_LIVE_HOLDER, or_(~_PAUSED, _HAS_OPEN_CALLS))
_ORPHANS = (
    select(t.shards)
    .where(*_IS_ORPHAN)
    .order_by(t.shards.c.run_id, t.shards.c.first_cell)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
)
_TAKE_OVER = (
    update(t.shards)
    .where(t.shards.c.run_id == bindparam("of_run"), t.shards.c.first_cell == bindparam("of_cell"))
    .values(worker_id=bindparam("worker"), fence=bindparam("next_fence"))
)
_GRANTED = select(t.shards.c.run_id, func.sum(t.shards.c.slots).label("slots")).group_by(t.shards.c.run_id).subquery()
_SLOTS = func.coalesce(_GRANTED.c.slots, 0)
_OF_PROJECT = (
    select(t.runs.c.project_id, func.sum(t.shards.c.slots).label("slots"))
    .join(t.runs, t.runs.c.run_id == t.shards.c.run_id)
    .group_by(t.runs.c.project_id)
    .subquery()
)
_CANDIDATES = (
    select(t.runs.c.run_id, t.runs.c.project_id, t.runs.c.concurrency, _SLOTS.label("slots"), t.runs.c.priority)
    .join(t.run_progress, t.run_progress.c.run_id == t.runs.c.run_id)
    .join(_GRANTED, _GRANTED.c.run_id == t.runs.c.run_id, isouter=True)
    .where(or_(*(t.run_progress.c.status == status.value for status in sorted(CLAIMABLE))))
)
_CANDIDATE = _CANDIDATES.where(t.runs.c.run_id == bindparam("run"))
# Runs with nothing to claim are left out before the limit: many of them would hide the others.
_CLAIMABLE = _CANDIDATES.where(
    or_(t.run_progress.c.next_cell < t.runs.c.cells, t.run_progress.c.retry_next < t.run_progress.c.retry_end),
    t.runs.c.concurrency > _SLOTS,
)
_TO_CLAIM = t.runs.c.cells - t.run_progress.c.next_cell + t.run_progress.c.retry_end - t.run_progress.c.retry_next
_OLDEST_CLAIMABLE = (
    _CLAIMABLE.add_columns(
        func.coalesce(_OF_PROJECT.c.slots, 0).label("project_slots"),
        _TO_CLAIM.label("cells_to_claim"),
    )
    .join(_OF_PROJECT, _OF_PROJECT.c.project_id == t.runs.c.project_id, isouter=True)
    .order_by(t.runs.c.run_id)
    .limit(CANDIDATES_MAX)
)
_WITHOUT_SLOTS = _SLOTS == 0
_OLDEST = {True: _OLDEST_CLAIMABLE, False: _OLDEST_CLAIMABLE.where(_WITHOUT_SLOTS)}
"""The oldest runs with cells to claim; False: only those that have no slots."""
_ORPHAN_EXISTS = exists(select(t.shards.c.run_id).where(*_IS_ORPHAN))
_RUN_EXISTS = _CLAIMABLE.with_only_columns(t.runs.c.run_id)
_ANY_WORK = select(or_(_ORPHAN_EXISTS, exists(_RUN_EXISTS)))
_WORK_WITHOUT_SLOTS = select(or_(_ORPHAN_EXISTS, exists(_RUN_EXISTS.where(_WITHOUT_SLOTS))))
_WORK_TO_TAKE_OVER = select(_ORPHAN_EXISTS)
_LOCK_PROGRESS = (
    select(t.run_progress, t.runs.c.cells)
    .join(t.runs, t.runs.c.run_id == t.run_progress.c.run_id)
    .where(t.run_progress.c.run_id == bindparam("run"))
    .with_for_update(of=t.run_progress, skip_locked=True)
)


def heartbeat(connection: Connection, database: Database, worker_id: str, lease_us: int) -> Pulse:
    """Renew a worker's lease and read what it still holds."""
    row = {"worker_id": worker_id, "expires_us": database.now_us(connection) + lease_us}
    database.insert_rows(connection, t.workers, [row], on_conflict=_RENEW)
    held = connection.execute(_HELD, {"worker": worker_id}).all()
    run_ids = sorted({row.run_id for row in held})
    statuses = connection.execute(_STATUSES, {"runs": run_ids}) if held else ()
    return Pulse(
        held=tuple(
            Claim(ShardKey(row.run_id, row.first_cell, row.fence), row.cells, row.slots, inherited=True) for row in held
        ),
        statuses={row.run_id: RunStatus(row.status) for row in statuses},
    )


def other_workers(connection: Connection, worker_id: str) -> list[str]:
    """Workers with a row, live or not, except this one."""
    rows = connection.execute(_OTHER_WORKERS, {"worker": worker_id})
    return [row.worker_id for row in rows]


def forget_workers(connection: Connection, worker_ids: Iterable[str]) -> None:
    """End the leases of workers that are known to be dead: what they held is free at once."""
    connection.execute(delete(t.workers).where(t.workers.c.worker_id.in_(list(worker_ids))))


def release(connection: Connection, worker_id: str) -> None:
    """Hand everything back: a worker that stops in good order leaves nothing to wait for."""
    connection.execute(update(t.shards).where(t.shards.c.worker_id == worker_id).values(worker_id="", slots=0))
    forget_workers(connection, [worker_id])


def has_work(connection: Connection, database: Database, request: ClaimRequest) -> bool:
    """Whether a claim may find anything: idle workers ask this, which locks nothing and writes nothing."""
    if request.extend:
        return True
    query = _WORK_TO_TAKE_OVER
    if request.capacity > 0:
        query = _ANY_WORK
    elif request.reserved > 0:
        query = _WORK_WITHOUT_SLOTS
    return bool(connection.execute(query, {"now_us": database.now_us(connection)}).scalar_one())


def claim(connection: Connection, database: Database, request: ClaimRequest) -> list[Claim]:
    """Give the worker orphaned ranges first, then more cells of the runs that it works on, then one new grant.

    Nothing where its own lease is over, as after a step of the clock: it would take its own ranges over for ever.
    """
    now_us = database.now_us(connection)
    if not connection.execute(_IS_LIVE, {"worker": request.worker_id, "now_us": now_us}).scalar_one():
        return []
    claims = _take_over(connection, request, now_us)
    for run_id in request.extend:
        claims.extend(_claim_cells(connection, database, request, run_id, 0, now_us))
    if request.capacity > 0 or request.reserved > 0:
        claims.extend(_claim_new(connection, database, request, now_us))
    return claims


def grant_slots(connection: Connection, shard: ShardKey, worker_id: str, grant_max: int) -> int:
    """Slots for a worker that holds a range of a run but none of its slots; 0 where the run has none left."""
    # The lock comes first: what others were granted a moment ago has to be seen.
    connection.execute(
        select(t.run_progress.c.run_id).where(t.run_progress.c.run_id == shard.run_id).with_for_update()
    ).one_or_none()
    run = connection.execute(_CANDIDATE, {"run": shard.run_id}).one_or_none()
    if run is None:
        return 0
    slots = grant(_candidate(run), capacity=grant_max, grant_max=grant_max)
    changed = connection.execute(
        update(t.shards)
        .where(*_is(shard), t.shards.c.worker_id == worker_id, t.shards.c.slots == 0)
        .values(slots=slots)
    )
    return slots if changed.rowcount else 0


def _is(shard: ShardKey) -> tuple[Any, ...]:
    return (
        t.shards.c.run_id == shard.run_id,
        t.shards.c.first_cell == shard.first_cell,
        t.shards.c.fence == shard.fence,
    )


def _take_over(connection: Connection, request: ClaimRequest, now_us: int) -> list[Claim]:
    orphans = connection.execute(_ORPHANS, {"now_us": now_us, "limit": request.takeovers_max}).all()
    claims = []
    for row in orphans:
        taken = {"of_run": row.run_id, "of_cell": row.first_cell, "worker": request.worker_id}
        connection.execute(_TAKE_OVER, {**taken, "next_fence": row.fence + 1})
        key = ShardKey(row.run_id, row.first_cell, row.fence + 1)
        claims.append(Claim(key, row.cells, row.slots, inherited=True))
    return claims


def _candidate(row: Any) -> Candidate:
    return Candidate(row.run_id, row.project_id, row.concurrency, int(row.slots), row.priority)


def _claim_new(connection: Connection, database: Database, request: ClaimRequest, now_us: int) -> list[Claim]:
    rows = connection.execute(_OLDEST[request.capacity > 0]).all()
    slots_of_project = {row.project_id: int(row.project_slots) for row in rows}
    cells = {row.run_id: int(row.cells_to_claim) for row in rows}
    for candidate in claim_order(map(_candidate, rows), slots_of_project):
        room = room_for(candidate, capacity=request.capacity, reserved=request.reserved)
        # More slots than cells would keep others from them.
        slots = grant(candidate, capacity=min(room, cells[candidate.run_id]), grant_max=request.grant_max)
        if slots and (claims := _claim_cells(connection, database, request, candidate.run_id, slots, now_us)):
            return claims
    return []


def _claim_cells(
    connection: Connection, database: Database, request: ClaimRequest, run_id: str, slots: int, now_us: int
) -> list[Claim]:
    """A range of cells to be retried, or of new ones; nothing where none is left or somebody has the row locked."""
    progress = connection.execute(_LOCK_PROGRESS, {"run": run_id}).mappings().one_or_none()
    if progress is None or RunStatus(progress["status"]) not in CLAIMABLE:
        return []
    if slots:
        slots = _still_free(connection, run_id, slots)
        if not slots:
            return []
    values: dict[str, Any] = {}
    cells = range(0)
    if progress["retry_next"] < progress["retry_end"]:
        retry = Retry(run_id, progress["retry_next"], progress["retry_end"], progress["retry_unknown"])
        cells = reopen(connection, database, retry, request.shard_cells, now_us)
        values["retry_next"] = cells.stop
    inherited = bool(cells)
    if not cells:
        first = progress["next_cell"]
        cells = range(first, min(first + request.shard_cells, progress["cells"]))
        values["next_cell"] = cells.stop
    if not progress["started_us"]:
        values["started_us"] = now_us
    take_step(connection, run_id, Step.CLAIM, RunStatus(progress["status"]), RunStatus.RUNNING, **values)
    if not cells:
        # What was to be retried has its answer by now, and nobody else would notice that the run has nothing left.
        locked = lock_progress(connection, run_id)
        if locked is not None:
            end_run_if_done(connection, locked, now_us)
        return []
    row = {"first_cell": cells.start, "cells": len(cells), "worker_id": request.worker_id, "fence": 1, "slots": slots}
    connection.execute(t.shards.insert(), {"run_id": run_id, **row})
    return [Claim(ShardKey(run_id, cells.start, 1), len(cells), slots, inherited)]


def _still_free(connection: Connection, run_id: str, slots: int) -> int:
    """The grant as it stands under the lock: another worker may have claimed since the candidates were read."""
    row = connection.execute(_CANDIDATE, {"run": run_id}).one()
    return grant(_candidate(row), capacity=slots, grant_max=slots)
