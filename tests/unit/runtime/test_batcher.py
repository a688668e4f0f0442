import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.batcher import Batcher, OverlappingBatcher, PassOn
from services.runtime.errors import ResourceExhausted, Unavailable


class Sink:
    """A flush that a test opens by hand: it records its batches and how many of them were in flight at once."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.started = asyncio.Event()
        self.gate = asyncio.Semaphore(0)
        self.in_flight = 0
        self.in_flight_max = 0

    def open(self, times: int = 10_000) -> None:
        for _ in range(times):
            self.gate.release()

    async def flush(self, items: list[int]) -> Sequence[int | Exception]:
        self.batches.append(items)
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        self.started.set()
        try:
            await self.gate.acquire()
        finally:
            self.in_flight -= 1
        if -1 in items:
            raise OSError("disk")
        return [ValueError(str(item)) if item % 10 == 9 else item * 2 for item in items]


def batcher_of(sink: Sink, *, max_batch: int = 4, max_queue: int = 8, reject: bool = False) -> Batcher[int, int]:
    return Batcher(sink.flush, max_batch=max_batch, max_queue=max_queue, reject_when_full=reject, name="test")


def submit_all(batcher: Batcher[int, int], items: Sequence[int]) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(batcher.submit(item)) for item in items]


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_lone_item_is_flushed_at_once() -> None:
    sink = Sink()
    sink.open()
    assert await batcher_of(sink).submit(3) == 6
    assert sink.batches == [[3]]


async def test_what_arrives_during_a_flush_is_the_next_batch() -> None:
    sink = Sink()
    batcher = batcher_of(sink)
    first = submit_all(batcher, [1])
    await sink.started.wait()
    others = submit_all(batcher, [2, 3, 4])
    await settle()
    assert sink.batches == [[1]]
    sink.open()
    assert await asyncio.gather(*first, *others) == [2, 4, 6, 8]
    assert sink.batches == [[1], [2, 3, 4]]


async def test_each_item_has_its_own_result_or_exception() -> None:
    sink = Sink()
    sink.open()
    results = await asyncio.gather(*submit_all(batcher_of(sink), [1, 9, 2]), return_exceptions=True)
    assert results[0] == 2
    assert isinstance(results[1], ValueError)
    assert results[2] == 4


async def test_a_failing_flush_fails_its_batch_and_no_other() -> None:
    sink = Sink()
    batcher = batcher_of(sink)
    first = submit_all(batcher, [1, -1])
    await sink.started.wait()
    second = submit_all(batcher, [2])
    sink.open()
    assert [type(each) for each in await asyncio.gather(*first, return_exceptions=True)] == [OSError, OSError]
    assert await second[0] == 4


async def test_a_flush_that_returns_too_few_results_fails_its_batch() -> None:
    async def flush(items: list[int]) -> list[int | Exception]:
        return list(items[1:])

    batcher: Batcher[int, int] = Batcher(flush, max_batch=4, max_queue=4)
    with pytest.raises(RuntimeError, match="0 results for 1 items"):
        await batcher.submit(1)


async def test_a_cancelled_caller_gives_up_its_answer_and_not_the_write() -> None:
    sink = Sink()
    batcher = batcher_of(sink)
    running = submit_all(batcher, [1])
    await sink.started.wait()
    queued, other = submit_all(batcher, [2]), submit_all(batcher, [3])
    await settle()
    running[0].cancel()
    queued[0].cancel()
    await settle()
    sink.open()
    assert await other[0] == 6
    assert sink.batches == [[1], [2, 3]]
    assert running[0].cancelled()
    assert queued[0].cancelled()


async def test_a_full_queue_makes_callers_wait_in_their_order() -> None:
    sink = Sink()
    batcher = batcher_of(sink, max_batch=2, max_queue=2)
    tasks = submit_all(batcher, [0])
    await sink.started.wait()
    tasks += submit_all(batcher, [1, 2, 3, 4, 5])
    await settle()
    sink.open()
    assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8, 10]
    assert [item for batch in sink.batches for item in batch] == [0, 1, 2, 3, 4, 5]


async def test_a_full_queue_refuses_where_that_is_asked_for() -> None:
    sink = Sink()
    batcher = batcher_of(sink, max_queue=2, reject=True)
    tasks = submit_all(batcher, [0])
    await sink.started.wait()
    tasks += submit_all(batcher, [1, 2])
    await settle()
    with pytest.raises(ResourceExhausted) as raised:
        await batcher.submit(3)
    assert raised.value.reason == "OVERLOADED"
    sink.open()
    assert await asyncio.gather(*tasks) == [0, 2, 4]


async def test_close_drains_and_then_refuses() -> None:
    sink = Sink()
    batcher = batcher_of(sink, max_batch=2, max_queue=2)
    tasks = submit_all(batcher, [0, 1, 2, 3, 4])
    await sink.started.wait()
    closing = asyncio.create_task(batcher.close())
    await settle()
    assert not closing.done()
    with pytest.raises(Unavailable) as raised:
        await batcher.submit(5)
    assert raised.value.reason == "SHUTTING_DOWN"
    sink.open()
    await closing
    assert [task.result() for task in tasks] == [0, 2, 4, 6, 8]


async def test_closing_an_idle_batcher_returns_at_once() -> None:
    await batcher_of(Sink()).close()


async def test_a_cancelled_flush_leaves_no_caller_waiting() -> None:
    sink = Sink()
    batcher = batcher_of(sink)
    tasks = submit_all(batcher, [1])
    await sink.started.wait()
    tasks += submit_all(batcher, [2])
    await settle()
    flusher = next(task for task in asyncio.all_tasks() if task.get_name() == "batcher-test")
    flusher.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert all(task.cancelled() for task in tasks)


async def test_a_batch_bears_a_weight_and_a_heavier_item_goes_alone() -> None:
    sink = Sink()
    batcher: Batcher[int, int] = Batcher(sink.flush, max_batch=10, max_queue=20, weight=lambda item: item)
    first = submit_all(batcher, [1])
    await settle()
    others = submit_all(batcher, [4, 5, 1, 2, 30, 8, 3])
    await settle()
    sink.open()
    assert await asyncio.gather(*first, *others) == [2, 8, 10, 2, 4, 60, 16, 6]
    assert sink.batches == [[1], [4, 5, 1], [2], [30], [8], [3]]


async def test_the_next_flush_begins_when_the_one_in_flight_says_so() -> None:
    sink = Sink()
    passes: list[PassOn] = []

    async def flush(items: list[int], pass_on: PassOn) -> Sequence[int | Exception]:
        passes.append(pass_on)
        return await sink.flush(items)

    batcher: OverlappingBatcher[int, int] = OverlappingBatcher(flush, max_in_flight=2, max_batch=4, max_queue=8)
    tasks = submit_all(batcher, [1])
    await settle()
    tasks += submit_all(batcher, [2])
    await settle()
    assert sink.batches == [[1]]
    passes[0]()
    await settle()
    assert sink.batches == [[1], [2]]
    # Two are in flight: the third waits until one has landed, whatever the second says.
    passes[1]()
    tasks += submit_all(batcher, [3, 4])
    await settle()
    assert sink.batches == [[1], [2]]
    sink.open(1)
    await settle()
    tasks += submit_all(batcher, [5])
    await settle()
    assert sink.batches == [[1], [2], [3, 4]]
    closing = asyncio.create_task(batcher.close())
    await settle()
    assert not closing.done()
    sink.open()
    await closing
    assert [task.result() for task in tasks] == [2, 4, 6, 8, 10]
    assert sink.in_flight_max == 2


async def test_a_flush_that_fails_before_it_passes_on_keeps_no_other_back() -> None:
    sink = Sink()
    sink.open()
    batcher: OverlappingBatcher[int, int] = OverlappingBatcher(
        lambda items, _: sink.flush(items), max_in_flight=1, max_batch=1, max_queue=8
    )
    results = await asyncio.gather(*submit_all(batcher, [-1, 2]), return_exceptions=True)
    assert [type(results[0]), results[1]] == [OSError, 4]
    with pytest.raises(ValueError, match="max_in_flight must be at least 1"):
        OverlappingBatcher(lambda items, _: sink.flush(items), max_in_flight=0, max_batch=1, max_queue=1)


@pytest.mark.parametrize(("max_batch", "max_queue"), [(0, 1), (1, 0)])
def test_limits_are_at_least_one(max_batch: int, max_queue: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        batcher_of(Sink(), max_batch=max_batch, max_queue=max_queue)


@given(
    arrivals=st.lists(st.tuples(st.integers(1, 12), st.integers(0, 3)), max_size=12),
    max_batch=st.integers(1, 5),
    max_queue=st.integers(1, 9),
    cancelled=st.sets(st.integers(0, 40), max_size=8),
)
def test_any_arrival_keeps_order_and_one_flush_in_flight(
    arrivals: list[tuple[int, int]], max_batch: int, max_queue: int, cancelled: set[int]
) -> None:
    """Bursts of callers, flushes that land in between, some callers that leave: nothing is lost, doubled or swapped."""

    async def scenario() -> None:
        sink = Sink()
        batcher = batcher_of(sink, max_batch=max_batch, max_queue=max_queue)
        tasks: list[asyncio.Task[int]] = []
        for burst, landings in arrivals:
            # Multiples of ten never end in 9, which stands for a failing item.
            tasks += submit_all(batcher, [10 * (len(tasks) + offset) for offset in range(burst)])
            await settle()
            for number in cancelled:
                if number < len(tasks):
                    tasks[number].cancel()
            sink.open(landings)
            await settle()
        sink.open()
        await batcher.close()
        await settle()
        flushed = [item // 10 for batch in sink.batches for item in batch]
        assert flushed == sorted(set(flushed))
        assert all(len(batch) <= max_batch for batch in sink.batches)
        assert sink.in_flight_max <= 1
        for number, task in enumerate(tasks):
            if task.cancelled():
                assert number in cancelled
            else:
                assert task.result() == 20 * number
                assert number in flushed

    asyncio.run(scenario())
