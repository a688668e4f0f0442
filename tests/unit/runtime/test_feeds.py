from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

import pytest

from services.runtime.errors import OutOfRange, ResourceExhausted, Unavailable
from services.runtime.feeds import Kept, Watching, WatchPolicy
from services.runtime.hints import LocalHints
from tests.support.orchestrator import eventually

QUICK = WatchPolicy(page_events=3, flush_ms=1, poll_ms=20, heartbeat_ms=5_000, queue_max=50)


@dataclass(frozen=True, slots=True)
class Event:
    """An event that may be the last."""

    sequence: int
    ends: bool = False


class Source:
    """Events in memory; the first `pruned` of them are no longer kept."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.pruned = 0
        self.reads = 0
        self.read_up_to = 0
        self.away = False

    def add(self, count: int, *, last: bool = False) -> None:
        for number in range(count):
            self.events.append(Event(len(self.events) + 1, last and number == count - 1))

    def topic(self, feed_id: str) -> str:
        return f"news:{feed_id}"

    async def read_events(self, feed_id: str, after: int, limit: int) -> list[Event]:
        self.reads += 1
        self.read_up_to = after
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("DEPENDENCY_UNAVAILABLE", "the store is away")
        begin = max(after, self.pruned)
        return self.events[begin : begin + limit]

    async def kept(self, feed_id: str) -> Kept:
        return Kept(self.pruned + 1, len(self.events))

    def is_last(self, event: Event) -> bool:
        return event.ends


def encode(events: Sequence[Event], latest: int) -> tuple[list[int], int]:
    return [event.sequence for event in events], latest


def watching(source: Source, policy: WatchPolicy = QUICK) -> tuple[Watching[Event, tuple[list[int], int]], LocalHints]:
    hints = LocalHints()
    return Watching(source, hints, policy), hints


async def collect(watch: Watching[Event, tuple[list[int], int]], after: int = 0) -> list[int]:
    return [sequence async for message in watch.watch("run_1", after, encode) for sequence in message[0]]


async def test_a_watcher_catches_up_and_goes_on_live_to_the_last_event() -> None:
    source = Source()
    source.add(8)
    watch, hints = watching(source)
    watcher = asyncio.create_task(collect(watch, after=2))
    await asyncio.sleep(0.01)
    for _ in range(5):
        source.add(4)
        hints.publish("news:run_1")
        await asyncio.sleep(0.002)
    source.add(1, last=True)
    hints.publish("news:run_1")

    assert await watcher == list(range(3, 30))
    await watch.close()


async def test_many_watchers_share_one_reader() -> None:
    source = Source()
    watch, hints = watching(source)
    watchers = [asyncio.create_task(collect(watch)) for _ in range(30)]
    await asyncio.sleep(0.01)
    before = source.reads
    source.add(6, last=True)
    hints.publish("news:run_1")

    assert await asyncio.gather(*watchers) == [list(range(1, 7))] * 30
    assert source.reads - before < 30


async def test_a_watcher_of_what_has_ended_ends() -> None:
    source = Source()
    source.add(5, last=True)
    watch, _ = watching(source)

    assert await collect(watch) == [1, 2, 3, 4, 5]
    assert await collect(watch, after=5) == []
    with pytest.raises(OutOfRange) as caught:
        await collect(watch, after=6)
    assert caught.value.metadata == {"latest_sequence": "5"}


async def test_silence_is_broken_by_heartbeats_with_the_latest_sequence() -> None:
    source = Source()
    source.add(4)
    watch, _ = watching(source, WatchPolicy(heartbeat_ms=10, poll_ms=5, flush_ms=1))
    async with aclosing(watch.watch("run_1", 1, encode)) as messages:
        assert await anext(messages) == ([2, 3, 4], 4)
        assert await anext(messages) == ([], 4)
        assert await anext(messages) == ([], 4)
    await watch.close()


async def test_of_many_watchers_each_hears_less_often_and_more_at_a_time() -> None:
    source = Source()
    source.add(1)
    watch, hints = watching(source, replace(QUICK, page_events=500, messages_per_s=10))

    async def told() -> list[list[int]]:
        return [message[0] async for message in watch.watch("run_1", 0, encode)]

    watchers = [asyncio.create_task(told()) for _ in range(5)]
    for number in range(30):
        await asyncio.sleep(0.01)
        source.add(1, last=number == 29)
        hints.publish("news:run_1")

    for messages in await asyncio.gather(*watchers):
        assert [sequence for events in messages for sequence in events] == list(range(1, 32))
        # What was there, the first news, and the rest half a second later.
        assert len(messages) <= 4
    await watch.close()


async def test_a_slow_watcher_is_told_where_to_resume() -> None:
    source = Source()
    source.add(1)
    watch, hints = watching(source, WatchPolicy(page_events=1, flush_ms=1, poll_ms=5, queue_max=2))
    messages = watch.watch("run_1", 0, encode)
    assert (await anext(messages))[0] == [1]
    pending = asyncio.ensure_future(anext(messages))
    source.add(1)
    hints.publish("news:run_1")
    assert (await pending)[0] == [2]
    source.add(20)
    await asyncio.sleep(0.1)

    seen: list[int] = []
    with pytest.raises(ResourceExhausted, match="watch again after sequence") as caught:
        await _drain(messages, seen)
    resume = int(caught.value.metadata["resume_from_sequence"])
    assert seen == list(range(3, resume + 1))
    await watch.close()


async def test_a_slow_watcher_gets_no_gap_before_it_is_sent_away() -> None:
    source = Source()
    watch, _ = watching(source, WatchPolicy(page_events=1, flush_ms=1, poll_ms=1, heartbeat_ms=1, queue_max=2))
    seen: list[int] = []
    async with aclosing(watch.watch("run_1", 0, encode)) as messages:
        # A heartbeat: from now on the watcher follows.
        assert (await anext(messages))[0] == []
        source.add(4)
        await eventually(lambda: source.read_up_to == 4)
        seen += (await anext(messages))[0]
        # Its queue has room again, but what did not fit is lost to it.
        source.add(2)
        await eventually(lambda: source.read_up_to == 6)
        with pytest.raises(ResourceExhausted) as refused:
            await _drain(messages, seen)
    await watch.close()

    assert seen == [1, 2]
    assert refused.value.metadata["resume_from_sequence"] == "2"


async def _drain(messages: object, seen: list[int]) -> None:
    async for message in messages:  # type: ignore[attr-defined]
        seen.extend(message[0])


async def test_a_store_that_is_away_for_a_while_loses_nothing() -> None:
    source = Source()
    source.add(1)
    watch, hints = watching(source)
    watcher = asyncio.create_task(collect(watch))
    await asyncio.sleep(0.01)
    source.away = True
    hints.publish("news:run_1")
    await asyncio.sleep(0.03)
    source.add(3, last=True)
    source.away = False

    assert await watcher == [1, 2, 3, 4]


async def test_what_is_no_longer_kept_cannot_be_resumed() -> None:
    source = Source()
    source.add(9)
    source.add(1, last=True)
    source.pruned = 5
    watch, _ = watching(source)

    assert await collect(watch, after=0) == [6, 7, 8, 9, 10]
    assert await collect(watch, after=5) == [6, 7, 8, 9, 10]
    with pytest.raises(OutOfRange, match="the oldest is 6") as caught:
        await collect(watch, after=4)
    assert caught.value.metadata == {"oldest_sequence": "6", "latest_sequence": "10"}
