"""Runs in the ledger: how they begin, how they are found, how they end."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Select, bindparam, exists, select, update

from services.orchestrator.limits import RunLimits
from services.orchestrator.records import EventKind, RunRecord, Statistics
from services.orchestrator.states import ENDED, STOPPING, RunStatus, Step, check_step, final_status
from services.orchestrator.statistics import encode_statistics
from services.orchestrator.store import tables as t
from services.orchestrator.store.rows import run_of, statistics_of
from services.orchestrator.store.statements import COUNTERS, LOCK_PROGRESS
from services.runtime.errors import NotFound

_END_EVENTS = {
    RunStatus.COMPLETED: EventKind.COMPLETED,
    RunStatus.FAILED: EventKind.FAILED,
    RunStatus.CANCELLED: EventKind.CANCELLED,
    RunStatus.EXHAUSTED: EventKind.EXHAUSTED,
}


def select_runs() -> Select[Any]:
    """Runs with where they stand, for `rows.run_of`."""
    progress = [column for column in t.run_progress.c if column.name != "run_id"]
    return select(*t.runs.c, *progress).join(t.run_progress, t.run_progress.c.run_id == t.runs.c.run_id)


_RUN = select_runs().where(t.runs.c.run_id == bindparam("run"))
_RUN_OF_PROJECT = _RUN.where(t.runs.c.project_id == bindparam("project"))


def insert_run(connection: Connection, record: RunRecord) -> None:
    """Insert a run with its progress row and its first event."""
    limits = record.limits
    connection.execute(
        t.runs.insert(),
        {
            "run_id": record.run_id,
            "project_id": record.project_id,
            "experiment_id": record.experiment_id,
            "experiment_name": record.experiment_name,
            "spec_hash": record.spec_hash,
            "cells": record.statistics.cells_total,
            "concurrency": limits.concurrency,
            "attempts_max": limits.attempts_max,
            "timeout_ms": limits.timeout_ms,
            "requests_per_minute": limits.requests_per_minute,
            "retry_unknown": limits.retry_unknown,
            "max_cost_nano_usd": limits.max_cost_nano_usd,
            "ignore_circuit_breaker": limits.ignore_circuit_breaker,
            "priority": limits.priority,
            "fixed_concurrency": limits.fixed_concurrency,
            "user_id": record.user_id,
            "key_id": record.key_id,
            "delegation_id": record.delegation_id,
            "traceparent": record.traceparent,
            "created_us": record.created_us,
        },
    )
    progress = dict.fromkeys(COUNTERS, 0) | {"started_us": 0, "ended_us": 0, "failure": ""}
    progress |= {"next_cell": 0, "retry_next": 0, "retry_end": 0, "retry_unknown": False}
    connection.execute(
        t.run_progress.insert(),
        progress | {"run_id": record.run_id, "status": record.status.value, "last_sequence": record.last_sequence},
    )
    started = Statistics(cells_total=record.statistics.cells_total)
    connection.execute(
        t.events.insert(), event_row(record.run_id, record.last_sequence, EventKind.STARTED, started, record.created_us)
    )


_REUSABLE = [status.value for status in (RunStatus.PENDING, RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.COMPLETED)]


def lock_spec(connection: Connection, project_id: str, spec_hash: str) -> None:
    """Keep others from starting runs of a spec that reuse: of starts at the same time they see the run of the first."""
    of_spec = (t.specs.c.project_id == project_id, t.specs.c.spec_hash == spec_hash)
    connection.execute(select(t.specs.c.spec_hash).where(*of_spec).with_for_update())


def find_identical(connection: Connection, project_id: str, spec_hash: str, limits: RunLimits) -> RunRecord | None:
    """The newest run of this content and limits, of those that go on or are completed; None where there is none."""
    query = select_runs().where(
        t.runs.c.project_id == project_id,
        t.runs.c.spec_hash == spec_hash,
        t.run_progress.c.status.in_(_REUSABLE),
    )
    rows = connection.execute(query.order_by(t.runs.c.run_id.desc())).mappings()
    return next((found for found in map(run_of, rows) if found.limits == limits), None)


def event_row(
    run_id: str, sequence: int, kind: EventKind, statistics: Statistics, at_us: int, *, failure: str = ""
) -> dict[str, Any]:
    """A row of `events`; its payload is the statistics, and behind a line break the failure."""
    payload = encode_statistics(statistics) + (f"\n{failure}" if failure else "")
    return {"run_id": run_id, "sequence": sequence, "kind": kind.value, "payload": payload, "at_us": at_us}


def get_run(connection: Connection, project_id: str, run_id: str) -> RunRecord:
    """One run of the project; NotFound otherwise."""
    row = connection.execute(_RUN_OF_PROJECT, {"run": run_id, "project": project_id}).mappings().one_or_none()
    if row is None:
        raise NotFound("run", run_id)
    return run_of(row)


def get_run_of_any_project(connection: Connection, run_id: str) -> RunRecord | None:
    """One run, for a worker; None when it has been deleted."""
    row = connection.execute(_RUN, {"run": run_id}).mappings().one_or_none()
    return None if row is None else run_of(row)


def list_runs(
    connection: Connection,
    project_id: str,
    experiment_id: str,
    statuses: Collection[RunStatus],
    *,
    before_id: str,
    limit: int,
) -> list[RunRecord]:
    """Runs of the project, newest first, older than `before_id` ("" for all); empty filters take everything."""
    query = select_runs().where(t.runs.c.project_id == project_id)
    if experiment_id:
        query = query.where(t.runs.c.experiment_id == experiment_id)
    if statuses:
        query = query.where(t.run_progress.c.status.in_([status.value for status in statuses]))
    if before_id:
        query = query.where(t.runs.c.run_id < before_id)
    rows = connection.execute(query.order_by(t.runs.c.run_id.desc()).limit(limit))
    return [run_of(row) for row in rows.mappings()]


def lock_progress(connection: Connection, run_id: str) -> dict[str, Any] | None:
    """Lock a run's progress row and give it, with the run's `cells`; None when the run has been deleted."""
    row = connection.execute(LOCK_PROGRESS, {"of_run": run_id}).mappings().one_or_none()
    return None if row is None else dict(row)


def take_step(connection: Connection, run_id: str, step: Step, old: RunStatus, new: RunStatus, **values: Any) -> None:
    """Take a step of the state machine; the caller holds the progress row."""
    check_step(step, old, new)
    connection.execute(
        update(t.run_progress).where(t.run_progress.c.run_id == run_id).values(status=new.value, **values)
    )


def end_run_if_done(connection: Connection, progress: dict[str, Any], now_us: int) -> bool:
    """End a run in which nothing is left to do: no range held or orphaned, no cell to be claimed (or a cancel).

    `progress` is the locked progress row, up to date. The last event is written here and nowhere else.
    """
    run_id, status = progress["run_id"], RunStatus(progress["status"])
    to_claim = progress["next_cell"] < progress["cells"] or progress["retry_next"] < progress["retry_end"]
    if status in ENDED or (status not in STOPPING and to_claim):
        return False
    if connection.execute(select(exists().where(t.shards.c.run_id == run_id))).scalar_one():
        return False
    statistics = statistics_of(progress)
    final = final_status(status, statistics.done)
    failure = _why_failed(connection, run_id, statistics) if final is RunStatus.FAILED else ""
    if final is RunStatus.EXHAUSTED:
        failure = _what_is_left(statistics)
    sequence = progress["last_sequence"] + 1
    take_step(connection, run_id, Step.END, status, final, ended_us=now_us, failure=failure, last_sequence=sequence)
    connection.execute(
        t.events.insert(), event_row(run_id, sequence, _END_EVENTS[final], statistics, now_us, failure=failure)
    )
    return True


def _what_is_left(statistics: Statistics) -> str:
    """One sentence for a person about a run that a budget has ended."""
    left = statistics.cells_total - statistics.done - statistics.failed - statistics.unknown
    return (
        f"{left} of {statistics.cells_total} cells were not called: max_cost, or another budget, has no room for a "
        "further call; raise it and retry the run."
    )


def _why_failed(connection: Connection, run_id: str, statistics: Statistics) -> str:
    """One sentence for a person: the reason of the first failed cell stands for the others."""
    reason = connection.execute(
        select(t.results.c.error_reason)
        .where(t.results.c.run_id == run_id, t.results.c.error_reason != "")
        .order_by(t.results.c.cell)
        .limit(1)
    ).scalar_one_or_none()
    unknown = f" ({statistics.unknown} have an unknown outcome)" if statistics.unknown else ""
    first = f"; the first failure is {reason}, see its result for what to do" if reason else ""
    return f"None of the {statistics.cells_total} cells got an answer{unknown}{first}."
