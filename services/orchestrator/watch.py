"""Watching runs: one reader per run and process feeds every watcher of it.

A watcher catches up from the ledger and then takes what the reader hands out. Hand-outs are prepared once for all and
come at most ten times a second. A watcher that is too slow for its bounded queue is sent away with the sequence to
resume from; it can do so at any replica, for everything that is handed out is in the ledger first.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from services.orchestrator.records import LAST_EVENTS, RunEvent
from services.orchestrator.resolving import wait_for
from services.orchestrator.topics import run_topic
from services.runtime.errors import DomainError, OutOfRange, ResourceExhausted
from services.runtime.hints import Hints

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WatchPolicy:
    """Limits and intervals of watching."""

    page_events: int = 500
    """Events of one message."""
    flush_ms: int = 100
    """Shortest time between two hand-outs of one run."""
    poll_ms: int = 500
    """How often the ledger is looked at when nothing hints at news."""
    heartbeat_ms: int = 15_000
    """A watcher hears at least so often."""
    queue_max: int = 100
    """Hand-outs that a slow watcher may be behind."""


class EventSource(Protocol):
    """Where events are read."""

    async def read_events(self, run_id: str, after: int, limit: int) -> list[RunEvent]: ...
    async def last_sequence(self, run_id: str) -> int: ...


Encode = Callable[[Sequence[RunEvent], int], T]
"""Turns events and the latest sequence into a message; for all watchers of a run the same."""


@dataclass(frozen=True, slots=True)
class _HandOut(Generic[T]):
    first: int
    last: int
    ends: bool
    message: T
    events: tuple[RunEvent, ...]


class _Watcher(Generic[T]):
    def __init__(self, queue_max: int) -> None:
        self.queue: deque[_HandOut[T]] = deque()
        self.ready = asyncio.Event()
        self.too_slow = False
        self._queue_max = queue_max

    def offer(self, hand_out: _HandOut[T]) -> None:
        # Once something was left out nothing may follow it: the watcher would take the gap for the run's history.
        if self.too_slow or len(self.queue) >= self._queue_max:
            self.too_slow = True
        else:
            self.queue.append(hand_out)
        self.ready.set()


class _Feed(Generic[T]):
    """The one reader of a run."""

    def __init__(self, run_id: str, source: EventSource, hints: Hints, policy: WatchPolicy, encode: Encode[T]) -> None:
        self.watchers: set[_Watcher[T]] = set()
        self.position = 0
        self.task: asyncio.Task[None] | None = None
        self._run_id = run_id
        self._source = source
        self._hints = hints
        self._policy = policy
        self._encode = encode

    async def run(self) -> None:
        with self._hints.subscribe(run_topic(self._run_id)) as news:
            while True:
                try:
                    events = await self._source.read_events(self._run_id, self.position, self._policy.page_events)
                except DomainError as error:
                    _log.warning("events of run %s cannot be read for now: %s", self._run_id, error.message)
                    events = []
                except Exception:  # noqa: BLE001 (watchers would wait for a dead reader forever, hearing heartbeats)
                    _log.exception("events of run %s cannot be read", self._run_id)
                    events = []
                if events:
                    self._hand_out(events)
                    await asyncio.sleep(self._policy.flush_ms / 1_000)
                else:
                    await news.wait(self._policy.poll_ms / 1_000)

    def _hand_out(self, events: list[RunEvent]) -> None:
        last = events[-1]
        message = self._encode(events, last.sequence)
        hand_out = _HandOut(events[0].sequence, last.sequence, last.kind in LAST_EVENTS, message, tuple(events))
        self.position = last.sequence
        for watcher in self.watchers:
            watcher.offer(hand_out)


class Watching(Generic[T]):
    """All feeds of a process."""

    def __init__(self, source: EventSource, hints: Hints, policy: WatchPolicy) -> None:
        self._source = source
        self._hints = hints
        self._policy = policy
        self._feeds: dict[str, _Feed[T]] = {}

    async def watch(self, run_id: str, after: int, encode: Encode[T]) -> AsyncGenerator[T, None]:
        """Messages of a run's events after a sequence, until its last event; between them heartbeats.

        Raises OutOfRange for a sequence that the run has not reached, ResourceExhausted when the reader is too slow.
        """
        latest = await self._source.last_sequence(run_id)
        if after > latest:
            raise OutOfRange(
                "SEQUENCE_OUT_OF_RANGE",
                f"run {run_id} has {latest} events so far; resume from a sequence that you have received, not {after}",
                metadata={"latest_sequence": str(latest)},
            )
        if after == latest and await self._has_ended(run_id, latest):
            return
        feed = self._feeds.get(run_id) or self._open(run_id, latest, encode)
        watcher: _Watcher[T] = _Watcher(self._policy.queue_max)
        feed.watchers.add(watcher)
        try:
            async for message in self._catch_up(run_id, after, feed.position, encode):
                after = message[0]
                yield message[1]
                if message[2]:
                    return
            async for live in self._follow(watcher, after, encode):
                yield live
        finally:
            feed.watchers.discard(watcher)
            if not feed.watchers:
                await self._close(run_id, feed)

    async def _has_ended(self, run_id: str, latest: int) -> bool:
        return any(event.kind in LAST_EVENTS for event in await self._source.read_events(run_id, latest - 1, 1))

    async def close(self) -> None:
        """End every reader."""
        for run_id, feed in list(self._feeds.items()):
            await self._close(run_id, feed)

    async def _catch_up(
        self, run_id: str, after: int, until: int, encode: Encode[T]
    ) -> AsyncGenerator[tuple[int, T, bool], None]:
        """What happened before the watcher joined the feed: the last sequence, the message, and whether it ends."""
        while after < until:
            events = await self._source.read_events(run_id, after, self._policy.page_events)
            if not events:
                return
            after = events[-1].sequence
            yield after, encode(events, max(after, until)), events[-1].kind in LAST_EVENTS

    async def _follow(self, watcher: _Watcher[T], after: int, encode: Encode[T]) -> AsyncGenerator[T, None]:
        while True:
            while watcher.queue:
                hand_out = watcher.queue.popleft()
                if hand_out.last > after:
                    yield self._fitted(hand_out, after, encode)
                    after = hand_out.last
                if hand_out.ends:
                    return
            if watcher.too_slow:
                raise ResourceExhausted(
                    "OVERLOADED",
                    f"this watcher reads too slowly; watch again after sequence {after}",
                    retry_after_ms=self._policy.flush_ms,
                    metadata={"resume_from_sequence": str(after)},
                )
            watcher.ready.clear()
            await wait_for(watcher.ready, self._policy.heartbeat_ms / 1_000)
            if not watcher.ready.is_set():
                yield encode((), after)

    @staticmethod
    def _fitted(hand_out: _HandOut[T], after: int, encode: Encode[T]) -> T:
        """The shared message, or a shorter one for a watcher that has read a part of it while it caught up."""
        if hand_out.first == after + 1:
            return hand_out.message
        return encode([event for event in hand_out.events if event.sequence > after], hand_out.last)

    def _open(self, run_id: str, position: int, encode: Encode[T]) -> _Feed[T]:
        feed = _Feed(run_id, self._source, self._hints, self._policy, encode)
        feed.position = position
        # The reader belongs to no RPC: neither the deadline nor the caller of the first watcher is its own.
        feed.task = asyncio.create_task(feed.run(), name=f"feed-{run_id}", context=contextvars.Context())
        self._feeds[run_id] = feed
        return feed

    async def _close(self, run_id: str, feed: _Feed[T]) -> None:
        if self._feeds.get(run_id) is feed:
            del self._feeds[run_id]
        if feed.task is not None:
            feed.task.cancel()
            await asyncio.gather(feed.task, return_exceptions=True)
