import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from services.runtime.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from services.runtime.threads import WorkerThreads


@pytest.fixture
async def one_thread() -> AsyncIterator[WorkerThreads]:
    threads = WorkerThreads("test", 1, max_waiting=2)
    yield threads
    await threads.close()


class Gate:
    """A call that blocks its thread until the test lets it go on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self) -> str:
        self.entered.set()
        assert self.open.wait(timeout=30)
        return "done"


async def busy(threads: WorkerThreads, gate: Gate) -> "asyncio.Task[str]":
    task = asyncio.create_task(threads.run(gate))
    assert await asyncio.to_thread(gate.entered.wait, 30)
    return task


async def test_a_call_runs_in_a_named_thread(one_thread: WorkerThreads) -> None:
    assert await one_thread.run(lambda: threading.current_thread().name) == "test-0"


async def test_an_exception_reaches_the_caller(one_thread: WorkerThreads) -> None:
    with pytest.raises(ZeroDivisionError):
        await one_thread.run(lambda: 1 // 0)


async def test_stop_iteration_does_not_leave_the_caller_waiting(one_thread: WorkerThreads) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await one_thread.run(lambda: next(iter(())))


async def test_waiting_work_is_bounded(one_thread: WorkerThreads) -> None:
    gate = Gate()
    running = await busy(one_thread, gate)
    waiting = [asyncio.create_task(one_thread.run(lambda: "waited")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted) as raised:
        await one_thread.run(lambda: "refused")
    assert raised.value.reason == "OVERLOADED"
    gate.open.set()
    assert await asyncio.gather(running, *waiting) == ["done", "waited", "waited"]


async def test_work_of_a_cancelled_caller_is_dropped_unless_it_has_begun(one_thread: WorkerThreads) -> None:
    gate, ran = Gate(), []
    running = await busy(one_thread, gate)
    waiting = asyncio.create_task(one_thread.run(lambda: ran.append("waited")))
    await asyncio.sleep(0)
    waiting.cancel()
    running.cancel()
    await asyncio.gather(waiting, running, return_exceptions=True)
    gate.open.set()
    await one_thread.run(lambda: ran.append("later"))
    assert ran == ["later"]


async def test_work_that_waited_past_its_deadline_is_not_begun(one_thread: WorkerThreads) -> None:
    ran: list[str] = []
    with pytest.raises(DeadlineExceeded):
        await one_thread.run(lambda: ran.append("ran"), deadline=0.0)
    assert ran == []


async def test_close_finishes_what_is_queued_and_refuses_more() -> None:
    threads = WorkerThreads("test", 1, max_waiting=4)
    gate = Gate()
    running = await busy(threads, gate)
    queued = asyncio.create_task(threads.run(lambda: "queued"))
    await asyncio.sleep(0)
    closing = asyncio.create_task(threads.close())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as raised:
        await threads.run(lambda: "late")
    assert raised.value.reason == "SHUTTING_DOWN"
    gate.open.set()
    await closing
    assert (running.result(), queued.result()) == ("done", "queued")
    await threads.close()
