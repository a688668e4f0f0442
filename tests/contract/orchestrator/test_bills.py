"""Open bills in the ledger, on SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest

from services.orchestrator.calls import Money, Usage
from services.orchestrator.ledger import (
    CellAgain,
    CellResult,
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


def told(attempt: int, usage: Usage, cost: Money, *, outcome_known: bool = True) -> CellSettled:
    """What the cost service says of a call of the first cell."""
    return CellSettled("run_1", 0, attempt, outcome_known, usage, cost)


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

    late, own = told(1, Usage(7), Money(4), outcome_known=False), told(2, Usage(), Money(3))
    for bill in [late, own, late, own]:
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
        await write(ledger, told(attempt, Usage(), Money(2), outcome_known=False))

    assert await cost_of_run(ledger) == Money(7)


async def test_what_a_lost_call_was_guessed_to_cost_is_not_the_bill_of_its_late_answer(ledger: SqlLedger) -> None:
    await start(ledger, cells=1)
    (first,) = await claim(ledger)
    await write(ledger, *sent(first.shard, 0))
    await write(ledger, result(0, CellStatus.UNKNOWN, settled=False))
    # Somebody reads the hold of the lost call, which expired; before he writes, the answer comes, and is settled.
    await write(ledger, result(0, settled=False), worker="zombie")

    await write(ledger, told(1, Usage(7), Money(11), outcome_known=False), worker="sweeper")
    assert (await ledger.load_shard("run_1", 0, 1)).open_bills != ()
    await write(ledger, told(1, Usage(), Money(2)), worker="zombie")

    assert await cost_of_run(ledger) == Money(7)
    assert (await ledger.get_run(PROJECT, "run_1")).statistics.usage.input_tokens == 3


FAILED_LATE = CellAgain("run_1", 0, 1, "failed", "STREAM_TRUNCATED", 99, Usage(3), settled=False)


@pytest.mark.parametrize("guessed_first", [True, False])
@pytest.mark.parametrize("second", [CellStatus.DONE, None])
@pytest.mark.parametrize("late", [FAILED_LATE, result(0, settled=False, cost=0)], ids=["failed", "answered"])
async def test_the_end_of_a_lost_call_takes_the_place_of_what_was_guessed(
    ledger: SqlLedger, late: CellResult | CellAgain, second: CellStatus | None, guessed_first: bool
) -> None:
    """Whether its cell has another answer by then or not, and whether the guess is written before or after it."""
    await start(ledger, cells=1)
    (first,) = await claim(ledger)
    await write(ledger, *sent(first.shard, 0))
    await write(ledger, CellAgain("run_1", 0, 1, "unknown", "", 0, settled=False))
    if second is not None:
        await write(ledger, *sent(first.shard, 0, attempt=2))
        await write(ledger, result(0, second, attempt=2))
    guess = told(1, Usage(7), Money(11), outcome_known=False)
    for each in (guess, late) if guessed_first else (late, guess):
        await write(ledger, each, worker="zombie")
    await write(ledger, late, worker="zombie")

    await write(ledger, told(1, Usage(), Money(2)), worker="zombie")

    run = (await ledger.get_run(PROJECT, "run_1")).statistics
    others = Money(0) if second is None else Money(5)
    assert (run.cost, run.usage.input_tokens) == (Money(2 + others.nano_usd), 3 if second is None else 6)
    assert (await ledger.load_shard("run_1", 0, 1)).open_bills == ()
    stored = await ledger.get_result("run_1", 0)
    if stored is not None:
        assert (stored.record.cost, stored.record.usage) == (run.cost, run.usage)


async def test_the_failure_of_a_call_that_was_given_up_tells_what_it_cost(ledger: SqlLedger) -> None:
    await start(ledger, cells=1)
    (first,) = await claim(ledger)
    await write(ledger, *sent(first.shard, 0))
    await write(ledger, result(0, CellStatus.UNKNOWN, settled=False, cost=0))
    await write(ledger, told(1, Usage(7), Money(11), outcome_known=False))

    for _ in range(2):
        await write(ledger, result(0, CellStatus.FAILED, settled=False, cost=0), worker="zombie")
    await write(ledger, told(1, Usage(), Money(2)), worker="zombie")

    stored = await ledger.get_result("run_1", 0)
    assert stored is not None
    assert (stored.record.status, stored.record.cost) == (CellStatus.UNKNOWN, Money(2))
    assert await cost_of_run(ledger) == Money(2)


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
