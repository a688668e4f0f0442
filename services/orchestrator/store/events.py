"""Events of a run, read in the order of their sequence from where they are: results, and everything else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from services.orchestrator.calls import Money
from services.orchestrator.records import LAST_EVENTS, EventKind, ResultEvent, RunEvent
from services.orchestrator.states import CellStatus
from services.orchestrator.statistics import decode_statistics
from services.orchestrator.store import tables as t


def encode_result_event(event: ResultEvent) -> str:
    """A result event as JSON text, for the rare result that another has replaced."""
    return json.dumps([event.cell, event.status.value, event.cost, event.latency_us, event.error_reason])


def result_event_row(old: Mapping[Any, Any]) -> dict[str, Any]:
    """The event of a result that is about to go, as a row: watchers who come later still see it, and no gap."""
    cost = Money(old["cost_nano_usd"], old["unpriced_calls"])
    event = ResultEvent(old["cell"], CellStatus(old["status"]), cost, 0, old["error_reason"])
    return {
        "run_id": old["run_id"],
        "sequence": old["sequence"],
        "kind": EventKind.RESULT.value,
        "payload": encode_result_event(event),
        "at_us": old["created_us"],
    }


def decode_result_event(text: str) -> ResultEvent:
    """The inverse of `encode_result_event`."""
    cell, status, cost, latency_us, error_reason = json.loads(text)
    return ResultEvent(cell, CellStatus(status), Money(*cost), latency_us, error_reason)


def last_sequence(connection: Connection, run_id: str) -> int:
    """The sequence of a run's latest event; 0 when the run has been deleted."""
    sequence = connection.execute(
        select(t.run_progress.c.last_sequence).where(t.run_progress.c.run_id == run_id)
    ).scalar_one_or_none()
    return sequence or 0


def read_events(connection: Connection, run_id: str, after: int, limit: int) -> list[RunEvent]:
    """Up to `limit` events with sequences after + 1, after + 2 ... without a gap."""
    until = after + limit
    found = {event.sequence: event for event in _results(connection, run_id, after, until)}
    found.update((event.sequence, event) for event in _others(connection, run_id, after, until))
    events = []
    for sequence in range(after + 1, until + 1):
        event = found.get(sequence)
        if event is None:
            break
        events.append(event)
    if any(event.kind in LAST_EVENTS for event in events):
        latest = last_sequence(connection, run_id)
        return [event._replace(final=event.kind in LAST_EVENTS and event.sequence == latest) for event in events]
    return events


def _results(connection: Connection, run_id: str, after: int, until: int) -> list[RunEvent]:
    r = t.results.c
    rows = connection.execute(
        select(
            r.sequence,
            r.created_us,
            r.cell,
            r.status,
            r.cost_nano_usd,
            r.unpriced_calls,
            r.latency_us,
            r.error_reason,
        ).where(r.run_id == run_id, r.sequence > after, r.sequence <= until)
    )
    return [
        RunEvent(
            row.sequence,
            EventKind.RESULT,
            row.created_us,
            result=ResultEvent(
                row.cell,
                CellStatus(row.status),
                Money(row.cost_nano_usd, row.unpriced_calls),
                row.latency_us,
                row.error_reason,
            ),
        )
        for row in rows
    ]


def _others(connection: Connection, run_id: str, after: int, until: int) -> list[RunEvent]:
    e = t.events.c
    rows = connection.execute(
        select(e.sequence, e.kind, e.payload, e.at_us).where(
            e.run_id == run_id, e.sequence > after, e.sequence <= until
        )
    )
    return [_event(row.sequence, EventKind(row.kind), row.payload, row.at_us) for row in rows]


def _event(sequence: int, kind: EventKind, payload: str, at_us: int) -> RunEvent:
    if kind is EventKind.RESULT:
        return RunEvent(sequence, kind, at_us, result=decode_result_event(payload))
    statistics, _, failure = payload.partition("\n")
    return RunEvent(sequence, kind, at_us, statistics=decode_statistics(statistics), failure=failure)
