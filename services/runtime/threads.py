"""A fixed number of threads behind one bounded queue, for blocking work awaited from the loop.

Lighter than `concurrent.futures`: one hop each way, no lock or condition per task.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from services.runtime.errors import DeadlineExceeded, ResourceExhausted, Unavailable

T = TypeVar("T")


class _Work(NamedTuple):
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    call: Callable[[], Any]
    deadline: float | None


class WorkerThreads:
    """`count` daemon threads named `<name>-<n>`; at most `max_waiting` tasks wait for one."""

    def __init__(self, name: str, count: int, max_waiting: int) -> None:
        self._name = name
        self._max_waiting = max_waiting
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"{name}-{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, call: Callable[[], T], *, deadline: float | None = None) -> T:
        """Run `call` in one of the threads and return what it returns.

        A caller that is cancelled leaves at once: work that has not begun is dropped, work that has begun runs to its
        end unobserved. `deadline` (time.monotonic seconds) bounds the wait for a thread only. Raises
        ResourceExhausted(OVERLOADED) when `max_waiting` tasks wait already, DeadlineExceeded when no thread was free in
        time, Unavailable(SHUTTING_DOWN) after `close`.
        """
        if self._closed:
            raise Unavailable("SHUTTING_DOWN", f"{self._name} is closed because the service is stopping")
        if self._queue.qsize() >= self._max_waiting:
            raise ResourceExhausted("OVERLOADED", f"{self._max_waiting} tasks wait for {self._name} already; try again")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Work(future, loop, call, deadline))
        return await future

    async def close(self) -> None:
        """Refuse new work, finish what is queued, and wait until the threads have ended."""
        if self._closed:
            return
        self._closed = True
        for _ in self._threads:
            self._queue.put(None)
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while (work := self._queue.get()) is not None:
            if work.future.cancelled():
                continue
            result: Any = None
            error: BaseException | None = None
            if work.deadline is not None and monotonic() > work.deadline:
                error = DeadlineExceeded("DEADLINE_EXCEEDED", f"no thread of {self._name} was free before the deadline")
            else:
                try:
                    result = work.call()
                except BaseException as raised:  # noqa: BLE001 (whatever it is, it belongs to the caller)
                    error = raised
            try:
                work.loop.call_soon_threadsafe(_settle, work.future, result, error)
            except RuntimeError:
                # The loop is closed: nobody waits for this answer any more.
                continue
            finally:
                # An idle thread must not keep the last task's objects alive.
                del work, result, error


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):
        # A future refuses StopIteration, and a waiter must never be left without an answer.
        future.set_exception(RuntimeError("the task raised StopIteration"))
    else:
        future.set_exception(error)
