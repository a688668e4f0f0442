"""The runs of a project that somebody watches: those that go on, those that are new, those that went on before."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, select

from services.orchestrator.records import RunRecord
from services.orchestrator.states import ENDED, RunStatus
from services.orchestrator.store import tables as t
from services.orchestrator.store.rows import run_of
from services.orchestrator.store.runs import select_runs

_GOING_ON = [status.value for status in RunStatus if status not in ENDED]
_NEWEST = select(t.runs.c.run_id).order_by(t.runs.c.run_id.desc()).limit(1)


def newest_run(connection: Connection, project_id: str) -> str:
    """The id of the project's newest run; empty where it has none."""
    return connection.execute(_NEWEST.where(t.runs.c.project_id == project_id)).scalar_one_or_none() or ""


def live_runs(
    connection: Connection, project_id: str, experiment_id: str, after_id: str, known: Collection[str], limit: int
) -> list[RunRecord]:
    """Runs that go on, runs newer than `after_id`, and those of `known` that exist, oldest first."""
    # Each by an index of its own: one condition for all would read every run of the project.
    conditions: list[Any] = [t.run_progress.c.status.in_(_GOING_ON), t.runs.c.run_id > after_id]
    conditions += [t.runs.c.run_id.in_(sorted(known))] if known else []
    found: dict[str, RunRecord] = {}
    for condition in conditions:
        query = select_runs().where(t.runs.c.project_id == project_id, condition).limit(limit)
        if experiment_id:
            query = query.where(t.runs.c.experiment_id == experiment_id)
        found |= {row["run_id"]: run_of(row) for row in connection.execute(query).mappings()}
    return [found[run_id] for run_id in sorted(found)][:limit]
