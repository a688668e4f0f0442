"""Runs as feeds of events that can be watched."""

from __future__ import annotations

from typing import Protocol

from services.orchestrator.records import RunEvent
from services.orchestrator.topics import run_topic
from services.runtime.feeds import Kept


class RunLedger(Protocol):
    """Where a run's events are committed; they are kept for as long as the run."""

    async def read_events(self, run_id: str, after: int, limit: int) -> list[RunEvent]: ...
    async def last_sequence(self, run_id: str) -> int: ...


class RunEvents:
    """Implements services.runtime.feeds.EventSource; a feed's id is the run's."""

    def __init__(self, ledger: RunLedger) -> None:
        self._ledger = ledger

    def topic(self, feed_id: str) -> str:
        return run_topic(feed_id)

    async def kept(self, feed_id: str) -> Kept:
        return Kept(1, await self._ledger.last_sequence(feed_id))

    async def read_events(self, feed_id: str, after: int, limit: int) -> list[RunEvent]:
        return await self._ledger.read_events(feed_id, after, limit)

    def is_last(self, event: RunEvent) -> bool:
        return event.final
