"""Deleting runs and experiments: they are gone at once, and their rows go afterwards, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, exists, select

from services.orchestrator.states import RunStatus, Step, may
from services.orchestrator.store import tables as t
from services.orchestrator.store.controls import check_allowed
from services.orchestrator.store.experiments import drop_unused_specs, get_experiment
from services.orchestrator.store.runs import get_run, lock_progress
from services.runtime.errors import NotFound, WrongState

_RUNS_AT_ONCE = 500
"""Runs named in one statement."""


def delete_run(connection: Connection, project_id: str, run_id: str) -> None:
    """Delete an ended run with its results. Raises NotFound, WrongState."""
    record = get_run(connection, project_id, run_id)
    progress = lock_progress(connection, run_id)
    if progress is None:
        raise NotFound("run", run_id)
    check_allowed(run_id, RunStatus(progress["status"]), Step.DELETE)
    _forget(connection, [run_id])
    drop_unused_specs(connection, project_id, [record.spec_hash])


def delete_experiment(connection: Connection, project_id: str, experiment_id: str) -> None:
    """Delete an experiment with its ended runs. Raises NotFound, and WrongState while a run of it is under way."""
    record = get_experiment(connection, project_id, experiment_id)
    runs = connection.execute(
        select(t.runs.c.run_id, t.runs.c.spec_hash, t.run_progress.c.status)
        .join(t.run_progress, t.run_progress.c.run_id == t.runs.c.run_id)
        .where(t.runs.c.experiment_id == experiment_id)
        .with_for_update(of=t.run_progress)
    ).all()
    active = [row.run_id for row in runs if not may(Step.DELETE, RunStatus(row.status))]
    if active:
        raise WrongState(
            "WRONG_STATE",
            f"run {active[0]} of experiment {experiment_id} is under way; cancel it or wait until it has ended",
            subject=f"run:{active[0]}",
        )
    _forget(connection, [row.run_id for row in runs])
    connection.execute(delete(t.experiments).where(t.experiments.c.experiment_id == experiment_id))
    drop_unused_specs(connection, project_id, [record.spec_hash, *(row.spec_hash for row in runs)])


def _forget(connection: Connection, run_ids: Sequence[str]) -> None:
    """Leave nothing of runs but the rows that `purge_some` removes."""
    for first in range(0, len(run_ids), _RUNS_AT_ONCE):
        some = run_ids[first : first + _RUNS_AT_ONCE]
        connection.execute(t.purges.insert(), [{"run_id": run_id} for run_id in some])
        connection.execute(delete(t.runs).where(t.runs.c.run_id.in_(some)))
        connection.execute(delete(t.run_progress).where(t.run_progress.c.run_id.in_(some)))


_ANY_PURGE = select(exists(select(t.purges.c.run_id)))

_PURGED_COLUMNS = (
    t.results.c.cell,
    t.result_bodies.c.cell,
    t.scores.c.cell,
    t.score_sets.c.score_set,
    t.events.c.sequence,
    t.attempts.c.cell,
    t.open_bills.c.cell,
    t.retries.c.cell,
    t.in_flight.c.cell,
    t.call_limits.c.model,
    t.shards.c.first_cell,
)
"""The tables of a run's rows, each with the column by which it is cut into batches."""


def any_purge(connection: Connection) -> bool:
    """Whether some deleted run's rows are still there."""
    return bool(connection.execute(_ANY_PURGE).scalar_one())


def purge_some(connection: Connection, rows_max: int) -> bool:
    """Remove up to about `rows_max` rows of deleted runs; True while there is more to do."""
    run_id = connection.execute(select(t.purges.c.run_id).limit(1)).scalar_one_or_none()
    if run_id is None:
        return False
    for position in _PURGED_COLUMNS:
        table = position.table
        cut = connection.execute(
            select(position).where(table.c.run_id == run_id).order_by(position).offset(rows_max).limit(1)
        ).scalar_one_or_none()
        statement = delete(table).where(table.c.run_id == run_id)
        connection.execute(statement if cut is None else statement.where(position < cut))
        if cut is not None:
            return True
    connection.execute(delete(t.purges).where(t.purges.c.run_id == run_id))
    return True
