"""Watchers of a run: every event once and in order, also where one reads too slowly."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from services.orchestrator.records import EventKind, RunEvent, Statistics
from services.orchestrator.watch import Watching, WatchPolicy
from services.runtime.errors import ResourceExhausted
from services.runtime.hints import LocalHints
from tests.support.orchestrator import eventually

Sequences = list[int]


class Source:
    """A run's events, one hand-out at a time."""

    def __init__(self) -> None:
        self.last = 0
        self.read_up_to = 0

    async def read_events(self, run_id: str, after: int, limit: int) -> list[RunEvent]:
        self.read_up_to = after
        until = min(self.last, after + limit)
        return [RunEvent(at, EventKind.PROGRESS, 0, statistics=Statistics()) for at in range(after + 1, until + 1)]

    async def last_sequence(self, run_id: str) -> int:
        return self.last


def encode(events: Sequence[RunEvent], latest: int) -> Sequences:
    return [event.sequence for event in events]


async def test_a_slow_watcher_gets_no_gap_before_it_is_sent_away() -> None:
    source = Source()
    watching: Watching[Sequences] = Watching(
        source, LocalHints(), WatchPolicy(page_events=1, flush_ms=1, poll_ms=1, heartbeat_ms=1, queue_max=2)
    )
    seen: Sequences = []
    messages = watching.watch("run_1", 0, encode)
    try:
        # A heartbeat: from now on the watcher follows.
        assert await anext(messages) == []
        source.last = 4
        await eventually(lambda: source.read_up_to == 4)
        seen += await anext(messages)
        # Its queue has room again, but what did not fit is lost to it.
        source.last = 6
        await eventually(lambda: source.read_up_to == 6)
        with pytest.raises(ResourceExhausted) as refused:
            while True:
                seen += await anext(messages)
    finally:
        await messages.aclose()
        await watching.close()

    assert seen == [1, 2]
    assert refused.value.metadata["resume_from_sequence"] == "2"
