"""Feeds of durable, numbered events: one reader per feed and process serves everybody who watches it.

A watcher catches up from the store and then takes what the reader hands out. Hand-outs are prepared once for all and
come at most ten times a second. A watcher that is too slow for its bounded queue is sent away with the sequence to
resume from; it can do so at any replica, for everything that is handed out is in the store first.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from services.runtime.errors import DomainError, OutOfRange, ResourceExhausted
from services.runtime.hints import Hints


class Sequenced(Protocol):
    """An event of a feed."""

    @property
    def sequence(self) -> int:
        """1, 2, 3 ... in the order of the commits."""
        ...


E = TypeVar("E", bound=Sequenced)
T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WatchPolicy:
    """Limits and intervals of watching."""

    page_events: int = 1_000
    """Events of one message."""
    flush_ms: int = 100
    """Shortest time between two hand-outs of one feed."""
    messages_per_s: int = 100
    """To all watchers of a feed together, as long as its news fit into so many: of many watchers each hears
    less often, and more at a time."""
    poll_ms: int = 500
    """How often the store is looked at when nothing hints at news."""
    heartbeat_ms: int = 15_000
    """A watcher hears at least so often."""
    queue_max: int = 100
    """Hand-outs that a slow watcher may be behind."""


class Kept(NamedTuple):
    """Which events of a feed can be read."""

    first: int
    """The oldest that is still there; `last` + 1 where none is."""
    last: int
    """The latest that there ever was; 0 before the first."""


class EventSource(Protocol[E]):
    """Where the events of feeds are stored."""

    def topic(self, feed_id: str) -> str:
        """The topic of hints that a feed has news."""
        ...

    async def kept(self, feed_id: str) -> Kept:
        """Which events there are."""
        ...

    async def read_events(self, feed_id: str, after: int, limit: int) -> list[E]:
        """At most `limit` events with higher sequences, in their order, none left out."""
        ...

    def is_last(self, event: E) -> bool:
        """Whether a feed has no event after this one."""
        ...


Encode = Callable[[Sequence[E], int], T]
"""Turns events and the latest sequence into a message; for all watchers of a feed the same."""


@dataclass(frozen=True, slots=True)
class _HandOut(Generic[E, T]):
    first: int
    last: int
    ends: bool
    message: T
    events: tuple[E, ...]


class _Watcher(Generic[E, T]):
    def __init__(self, queue_max: int) -> None:
        self.queue: deque[_HandOut[E, T]] = deque()
        self.ready = asyncio.Event()
        self.too_slow = False
        self._queue_max = queue_max

    def offer(self, hand_out: _HandOut[E, T]) -> None:
        # Once something was left out nothing may follow it: the watcher would take the gap for the feed's history.
        if self.too_slow or len(self.queue) >= self._queue_max:
            self.too_slow = True
        else:
            self.queue.append(hand_out)
        self.ready.set()


class _Feed(Generic[E, T]):
    """The one reader of a feed."""

    def __init__(
        self, feed_id: str, source: EventSource[E], hints: Hints, policy: WatchPolicy, encode: Encode[E, T]
    ) -> None:
        self.watchers: set[_Watcher[E, T]] = set()
        self.position = 0
        self.task: asyncio.Task[None] | None = None
        self._feed_id = feed_id
        self._source = source
        self._hints = hints
        self._policy = policy
        self._encode = encode

    async def run(self) -> None:
        with self._hints.subscribe(self._source.topic(self._feed_id)) as news:
            while True:
                try:
                    events = await self._source.read_events(self._feed_id, self.position, self._policy.page_events)
                except DomainError as error:
                    _log.warning("events of %s cannot be read for now: %s", self._feed_id, error.message)
                    events = []
                except Exception:  # noqa: BLE001 (watchers would wait for a dead reader forever, hearing heartbeats)
                    _log.exception("events of %s cannot be read", self._feed_id)
                    events = []
                if events:
                    self._hand_out(events)
                    await asyncio.sleep(self._pause_s(len(events)))
                else:
                    await news.wait(self._policy.poll_ms / 1_000)

    def _pause_s(self, handed_out: int) -> float:
        """How long news are gathered after so many events were handed out."""
        shortest_s = self._policy.flush_ms / 1_000
        if handed_out >= self._policy.page_events:
            return shortest_s
        gathered_s = len(self.watchers) / self._policy.messages_per_s
        return max(shortest_s, min(gathered_s, self._policy.heartbeat_ms / 1_000))

    def _hand_out(self, events: list[E]) -> None:
        last = events[-1]
        message = self._encode(events, last.sequence)
        hand_out = _HandOut(events[0].sequence, last.sequence, self._source.is_last(last), message, tuple(events))
        self.position = last.sequence
        for watcher in self.watchers:
            watcher.offer(hand_out)


class Watching(Generic[E, T]):
    """All feeds of a process that are read from one source."""

    def __init__(self, source: EventSource[E], hints: Hints, policy: WatchPolicy) -> None:
        self._source = source
        self._hints = hints
        self._policy = policy
        self._feeds: dict[str, _Feed[E, T]] = {}

    async def watch(self, feed_id: str, after: int, encode: Encode[E, T]) -> AsyncGenerator[T, None]:
        """Messages of a feed's events after a sequence, until its last event; between them heartbeats.

        0 begins with the oldest that is kept. Raises OutOfRange for a sequence that the feed has not reached or whose
        successors are no longer kept, ResourceExhausted when the reader is too slow.
        """
        kept = await self._source.kept(feed_id)
        _check_position(feed_id, after, kept)
        if after == kept.last and await self._has_ended(feed_id, kept.last):
            return
        feed = self._feeds.get(feed_id) or self._open(feed_id, kept.last, encode)
        watcher: _Watcher[E, T] = _Watcher(self._policy.queue_max)
        feed.watchers.add(watcher)
        try:
            async for message in self._catch_up(feed_id, after, feed.position, encode):
                after = message[0]
                yield message[1]
                if message[2]:
                    return
            async for live in self._follow(watcher, after, encode):
                yield live
        finally:
            feed.watchers.discard(watcher)
            if not feed.watchers:
                await self._close(feed_id, feed)

    async def _has_ended(self, feed_id: str, last: int) -> bool:
        return any(map(self._source.is_last, await self._source.read_events(feed_id, last - 1, 1)))

    async def close(self) -> None:
        """End every reader."""
        for feed_id, feed in list(self._feeds.items()):
            await self._close(feed_id, feed)

    async def _catch_up(
        self, feed_id: str, after: int, until: int, encode: Encode[E, T]
    ) -> AsyncGenerator[tuple[int, T, bool], None]:
        """What happened before the watcher joined the feed: the last sequence, the message, and whether it ends."""
        while after < until:
            events = await self._source.read_events(feed_id, after, self._policy.page_events)
            if not events:
                return
            after = events[-1].sequence
            yield after, encode(events, max(after, until)), self._source.is_last(events[-1])

    async def _follow(self, watcher: _Watcher[E, T], after: int, encode: Encode[E, T]) -> AsyncGenerator[T, None]:
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
            with suppress(TimeoutError):
                async with asyncio.timeout(self._policy.heartbeat_ms / 1_000):
                    await watcher.ready.wait()
            if not watcher.ready.is_set():
                yield encode((), after)

    @staticmethod
    def _fitted(hand_out: _HandOut[E, T], after: int, encode: Encode[E, T]) -> T:
        """The shared message, or a shorter one for a watcher that has read a part of it while it caught up."""
        if hand_out.first == after + 1:
            return hand_out.message
        return encode([event for event in hand_out.events if event.sequence > after], hand_out.last)

    def _open(self, feed_id: str, position: int, encode: Encode[E, T]) -> _Feed[E, T]:
        feed = _Feed(feed_id, self._source, self._hints, self._policy, encode)
        feed.position = position
        # The reader belongs to no RPC: neither the deadline nor the caller of the first watcher is its own.
        feed.task = asyncio.create_task(feed.run(), name=f"feed-{feed_id}", context=contextvars.Context())
        self._feeds[feed_id] = feed
        return feed

    async def _close(self, feed_id: str, feed: _Feed[E, T]) -> None:
        if self._feeds.get(feed_id) is feed:
            del self._feeds[feed_id]
        if feed.task is not None:
            feed.task.cancel()
            await asyncio.gather(feed.task, return_exceptions=True)


def _check_position(feed_id: str, after: int, kept: Kept) -> None:
    if after > kept.last:
        raise OutOfRange(
            "SEQUENCE_OUT_OF_RANGE",
            f"{feed_id} has {kept.last} events so far; resume from a sequence that you have received, not {after}",
            metadata={"latest_sequence": str(kept.last)},
        )
    if 0 < after < kept.first - 1:
        raise OutOfRange(
            "SEQUENCE_OUT_OF_RANGE",
            f"the events of {feed_id} after {after} are not all kept; the oldest is {kept.first}: begin again from 0",
            metadata={"oldest_sequence": str(kept.first), "latest_sequence": str(kept.last)},
        )
