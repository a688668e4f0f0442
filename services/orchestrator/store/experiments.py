"""Experiments in the ledger. Every function is one step of a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, exists, select, update

from services.orchestrator.records import ExperimentRecord
from services.orchestrator.states import ENDED
from services.orchestrator.store import tables as t
from services.orchestrator.store.rows import experiment_of
from services.runtime.database import Database
from services.runtime.errors import NotFound, WrongState


def insert_spec(connection: Connection, database: Database, project_id: str, spec_hash: str, encoded: bytes) -> None:
    """Keep a spec by its content; one that is there already stays."""
    row = {"project_id": project_id, "spec_hash": spec_hash, "encoded": encoded}
    connection.execute(database.upsert(t.specs).values(row).on_conflict_do_nothing())


def insert_experiment(connection: Connection, record: ExperimentRecord) -> None:
    """Insert an experiment whose spec is there."""
    connection.execute(t.experiments.insert(), _columns(record))


def get_experiment(connection: Connection, project_id: str, experiment_id: str) -> ExperimentRecord:
    """One experiment of the project; NotFound otherwise."""
    row = (
        connection.execute(
            select(t.experiments).where(
                t.experiments.c.experiment_id == experiment_id, t.experiments.c.project_id == project_id
            )
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        raise NotFound("experiment", experiment_id)
    return experiment_of(row)


def get_spec(connection: Connection, project_id: str, spec_hash: str) -> bytes:
    """The encoded spec with this hash."""
    encoded: bytes = connection.execute(
        select(t.specs.c.encoded).where(t.specs.c.project_id == project_id, t.specs.c.spec_hash == spec_hash)
    ).scalar_one()
    return encoded


def list_experiments(connection: Connection, project_id: str, before_id: str, limit: int) -> list[ExperimentRecord]:
    """Experiments of the project, newest first, older than `before_id` ("" for all)."""
    query = select(t.experiments).where(t.experiments.c.project_id == project_id)
    if before_id:
        query = query.where(t.experiments.c.experiment_id < before_id)
    rows = connection.execute(query.order_by(t.experiments.c.experiment_id.desc()).limit(limit))
    return [experiment_of(row) for row in rows.mappings()]


def replace_experiment(connection: Connection, record: ExperimentRecord) -> None:
    """Write a changed experiment; a spec that nothing uses any more goes."""
    before = get_experiment(connection, record.project_id, record.experiment_id)
    connection.execute(
        update(t.experiments).where(t.experiments.c.experiment_id == record.experiment_id).values(_columns(record))
    )
    drop_unused_specs(connection, record.project_id, [before.spec_hash])


def delete_experiment(connection: Connection, project_id: str, experiment_id: str) -> None:
    """Delete an experiment and its ended runs; their rows are removed afterwards in batches (`purges`).

    Raises NotFound, and WrongState while a run of it is under way.
    """
    record = get_experiment(connection, project_id, experiment_id)
    runs = connection.execute(
        select(t.runs.c.run_id, t.runs.c.spec_hash, t.run_progress.c.status)
        .join(t.run_progress, t.run_progress.c.run_id == t.runs.c.run_id)
        .where(t.runs.c.experiment_id == experiment_id)
        .with_for_update(of=t.run_progress)
    ).all()
    active = [row.run_id for row in runs if row.status not in ENDED]
    if active:
        raise WrongState(
            "WRONG_STATE",
            f"run {active[0]} of experiment {experiment_id} is under way; cancel it or wait until it has ended",
            subject=f"run:{active[0]}",
        )
    run_ids = [row.run_id for row in runs]
    if run_ids:
        connection.execute(t.purges.insert(), [{"run_id": run_id} for run_id in run_ids])
        connection.execute(delete(t.runs).where(t.runs.c.run_id.in_(run_ids)))
        connection.execute(delete(t.run_progress).where(t.run_progress.c.run_id.in_(run_ids)))
    connection.execute(delete(t.experiments).where(t.experiments.c.experiment_id == experiment_id))
    drop_unused_specs(connection, project_id, [record.spec_hash, *(row.spec_hash for row in runs)])


def drop_unused_specs(connection: Connection, project_id: str, spec_hashes: Sequence[str]) -> None:
    """Delete those specs that no experiment and no run refers to."""
    in_experiment = exists().where(
        t.experiments.c.project_id == t.specs.c.project_id, t.experiments.c.spec_hash == t.specs.c.spec_hash
    )
    in_run = exists().where(t.runs.c.project_id == t.specs.c.project_id, t.runs.c.spec_hash == t.specs.c.spec_hash)
    connection.execute(
        delete(t.specs).where(
            t.specs.c.project_id == project_id,
            t.specs.c.spec_hash.in_(sorted(set(spec_hashes))),
            ~in_experiment,
            ~in_run,
        )
    )


_ANY_PURGE = select(exists(select(t.purges.c.run_id)))

_PURGED_COLUMNS = (
    t.results.c.cell,
    t.result_bodies.c.cell,
    t.scores.c.cell,
    t.events.c.sequence,
    t.attempts.c.cell,
    t.open_bills.c.cell,
    t.retries.c.cell,
    t.in_flight.c.cell,
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


def _columns(record: ExperimentRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in ExperimentRecord.__slots__}
