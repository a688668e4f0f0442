"""Experiments in the ledger. Every function is one step of a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, exists, select, update

from services.orchestrator.records import ExperimentRecord
from services.orchestrator.store import tables as t
from services.orchestrator.store.rows import experiment_of
from services.runtime.database import Database
from services.runtime.errors import NotFound


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


def _columns(record: ExperimentRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in ExperimentRecord.__slots__}
