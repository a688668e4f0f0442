"""Open bills in the ledger, on SQLite and on PostgreSQL."""

from __future__ import annotations

from services.orchestrator.calls import Money, Usage
from services.orchestrator.ledger import (
    CellAgain,
    CellSettled,
    ShardEnd,
)
from services.orchestrator.states import CellStatus, RunStatus
from services.orchestrator.store import SqlLedger
from services.runtime.clock import ManualClock
from tests.support.ledger import NO_KEY, PROJECT, claim, result, scores, sent, start, write


async def test_an_open_bill_has_the_usage_of_its_own_call_alone(ledger: SqlLedger) -> None:
    await start(ledger)
    (first,) = await claim(ledger)
    await write(ledger, *sent(first.shard, 0, 1))
    paid = Usage(input_tokens=100, output_tokens=50, estimated=1)
    await write(ledger, CellAgain("run_1", 0, 1, "failed", "STREAM_TRUNCATED", 99, usage=paid, cost=Money(7)))
    await write(ledger, *sent(first.shard, 0, attempt=2))
    await write(ledger, result(0, attempt=2, settled=False), result(1, settled=False))

    state = await ledger.load_shard("run_1", 0, 4)

    # Settling the sum would bill the first attempt a second time.
    assert [(bill.cell, bill.attempt, *bill.usage[:1], bill.usage.output_tokens) for bill in state.open_bills] == [
        (0, 2, 3, 2),
        (1, 1, 3, 2),
    ]


async def cost_of_run(ledger: SqlLedger) -> Money:
    return (await ledger.get_run(PROJECT, "run_1")).statistics.cost


async def test_a_bill_is_added_once_to_the_run_the_result_and_the_attempt(ledger: SqlLedger) -> None:
    await start(ledger, cells=1)
    (first,) = await claim(ledger)
    await write(ledger, *sent(first.shard, 0))
    await write(ledger, CellAgain("run_1", 0, 1, "unknown", "", 0, settled=False))
    await write(ledger, *sent(first.shard, 0, attempt=2))
    await write(ledger, result(0, attempt=2, settled=False), *scores(0), ShardEnd(first.shard, None))
    ended = await ledger.get_run(PROJECT, "run_1")
    assert {(bill.attempt, bill.outcome_known) for bill in (await ledger.load_shard("run_1", 0, 1)).open_bills} == {
        (1, False),
        (2, True),
    }

    for bill in [CellSettled("run_1", 0, 1, Usage(7), Money(4)), CellSettled("run_1", 0, 2, Usage(), Money(3))] * 2:
        await write(ledger, bill)

    run = await ledger.get_run(PROJECT, "run_1")
    stored = await ledger.get_result("run_1", 0)
    assert stored is not None
    assert stored.record.cost == run.statistics.cost == Money(12)
    assert stored.record.usage.input_tokens == run.statistics.usage.input_tokens == 10
    # An ended run has its last event.
    assert run.status is RunStatus.COMPLETED
    assert run.last_sequence == ended.last_sequence
    assert (await ledger.load_shard("run_1", 0, 1)).open_bills == ()


async def test_a_late_answer_closes_the_bill_of_its_call_and_no_other(ledger: SqlLedger) -> None:
    await start(ledger, cells=1)
    (first,) = await claim(ledger)
    await write(ledger, *sent(first.shard, 0))
    await write(ledger, CellAgain("run_1", 0, 1, "unknown", "", 0, settled=False))
    await write(ledger, *sent(first.shard, 0, attempt=2))
    await write(ledger, result(0, CellStatus.UNKNOWN, attempt=2, settled=False))

    await write(ledger, result(0, attempt=1), worker="zombie")
    (left,) = (await ledger.load_shard("run_1", 0, 1)).open_bills
    assert left.attempt == 2
    for attempt in (1, 2):
        await write(ledger, CellSettled("run_1", 0, attempt, Usage(), Money(2)))

    assert await cost_of_run(ledger) == Money(7)


async def test_open_bills_have_their_turns_ever_more_rarely_until_they_are_overdue(
    ledger: SqlLedger, clock: ManualClock
) -> None:
    await start(ledger, cells=2)
    (first,) = await claim(ledger)
    await write(ledger, *sent(first.shard, 0, 1))
    await write(ledger, result(0, settled=False), result(1, CellStatus.UNKNOWN, settled=False))

    async def turns(seconds: int) -> list[tuple[int, bool]]:
        found = []
        for _ in range(seconds):
            clock.advance(1)
            found += await ledger.take_bills(2_000, 60_000, 10)
        assert {each.project_id for each in found} <= {PROJECT}
        return [(each.bill.cell, each.overdue) for each in found]

    assert await turns(1) == []
    assert sorted(await turns(3)) == [(0, False), (0, False), (1, False), (1, False)]
    assert len(await turns(46)) < 2 * 15
    assert {overdue for _, overdue in await turns(20)} >= {True}
    assert len(await ledger.take_bills(0, 60_000, 1)) <= 1


async def test_bills_of_a_deleted_experiment_go_with_it(ledger: SqlLedger, clock: ManualClock) -> None:
    await start(ledger, cells=1)
    (first,) = await claim(ledger)
    await write(ledger, *sent(first.shard, 0))
    await write(ledger, result(0, settled=False), *scores(0), ShardEnd(first.shard, None))
    await ledger.delete_experiment(PROJECT, "exp_1", NO_KEY, b"")
    while await ledger.purge_some(100):
        pass

    clock.advance(10)

    assert await ledger.take_bills(0, 60_000, 10) == []
    assert (await ledger.load_shard("run_1", 0, 1)).open_bills == ()
