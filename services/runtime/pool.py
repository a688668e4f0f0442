"""CPU work in processes of its own, so that the loop stays free.

Workers are spawned, never forked (a fork after grpc has started threads can hang). They end with their parent however
it ended, leave Ctrl-C to it, and are replaced when one dies. A task whose caller is gone is told so through a byte of
shared memory, which it sees at its next `check_stopped`.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, MutableSequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import asynccontextmanager, contextmanager, suppress
from types import ModuleType
from typing import TypeVar, TypeVarTuple

from services.runtime.errors import Internal, ResourceExhausted, Unavailable
from services.runtime.stopping import run_stoppable
from services.runtime.threads import WorkerThreads

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_log = logging.getLogger(__name__)

_SPAWN = multiprocessing.get_context("spawn")
_stops: MutableSequence[int] = []
"""In a worker: the bytes of its pool's tasks."""


class ProcessPool:
    """A fixed number of worker processes, or one thread where `workers` is 0. Made by `ProcessPool.open`."""

    def __init__(self, workers: int, max_waiting: int, warm_up: Callable[[], None] | None, *, early: bool) -> None:
        self._workers = workers
        self._max_waiting = max_waiting
        self._warm_up = warm_up
        self._closed = False
        # A task's byte is not 0 where nobody waits for it any more. It is free again when its worker is.
        self._stops: MutableSequence[int] = _SPAWN.RawArray("b", max_waiting + workers) if workers else []
        self._free = deque(range(len(self._stops)))
        self._thread = WorkerThreads("pool", 1, max_waiting) if workers == 0 else None
        self._executor = self._start() if workers and early else None

    @classmethod
    @asynccontextmanager
    async def open(
        cls, workers: int, *, max_waiting: int = 1024, warm_up: Callable[[], None] | None = None, early: bool = True
    ) -> AsyncIterator[ProcessPool]:
        """Start the workers in the background; each runs `warm_up` (imports, tables) before its first task.

        Where not `early`, they start with the first task. At the end waits for the tasks that were handed in. With 0
        workers it is one thread.
        """
        pool = cls(workers, max_waiting, warm_up, early=early)
        try:
            yield pool
        finally:
            await pool.close()

    @property
    def unfinished(self) -> int:
        """Tasks that were handed in and have not ended, those in a worker with them."""
        return len(self._stops) - len(self._free)

    @property
    def parallel(self) -> int:
        """Tasks that are worked on at the same time."""
        return max(1, self._workers)

    async def run(self, fn: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run `fn(*args)` in a worker: a function of an importable module; arguments, result and exception are pickled.

        A caller that is cancelled leaves at once: work that has not begun is dropped, work that has begun ends at its
        next `check_stopped`. A task whose worker died is run once more, so it must be free of side effects. Raises
        ResourceExhausted(OVERLOADED) when `max_waiting` tasks wait, Internal when its worker died twice,
        Unavailable(SHUTTING_DOWN) after `close`.
        """
        if self._thread is not None:
            return await self._run_in_thread(self._thread, fn, args)
        if self._closed:
            raise Unavailable("SHUTTING_DOWN", "the process pool is closed because the service is stopping")
        for _ in range(2):
            if not self._free:
                raise ResourceExhausted("OVERLOADED", f"{self._max_waiting} tasks wait for a worker already; try again")
            executor = self._executor = self._executor or self._start()
            try:
                return await self._run_in_process(executor, fn, args)
            except BrokenProcessPool:
                # Every task of a broken pool comes here; the first replaces it.
                if executor is self._executor:
                    _log.warning("a worker process died; starting new ones")
                    executor.shutdown(wait=False)
                    self._executor = self._start()
        raise Internal("INTERNAL", "two worker processes died on this task; the server's log has more")

    async def close(self) -> None:
        """Refuse new tasks, finish those that were handed in, and end the workers."""
        self._closed = True
        if self._thread is not None:
            await self._thread.close()
        if self._executor is not None:
            await asyncio.to_thread(self._executor.shutdown)

    async def _run_in_thread(self, thread: WorkerThreads, fn: Callable[[*Ts], T], args: tuple[*Ts]) -> T:
        left = threading.Event()
        try:
            return await thread.run(lambda: run_stoppable(left.is_set, fn, *args))
        except asyncio.CancelledError:
            left.set()
            raise

    async def _run_in_process(self, executor: ProcessPoolExecutor, fn: Callable[[*Ts], T], args: tuple[*Ts]) -> T:
        place = self._free.popleft()
        self._stops[place] = 0
        try:
            future = _submit(executor, _run_task, place, fn, args)
        except BaseException:
            self._free.append(place)
            raise
        future.add_done_callback(lambda _: self._free.append(place))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            # A task that has ended has given its place back, perhaps to another one. Places are given away by this
            # thread alone, so that one that still belongs to the task does so here as well.
            if not future.done():
                self._stops[place] = 1
            raise

    def _start(self) -> ProcessPoolExecutor:
        executor = ProcessPoolExecutor(
            self._workers,
            mp_context=_SPAWN,
            initializer=_prepare_worker,
            initargs=(self._warm_up, self._stops),
        )
        # The executor spawns a worker per task while none is idle: this many trivial tasks make it spawn them all.
        # A worker that cannot even start breaks the pool at once; whoever runs a task next is told.
        with suppress(BrokenProcessPool):
            for _ in range(self._workers):
                _submit(executor, os.getpid)
        return executor


def _submit(executor: ProcessPoolExecutor, fn: Callable[[*Ts], T], *args: *Ts) -> Future[T]:
    with _fit_to_spawn():
        return executor.submit(fn, *args)


@contextmanager
def _fit_to_spawn() -> Iterator[None]:
    """What a submission needs, since it may spawn a worker.

    The worker inherits the blocked SIGINT, so that a Ctrl-C which arrives before it has run its first line does not end
    it with a traceback on the terminal. And it must not import the main program, as multiprocessing wants it to: tasks
    live in modules, and a script without a `__main__` guard would start itself again in every worker.
    """
    main = sys.modules["__main__"]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_task(place: int, fn: Callable[[*Ts], T], args: tuple[*Ts]) -> T:
    return run_stoppable(lambda: _stops[place] != 0, fn, *args)


def _prepare_worker(warm_up: Callable[[], None] | None, stops: MutableSequence[int]) -> None:
    global _stops  # noqa: PLW0603 (a worker serves one pool, which is all that it knows)
    _stops = stops
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    if warm_up is not None:
        warm_up()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
