"""Who gets cells and slots, on SQLite and on PostgreSQL: shares of runs, reused runs, ranges of paused ones."""

from __future__ import annotations

import asyncio

from services.orchestrator.ledger import Claim, ClaimRequest, ShardEnd
from services.orchestrator.states import CellStatus, Step
from services.orchestrator.store import SqlLedger
from tests.support.ledger import ask, claim, result, sent, start, write


async def test_a_run_of_the_same_content_is_reused_while_it_goes_on_or_is_completed(ledger: SqlLedger) -> None:
    await start(ledger, "run_1", cells=4)
    first = await asyncio.gather(*(start(ledger, f"run_{n}", cells=4, concurrency=9, reuse=True) for n in range(2, 6)))
    (run_id,) = set(first)
    assert run_id != "run_1"  # its limits are others

    assert await start(ledger, "run_6", cells=4, concurrency=9, experiment_id="exp_2", reuse=True) == run_id
    assert (
        await start(ledger, "run_7", cells=4, concurrency=9, project_id="prj_2", experiment_id="exp_3", reuse=True)
        == "run_7"
    )
    assert await start(ledger, "run_8", cells=4, concurrency=9) == "run_8"
    assert await start(ledger, "run_9", cells=4, concurrency=9, reuse=True) == "run_8"

    await ask(ledger, Step.CANCEL, "run_8")
    assert await start(ledger, "run_9", cells=4, concurrency=9, reuse=True) == run_id


async def test_slots_that_are_given_back_go_to_others(ledger: SqlLedger) -> None:
    await start(ledger, cells=12, concurrency=8)
    (first,) = await claim(ledger, "w1", capacity=6)
    (second,) = await claim(ledger, "w1", extend=["run_1"], capacity=0)
    await write(ledger, *sent(first.shard, *range(4)))
    await write(ledger, *(result(cell, CellStatus.FAILED) for cell in range(4)))
    await start(ledger, "run_2", cells=12, concurrency=8)

    assert await write(ledger, ShardEnd(first.shard, second.shard.first_cell, back=2)) == [True]

    # Eight may be under way: two of its six were handed back, two had not been granted.
    (more,) = await claim(ledger, "w2", capacity=8)
    assert (more.shard.run_id, more.slots) == ("run_2", 8)
    (rest,) = await claim(ledger, "w2", capacity=8)
    assert (rest.shard.run_id, rest.slots) == ("run_1", 4)


async def test_the_reserve_is_for_runs_without_slots(ledger: SqlLedger) -> None:
    async def reserve() -> list[Claim]:
        return await ledger.claim(ClaimRequest("w1", 0, (), 4, grant_max=64, takeovers_max=16, reserved=32))

    await start(ledger, "run_1", cells=400, concurrency=100)
    await claim(ledger, capacity=10)
    assert await reserve() == []
    await start(ledger, "run_2", cells=400, concurrency=100)
    await start(ledger, "run_3", cells=3, concurrency=100)

    found = [*await reserve(), *await reserve()]

    # Half of it, and no more than there are cells.
    assert [(each.shard.run_id, each.slots) for each in found] == [("run_2", 16), ("run_3", 3)]
    assert await reserve() == []
