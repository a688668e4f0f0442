"""Score sets beside the one of the run itself: which scorers gave them, and the scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select

from services.orchestrator.scores import Scored
from services.orchestrator.store import tables as t
from services.orchestrator.store.runs import lock_progress
from services.runtime.database import Database
from services.runtime.errors import AlreadyExists, NotFound, ResourceExhausted

SCORE_SETS_MAX = 100
"""Of one run."""


class ScoreSetRecord(NamedTuple):
    """A score set; `encoded` is a spec that has its scorers and nothing else."""

    run_id: str
    score_set: str
    encoded: bytes
    created_us: int


def open_score_set(connection: Connection, record: ScoreSetRecord) -> ScoreSetRecord:
    """Insert a score set, or give the one of the same name and scorers.

    Raises NotFound (the run is gone), AlreadyExists (the name has other scorers), ResourceExhausted.
    """
    if lock_progress(connection, record.run_id) is None:
        raise NotFound("run", record.run_id)
    found = get_score_set(connection, record.run_id, record.score_set)
    if found is not None:
        if found.encoded != record.encoded:
            raise AlreadyExists(
                "ALREADY_EXISTS",
                f"run {record.run_id} has a score set {record.score_set!r} of other scorers; choose another name",
            )
        return found
    sets = select(func.count()).select_from(t.score_sets).where(t.score_sets.c.run_id == record.run_id)
    if connection.execute(sets).scalar_one() >= SCORE_SETS_MAX:
        raise ResourceExhausted(
            "LIMIT_REACHED", f"run {record.run_id} has {SCORE_SETS_MAX} score sets, the most it can"
        )
    connection.execute(t.score_sets.insert(), record._asdict())
    return record


def get_score_set(connection: Connection, run_id: str, score_set: str) -> ScoreSetRecord | None:
    """One score set of a run; None where it has none of that name."""
    query = select(t.score_sets).where(t.score_sets.c.run_id == run_id, t.score_sets.c.score_set == score_set)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _record(row)


def list_score_sets(connection: Connection, run_id: str) -> list[ScoreSetRecord]:
    """A run's score sets, by name."""
    query = select(t.score_sets).where(t.score_sets.c.run_id == run_id).order_by(t.score_sets.c.score_set)
    return [_record(row) for row in connection.execute(query).mappings()]


def add_scores(
    connection: Connection, database: Database, run_id: str, score_set: str, scores: Sequence[tuple[int, Scored]]
) -> None:
    """Keep scores of cells, those that have none in this set. Raises NotFound where the run is gone."""
    if lock_progress(connection, run_id) is None:
        raise NotFound("run", run_id)
    rows = [
        {"run_id": run_id, "cell": cell, "score_set": score_set, "packed": scored.packed, "merit": scored.merit}
        for cell, scored in scores
    ]
    database.insert_rows(connection, t.scores, rows, on_conflict="DO NOTHING")


def _record(row: Any) -> ScoreSetRecord:
    return ScoreSetRecord(row["run_id"], row["score_set"], bytes(row["encoded"]), row["created_us"])
