"""What is counted of a run while somebody watches it: its latest results, and latencies by their rank."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from services.orchestrator.congestion import ModelCalls
from services.orchestrator.pace import Latest
from services.orchestrator.store import tables as t


def latest_results(connection: Connection, run_id: str, limit: int) -> Latest:
    """How many of the latest `limit` results there are, and when the first and the last were committed."""
    r = t.results.c
    latest = select(r.created_us).where(r.run_id == run_id).order_by(r.sequence.desc()).limit(limit).subquery("latest")
    row = connection.execute(select(func.count(), func.min(latest.c.created_us), func.max(latest.c.created_us))).one()
    return Latest(row[0], row[1] or 0, row[2] or 0)


def call_limits(connection: Connection, run_id: str) -> list[ModelCalls]:
    """Calls that the workers of a run let models have at once which have refused some."""
    limits, holders = t.call_limits.c, select(t.shards.c.worker_id).where(t.shards.c.run_id == run_id)
    rows = connection.execute(
        select(limits.model, func.sum(limits.calls_max))
        .where(limits.run_id == run_id, limits.worker_id.in_(holders))
        .group_by(limits.model)
        .order_by(limits.model)
    )
    return [ModelCalls(model, int(calls)) for model, calls in rows]


def latencies(connection: Connection, run_id: str, ranks: list[int]) -> list[int]:
    """The latencies of answers at these ranks, from 0 for the shortest; ends where there are not so many."""
    r = t.results.c
    of_answers = select(r.latency_us).where(r.run_id == run_id, r.latency_us > 0).order_by(r.latency_us)
    found = []
    for rank in ranks:
        latency_us = connection.execute(of_answers.offset(rank).limit(1)).scalar_one_or_none()
        if latency_us is None:
            break
        found.append(latency_us)
    return found
