"""CPU work in processes of its own, so that the loop stays free.

Workers are spawned, never forked (a fork after grpc has started threads can hang). They end with their parent however
it ended, leave Ctrl-C to it, and are replaced when one dies.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import asynccontextmanager, contextmanager, suppress
from types import ModuleType
from typing import TypeVar, TypeVarTuple

from services.runtime.errors import Internal, ResourceExhausted, Unavailable
from services.runtime.threads import WorkerThreads

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_log = logging.getLogger(__name__)


class ProcessPool:
    """A fixed number of worker processes, or one thread where `workers` is 0. Made by `ProcessPool.open`."""

    def __init__(self, workers: int, max_waiting: int, warm_up: Callable[[], None] | None, *, early: bool) -> None:
        self._workers = workers
        self._max_waiting = max_waiting
        self._warm_up = warm_up
        self._unfinished = 0
        self._closed = False
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
        return self._unfinished

    async def run(self, fn: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run `fn(*args)` in a worker: a function of an importable module; arguments, result and exception are pickled.

        A task whose worker died is run once more, so it must be free of side effects. Raises
        ResourceExhausted(OVERLOADED) when `max_waiting` tasks wait, Internal when its worker died twice,
        Unavailable(SHUTTING_DOWN) after `close`.
        """
        if self._thread is not None:
            return await self._thread.run(lambda: fn(*args))
        if self._closed:
            raise Unavailable("SHUTTING_DOWN", "the process pool is closed because the service is stopping")
        if self._unfinished >= self._max_waiting + self._workers:
            raise ResourceExhausted("OVERLOADED", f"{self._max_waiting} tasks wait for a worker already; try again")
        self._unfinished += 1
        try:
            return await self._run_in_process(fn, args)
        finally:
            self._unfinished -= 1

    async def close(self) -> None:
        """Refuse new tasks, finish those that were handed in, and end the workers."""
        self._closed = True
        if self._thread is not None:
            await self._thread.close()
        if self._executor is not None:
            await asyncio.to_thread(self._executor.shutdown)

    async def _run_in_process(self, fn: Callable[[*Ts], T], args: tuple[*Ts]) -> T:
        for _ in range(2):
            executor = self._executor = self._executor or self._start()
            try:
                return await asyncio.wrap_future(_submit(executor, fn, *args))
            except BrokenProcessPool:
                # Every task of a broken pool comes here; the first replaces it.
                if executor is self._executor:
                    _log.warning("a worker process died; starting new ones")
                    executor.shutdown(wait=False)
                    self._executor = self._start()
        raise Internal("INTERNAL", "two worker processes died on this task; the server's log has more")

    def _start(self) -> ProcessPoolExecutor:
        executor = ProcessPoolExecutor(
            self._workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_prepare_worker,
            initargs=(self._warm_up,),
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


def _prepare_worker(warm_up: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    if warm_up is not None:
        warm_up()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
