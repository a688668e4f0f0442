"""Group commit by leading edge: many callers, one write in flight, never a fixed wait.

An idle batcher flushes the first item at once. While that flush is in flight it gathers what arrives, and flushes all
of it (at most `max_batch`) when the flight has landed. So a lone caller pays no delay and a crowd shares one
transaction.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from services.runtime.errors import ResourceExhausted, Unavailable

T = TypeVar("T")
R = TypeVar("R")


Flush = Callable[[list[T]], Awaitable[Sequence[R | Exception]]]
PassOn = Callable[[], None]


def _one(_item: object) -> int:
    return 1


def _ignored() -> None:
    pass


class Batcher(Generic[T, R]):
    """Gathers items into batches and gives each caller its own item's result.

    `flush` receives at least one item, in the order of their submission and returns one result or exception for
    each, in the same order. When it raises, that exception reaches every caller of that batch and of no other.
    """

    def __init__(
        self,
        flush: Flush[T, R],
        *,
        max_batch: int,
        max_queue: int,
        reject_when_full: bool = False,
        weight: Callable[[T], int] = _one,
        name: str = "batch",
    ) -> None:
        """Let `max_queue` items wait beside the batch in flight, which weighs `max_batch` at most.

        An item weighs 1, or what `weight` says; one that weighs more than a batch is flushed by itself.
        A full queue makes `submit` wait, or raise ResourceExhausted(OVERLOADED) with `reject_when_full`.
        """
        if max_batch < 1 or max_queue < 1:
            raise ValueError(f"max_batch and max_queue must be at least 1, not {max_batch} and {max_queue}")
        self._flush = flush
        self._max_batch = max_batch
        self._weight = weight
        self._reject_when_full = reject_when_full
        self._name = name
        self._space = asyncio.Semaphore(max_queue)
        self._queue: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._entering = 0
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Items that wait for their flush to begin."""
        return len(self._queue) + self._entering

    async def submit(self, item: T) -> R:
        """Hand in one item; returns its result once its batch is flushed, or raises its exception.

        An item that has entered the queue is flushed whatever becomes of its caller: cancelling the caller gives up
        the answer, not the write. Raises Unavailable(SHUTTING_DOWN) after `close`.
        """
        if self._closed:
            raise Unavailable("SHUTTING_DOWN", f"the {self._name} queue is closed because the service is stopping")
        if self._reject_when_full and self._space.locked():
            raise ResourceExhausted("OVERLOADED", f"the {self._name} queue is full; try again")
        self._entering += 1
        try:
            await self._space.acquire()
        finally:
            self._entering -= 1
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.append((item, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"batcher-{self._name}")
        return await future

    async def close(self) -> None:
        """Refuse new items and wait until all that were submitted are flushed."""
        self._closed = True
        while self._task is not None or self._entering:
            if self._task is None:
                # A caller has just been granted its place in the queue and starts the next flush in a moment.
                await asyncio.sleep(0)
            else:
                await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._queue:
                await self._flush_batch(self._next_batch(), self._flush)
        finally:
            self._end_run()

    def _end_run(self) -> None:
        self._task = None
        # Only a cancelled loop leaves items behind; their callers must not wait for ever.
        while self._queue:
            self._queue.popleft()[1].cancel()

    def _next_batch(self) -> list[tuple[T, asyncio.Future[R]]]:
        """At least one item, and as many as a batch can bear."""
        batch = [self._queue.popleft()]
        left = self._max_batch - self._weight(batch[0][0])
        while self._queue and (left := left - self._weight(self._queue[0][0])) >= 0:
            batch.append(self._queue.popleft())
        for _ in batch:
            self._space.release()
        return batch

    async def _flush_batch(self, batch: list[tuple[T, asyncio.Future[R]]], flush: Flush[T, R]) -> None:
        try:
            results = await flush([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the callers of this batch
            results = [error] * len(batch)
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        if len(results) != len(batch):
            mismatch = RuntimeError(f"flush of {self._name} returned {len(results)} results for {len(batch)} items")
            results = [mismatch] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)


class OverlappingBatcher(Batcher[T, R]):
    """A batcher whose next flush may begin before the one in flight has landed, where that one says so.

    For a flush whose last part takes long, and need not be waited for by the next: it is given a function beside its
    items, and calls it, on the event loop, when the next may begin. One that never does is flushed as by a `Batcher`.
    """

    def __init__(
        self,
        flush: Callable[[list[T], PassOn], Awaitable[Sequence[R | Exception]]],
        *,
        max_in_flight: int,
        max_batch: int,
        max_queue: int,
        weight: Callable[[T], int] = _one,
        name: str = "batch",
    ) -> None:
        """Let `max_in_flight` flushes be on their way; all else is as of a Batcher."""
        super().__init__(
            lambda items: flush(items, _ignored), max_batch=max_batch, max_queue=max_queue, weight=weight, name=name
        )
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight must be at least 1, not {max_in_flight}")
        self._overlapping = flush
        self._places = asyncio.Semaphore(max_in_flight)
        self._flights: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Refuse new items and wait until all that were submitted are flushed."""
        await super().close()
        if self._flights:
            await asyncio.wait(self._flights)

    async def _run(self) -> None:
        try:
            while self._queue:
                await self._places.acquire()
                passed_on = asyncio.Event()
                flight = asyncio.create_task(self._fly(self._next_batch(), passed_on), name=f"batch-{self._name}")
                self._flights.add(flight)
                flight.add_done_callback(self._flights.discard)
                await passed_on.wait()
        finally:
            self._end_run()

    async def _fly(self, batch: list[tuple[T, asyncio.Future[R]]], passed_on: asyncio.Event) -> None:
        try:
            await self._flush_batch(batch, lambda items: self._overlapping(items, passed_on.set))
        finally:
            passed_on.set()
            self._places.release()
