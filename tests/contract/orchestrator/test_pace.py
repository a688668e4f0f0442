"""How fast a run goes, read from its results on SQLite and on PostgreSQL."""

from __future__ import annotations

from services.orchestrator.calls import Timing
from services.orchestrator.congestion import ModelCalls
from services.orchestrator.ledger import Slowed
from services.orchestrator.pace import Pace, Paces
from services.orchestrator.records import EventKind, Statistics
from services.orchestrator.states import CellStatus
from services.orchestrator.store import SqlLedger
from services.orchestrator.watch import RunEvents
from services.runtime.clock import ManualClock
from tests.support.ledger import claim, result, sent, start, write


async def test_rate_eta_and_latencies_come_from_the_results(ledger: SqlLedger, clock: ManualClock) -> None:
    await start(ledger, cells=20, concurrency=20)
    (first,) = await claim(ledger, capacity=64)
    await write(ledger, *sent(first.shard, *range(11)))
    for cell in range(10):
        await write(ledger, result(cell)._replace(timing=Timing(latency_us=(cell + 1) * 100)))
        clock.advance(0.5)
    await write(ledger, result(10, CellStatus.FAILED))

    paces = Paces(ledger)
    pace = await paces.of("run_1", Statistics(cells_total=20, done=10, failed=1))
    assert pace == Pace(2.0, 4_500_000, ((0.5, 500), (0.95, 1_000), (0.99, 1_000)))
    assert await paces.of("run_none", Statistics(cells_total=20)) == Pace(0.0, None, ())


async def test_quantiles_are_read_anew_only_when_there_are_some_more_answers(ledger: SqlLedger) -> None:
    asked: list[list[int]] = []

    class Counting:
        latest_results = ledger.latest_results
        call_limits = ledger.call_limits

        async def latencies(self, run_id: str, ranks: list[int]) -> list[int]:
            asked.append(ranks)
            return ranks

    paces = Paces(Counting())
    for done in (100, 101, 102, 103, 90):
        await paces.of("run_1", Statistics(cells_total=200, done=done))
    assert [ranks[0] for ranks in asked] == [49, 50, 44]


async def test_limits_of_calls_count_while_their_worker_has_a_range(ledger: SqlLedger) -> None:
    await start(ledger, cells=8)
    await claim(ledger, "w1")
    await claim(ledger, "w2", extend=["run_1"], capacity=0)
    assert await ledger.call_limits("run_1") == []
    for worker, calls in (("w1", ((0, 30), (1, 7))), ("w2", ((0, 12),)), ("w1", ((0, 20),))):
        slowed = Slowed("run_1", tuple(ModelCalls(*each) for each in calls))
        assert await ledger.commit(worker, [[slowed]]) == [[True]]

    assert await ledger.call_limits("run_1") == [ModelCalls(0, 32), ModelCalls(1, 7)]
    assert (await Paces(ledger).of("run_1", Statistics(cells_total=8))).calls == ((0, 32), (1, 7))

    await ledger.release("w1")
    assert await ledger.call_limits("run_1") == [ModelCalls(0, 12)]


async def test_only_the_latest_progress_of_a_run_has_a_pace(ledger: SqlLedger) -> None:
    await start(ledger, cells=3)
    (first,) = await claim(ledger)
    for cell in range(2):
        await write(ledger, *sent(first.shard, cell))
        await write(ledger, result(cell))
    events = await RunEvents(ledger).read_events("run_1", 0, 100)
    progress = [event for event in events if event.kind is EventKind.PROGRESS]
    assert [event.pace is not None for event in progress] == [False] * (len(progress) - 1) + [True]
    assert not any(event.pace for event in await RunEvents(ledger).read_events("run_1", 0, len(events)))
