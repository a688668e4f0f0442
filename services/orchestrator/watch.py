"""Runs as feeds of events that can be watched."""

from __future__ import annotations

from typing import Protocol

from services.orchestrator.pace import PaceLedger, Paces
from services.orchestrator.records import EventKind, RunEvent
from services.orchestrator.topics import run_topic
from services.runtime.feeds import Kept


class RunLedger(PaceLedger, Protocol):
    """Where a run's events are committed; they are kept for as long as the run."""

    async def read_events(self, run_id: str, after: int, limit: int) -> list[RunEvent]: ...
    async def last_sequence(self, run_id: str) -> int: ...


class RunEvents:
    """Implements services.runtime.feeds.EventSource; a feed's id is the run's."""

    def __init__(self, ledger: RunLedger) -> None:
        self._ledger = ledger
        self._paces = Paces(ledger)

    def topic(self, feed_id: str) -> str:
        return run_topic(feed_id)

    async def kept(self, feed_id: str) -> Kept:
        return Kept(1, await self._ledger.last_sequence(feed_id))

    async def read_events(self, feed_id: str, after: int, limit: int) -> list[RunEvent]:
        events = await self._ledger.read_events(feed_id, after, limit)
        if events and (len(events) < limit or events[-1].final):
            # Up to the present: only of that can be said how fast it goes.
            for index in range(len(events) - 1, -1, -1):
                event = events[index]
                if event.kind is not EventKind.STARTED and event.statistics is not None:
                    events[index] = event._replace(pace=await self._paces.of(feed_id, event.statistics))
                    break
        return events

    def is_last(self, event: RunEvent) -> bool:
        return event.final
