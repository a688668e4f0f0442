"""The ledger on SQLite and on PostgreSQL: claims, commits, crashes, late deliveries, ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from sqlalchemy import Connection, update

from services.orchestrator.calls import Money, Timing, Usage
from services.orchestrator.ledger import (
    CellAgain,
    CellScores,
    ClaimRequest,
    DueRetry,
    ShardEnd,
    ShardKey,
)
from services.orchestrator.outcomes import CellHistory
from services.orchestrator.records import EventKind, ExperimentRecord, RunEvent, Statistics
from services.orchestrator.states import CellStatus, RunStatus, Step
from services.orchestrator.store import Bodies, ResultOrder, ResultQuery, SqlLedger
from services.orchestrator.store.claims import CANDIDATES_MAX
from services.orchestrator.store.runs import insert_run
from services.orchestrator.store.tables import metadata, run_progress
from services.runtime.clock import ManualClock
from services.runtime.database import Database
from services.runtime.errors import AlreadyExists, NotFound, WrongState
from services.runtime.requests import RequestKey
from tests.support.databases import schema_differences
from tests.support.ledger import LEASE_MS, NO_KEY, PROJECT, ask, claim, result, scores, sent, start, write


def experiment(experiment_id: str = "exp_1", spec_hash: str = "hash") -> ExperimentRecord:
    return ExperimentRecord(experiment_id, PROJECT, "a study", "", spec_hash, 10, 1, 1)


async def all_events(ledger: SqlLedger, run_id: str = "run_1") -> list[RunEvent]:
    return await ledger.read_events(run_id, 0, 10_000)


async def complete(ledger: SqlLedger, run_id: str = "run_1", worker: str = "w1") -> None:
    """Work the whole run off."""
    claims = await claim(ledger, worker)
    while claims:
        for each in claims:
            cells = range(each.shard.first_cell, each.shard.first_cell + each.cells)
            await write(ledger, *sent(each.shard, *cells), worker=worker)
            await write(ledger, *(result(cell, run_id=run_id) for cell in cells), worker=worker)
            await write(ledger, *scores(*cells, run_id=run_id), worker=worker)
            assert await write(ledger, ShardEnd(each.shard, None), worker=worker) == [True]
        claims = await claim(ledger, worker)


async def test_migrations_equal_the_tables(database: Database) -> None:
    assert await schema_differences(database, metadata) == []


async def test_a_run_from_start_to_end(ledger: SqlLedger) -> None:
    await start(ledger)
    assert (await ledger.get_run(PROJECT, "run_1")).status is RunStatus.PENDING

    await complete(ledger)

    run = await ledger.get_run(PROJECT, "run_1")
    assert run.status is RunStatus.COMPLETED
    assert run.statistics == Statistics(
        cells_total=10, done=10, scored=10, usage=Usage(30, output_tokens=20), cost=Money(50), latency_sum_us=10_000
    )
    events = await all_events(ledger)
    assert [event.sequence for event in events] == list(range(1, run.last_sequence + 1))
    assert events[0].kind is EventKind.STARTED
    assert events[-1].kind is EventKind.COMPLETED
    assert events[-1].statistics == run.statistics
    assert sorted(event.result.cell for event in events if event.result) == list(range(10))
    assert await claim(ledger) == []


async def test_events_can_be_read_from_any_sequence_in_any_page(ledger: SqlLedger) -> None:
    await start(ledger)
    await complete(ledger)
    events = await all_events(ledger)

    for after in range(len(events) + 1):
        assert await ledger.read_events("run_1", after, 3) == events[after : after + 3]


async def test_claims_never_grant_more_than_the_concurrency(ledger: SqlLedger) -> None:
    await start(ledger, cells=40, concurrency=6)

    first = await claim(ledger, "w1", capacity=5)
    second = await claim(ledger, "w2")
    third = await claim(ledger, "w3")
    more = await claim(ledger, "w1", extend=["run_1"], capacity=0)

    assert [each.slots for each in (*first, *second)] == [5, 1]
    assert third == []
    assert [(each.slots, each.shard.first_cell) for each in more] == [(0, 8)]


async def test_slots_pass_to_the_heir_or_come_free(ledger: SqlLedger) -> None:
    await start(ledger, cells=8, concurrency=6)
    (first,) = await claim(ledger, "w1")
    (second,) = await claim(ledger, "w1", extend=["run_1"])
    for shard, heir in ((first.shard, second.shard.first_cell), (second.shard, None)):
        cells = range(shard.first_cell, shard.first_cell + 4)
        await write(ledger, *sent(shard, *cells))
        await write(ledger, *(result(cell, CellStatus.FAILED) for cell in cells))
        assert await write(ledger, ShardEnd(shard, heir)) == [True]

    assert (first.slots, second.slots) == (6, 0)
    assert (await ledger.get_run(PROJECT, "run_1")).status is RunStatus.FAILED


async def test_the_least_served_tenant_is_claimed_first(ledger: SqlLedger) -> None:
    await start(ledger, "run_1", cells=100, concurrency=64)
    await start(ledger, "run_2", cells=100, concurrency=64, project_id="prj_2", experiment_id="exp_2")
    await claim(ledger, capacity=10)

    (second,) = await claim(ledger, capacity=10)

    assert second.shard.run_id == "run_2"


async def test_claims_that_find_nothing_write_nothing(
    ledger: SqlLedger, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ClaimRequest("w1", 100, (), shard_cells=4, grant_max=64, takeovers_max=16)
    await start(ledger, cells=4, concurrency=2)
    await start(ledger, "run_2", cells=100, concurrency=2)
    first = [await claim(ledger), await claim(ledger)]

    async def refuse(*_: object) -> None:
        pytest.fail("an idle worker writes")

    monkeypatch.setattr(database, "write", refuse)

    assert [each.shard.run_id for claims in first for each in claims] == ["run_1", "run_2"]
    # All cells of the first run are claimed, all slots of the second granted, and nobody has died.
    assert await ledger.claim(request) == []
    assert await ledger.take_bills(1_000, 1_000, limit=10) == []
    assert await ledger.purge_some(100) is False


async def test_runs_with_nothing_to_claim_do_not_hide_others(ledger: SqlLedger, database: Database) -> None:
    await start(ledger, "run_0", cells=4)
    record = await ledger.get_run(PROJECT, "run_0")

    def claimed(connection: Connection) -> None:
        for number in range(CANDIDATES_MAX):
            insert_run(connection, replace(record, run_id=f"run_1{number}"))
        connection.execute(update(run_progress).values(next_cell=4))

    await database.write(claimed)
    await start(ledger, "run_2", cells=4, project_id="prj_2", experiment_id="exp_2")

    assert [each.shard.run_id for each in await claim(ledger)] == ["run_2"]


async def test_a_dead_workers_ranges_are_taken_over_with_their_history(ledger: SqlLedger, clock: ManualClock) -> None:
    await start(ledger)
    (first,) = await claim(ledger, "w1")
    await write(ledger, *sent(first.shard, 0, 1, 2))
    await write(ledger, result(0), CellAgain("run_1", 1, 1, "failed", "PROVIDER_ERROR", 99, cost=Money(2)))
    assert [each.inherited for each in await claim(ledger, "w2", capacity=0)] == []

    clock.advance(LEASE_MS / 1_000 + 1)
    (taken,) = await claim(ledger, "w2", capacity=0)
    state = await ledger.load_shard("run_1", taken.shard.first_cell, taken.cells)

    assert taken.inherited
    assert taken.shard == ShardKey("run_1", 0, 2)
    assert (taken.slots, taken.cells) == (first.slots, 4)
    assert state.finished == {0}
    assert state.unscored == (0,)
    assert [(call.cell, call.attempt) for call in state.in_flight] == [(2, 1)]
    assert state.retries == (DueRetry(1, 2, 99),)
    assert state.histories == {1: CellHistory(1, last=1)}
    assert [answer.body for answer in await ledger.stored_answers("run_1", [0])] == [b"answer"]


async def test_a_worker_that_lost_its_range_can_send_nothing(ledger: SqlLedger) -> None:
    await start(ledger)
    (first,) = await claim(ledger, "w1")
    await ledger.forget_workers(["w1"])
    (taken,) = await claim(ledger, "w2", capacity=0)

    assert await write(ledger, *sent(first.shard, 0, 1), worker="w1") == [False, False]
    assert await write(ledger, *sent(taken.shard, 0, 1), worker="w2") == [True, True]
    assert await write(ledger, ShardEnd(first.shard, None), worker="w1") == [False]
    pulse = await ledger.heartbeat("w1", LEASE_MS)
    assert pulse.held == ()
    assert (await ledger.heartbeat("w2", LEASE_MS)).held == (taken,)


async def test_a_number_that_was_used_is_not_used_again(ledger: SqlLedger) -> None:
    await start(ledger)
    (first,) = await claim(ledger, "w1")
    for attempt in (1, 3):
        assert await write(ledger, *sent(first.shard, 0, attempt=attempt)) == [True]
        await write(ledger, CellAgain("run_1", 0, attempt, "unsent", "", 0))

    state = await ledger.load_shard("run_1", 0, 4)

    assert state.histories[0].next_attempt == 4
    assert await write(ledger, *sent(first.shard, 0, attempt=3)) == [False]
    assert await write(ledger, *sent(first.shard, 0, attempt=4)) == [True]


async def test_a_stopping_worker_hands_its_ranges_back(ledger: SqlLedger) -> None:
    await start(ledger)
    (first,) = await claim(ledger, "w1")

    await ledger.release("w1")
    (taken, *_) = await claim(ledger, "w2", capacity=0)

    assert taken.shard.fence == first.shard.fence + 1
    assert taken.slots == 0
    assert await ledger.grant_slots(taken.shard, "w2", 64) == 4
    assert await ledger.grant_slots(taken.shard, "w2", 64) == 0


async def test_a_late_answer_replaces_an_unknown_result_and_leaves_no_gap(ledger: SqlLedger) -> None:
    await start(ledger, cells=4)
    (first,) = await claim(ledger, "w1")
    await write(ledger, *sent(first.shard, 0, 1, 2, 3))
    await write(ledger, result(0, CellStatus.UNKNOWN), result(1))
    before = await all_events(ledger)

    await write(ledger, result(0), worker="zombie")
    await write(ledger, result(0), worker="zombie")

    run = await ledger.get_run(PROJECT, "run_1")
    stored = await ledger.page_results(ResultQuery("run_1", bodies=Bodies.ALL))
    after = await all_events(ledger)
    assert [(each.record.cell, each.record.status, each.bodies.answer) for each in stored] == [
        (0, CellStatus.DONE, b"answer"),
        (1, CellStatus.DONE, b"answer"),
    ]
    assert (run.statistics.done, run.statistics.unknown) == (2, 0)
    assert run.statistics.cost == Money(10)
    assert after[: len(before)] == before
    assert [event.sequence for event in after] == list(range(1, run.last_sequence + 1))
    assert [event.result.status for event in after if event.result and event.result.cell == 0] == [
        CellStatus.UNKNOWN,
        CellStatus.DONE,
    ]


async def test_a_late_answer_to_a_finished_range_is_scored_before_the_run_ends(ledger: SqlLedger) -> None:
    await start(ledger, cells=8)
    (first,) = await claim(ledger, "w1")
    (second,) = await claim(ledger, "w1", extend=["run_1"])
    await write(ledger, *sent(first.shard, 0, 1, 2, 3), *sent(second.shard, 4, 5, 6, 7))
    await write(ledger, *(result(cell, CellStatus.UNKNOWN) for cell in range(8)))
    assert await write(ledger, ShardEnd(first.shard, None)) == [True]

    await write(ledger, result(2), worker="zombie")
    assert await write(ledger, ShardEnd(second.shard, None)) == [True]
    (reopened,) = await claim(ledger, "w1")

    assert (reopened.shard.first_cell, reopened.cells, reopened.inherited) == (2, 1, True)
    assert (await ledger.get_run(PROJECT, "run_1")).status is RunStatus.RUNNING
    await write(ledger, *scores(2))
    assert await write(ledger, ShardEnd(reopened.shard, None)) == [True]
    assert (await ledger.get_run(PROJECT, "run_1")).status is RunStatus.COMPLETED


async def test_a_late_answer_to_an_ended_run_is_kept_without_a_further_event(ledger: SqlLedger) -> None:
    await start(ledger, cells=1)
    (first,) = await claim(ledger, "w1")
    await write(ledger, *sent(first.shard, 0))
    await write(ledger, result(0, CellStatus.UNKNOWN))
    await write(ledger, ShardEnd(first.shard, None))
    ended = await ledger.get_run(PROJECT, "run_1")

    await write(ledger, result(0), worker="zombie")

    run = await ledger.get_run(PROJECT, "run_1")
    assert ended.status is run.status is RunStatus.FAILED
    assert run.last_sequence == ended.last_sequence
    assert (run.statistics.done, run.statistics.cost) == (1, Money(5))
    assert (await ledger.get_result("run_1", 0)).record.status is CellStatus.DONE  # type: ignore[union-attr]


async def test_every_call_has_one_record_when_an_earlier_attempt_comes_back(ledger: SqlLedger) -> None:
    await start(ledger, cells=1)
    (first,) = await claim(ledger, "w1")
    await write(ledger, *sent(first.shard, 0))
    await write(ledger, CellAgain("run_1", 0, 1, "unknown", "", 0, cost=Money(3)))
    await write(ledger, *sent(first.shard, 0, attempt=2))

    await write(ledger, result(0, attempt=1), worker="zombie")
    await write(ledger, result(0, attempt=2, cost=7))

    run = await ledger.get_run(PROJECT, "run_1")
    stored = await ledger.get_result("run_1", 0)
    assert stored is not None
    assert (stored.record.attempt, stored.record.cost) == (1, Money(12))
    assert run.statistics.cost == Money(12)
    assert run.statistics.done == 1
    state = await ledger.load_shard("run_1", 0, 1)
    assert state.in_flight == ()
    assert state.histories == {0: CellHistory(1, last=2)}


async def test_a_late_answer_includes_the_bill_of_attempts_made_since(ledger: SqlLedger) -> None:
    await start(ledger, cells=1)
    (first,) = await claim(ledger, "w1")
    for attempt in (1, 2):
        await write(ledger, *sent(first.shard, 0, attempt=attempt))
        await write(ledger, CellAgain("run_1", 0, attempt, "unknown", "", 0, cost=Money(3)))

    await write(ledger, result(0, attempt=1), worker="zombie")

    stored = await ledger.get_result("run_1", 0)
    assert stored is not None
    assert stored.record.cost == (await ledger.get_run(PROJECT, "run_1")).statistics.cost == Money(8)


async def test_results_include_the_bill_of_earlier_attempts(ledger: SqlLedger) -> None:
    await start(ledger, cells=1)
    (first,) = await claim(ledger, "w1")
    await write(ledger, *sent(first.shard, 0))
    await write(ledger, CellAgain("run_1", 0, 1, "failed", "PROVIDER_ERROR", 5, usage=Usage(10), cost=Money(3)))
    await write(ledger, *sent(first.shard, 0, attempt=2))
    assert (await ledger.load_shard("run_1", 0, 1)).retries == ()

    await write(ledger, result(0, attempt=2))

    stored = await ledger.get_result("run_1", 0)
    assert stored is not None
    assert (stored.record.usage.input_tokens, stored.record.cost) == (13, Money(8))
    statistics = (await ledger.get_run(PROJECT, "run_1")).statistics
    assert (statistics.usage.input_tokens, statistics.cost, statistics.attempts_failed) == (13, Money(8), 1)


async def test_a_range_does_not_end_before_everything_about_it_is_known(ledger: SqlLedger) -> None:
    await start(ledger, cells=2)
    (first,) = await claim(ledger, "w1")
    end = ShardEnd(first.shard, None)
    assert await write(ledger, end) == [False]
    await write(ledger, *sent(first.shard, 0, 1))
    await write(ledger, result(0, settled=False), result(1, CellStatus.FAILED))
    assert await write(ledger, end) == [False]
    await write(ledger, *scores(0))
    assert await write(ledger, end) == [True]
    assert (await ledger.get_run(PROJECT, "run_1")).status is RunStatus.COMPLETED


async def test_scores_count_once(ledger: SqlLedger) -> None:
    await start(ledger, cells=2)
    (first,) = await claim(ledger, "w1")
    await write(ledger, *sent(first.shard, 0, 1))
    await write(ledger, result(0), result(1, CellStatus.FAILED))

    await write(ledger, *scores(0, 0, 1))
    await write(ledger, *scores(0))

    assert (await ledger.get_run(PROJECT, "run_1")).statistics.scored == 1


async def test_cancel_ends_at_once_where_nobody_works_and_waits_for_calls_otherwise(ledger: SqlLedger) -> None:
    await start(ledger, "run_1")
    await start(ledger, "run_2")
    assert (await ask(ledger, Step.CANCEL, "run_2")).status is RunStatus.CANCELLED

    (first,) = await claim(ledger, "w1")
    await write(ledger, *sent(first.shard, 0, 1))
    assert (await ask(ledger, Step.CANCEL, "run_1")).status is RunStatus.CANCELLING
    assert await claim(ledger, "w2") == []
    assert (await ledger.heartbeat("w1", LEASE_MS)).statuses == {"run_1": RunStatus.CANCELLING}
    assert await write(ledger, ShardEnd(first.shard, None)) == [False]
    await write(ledger, result(0), result(1, CellStatus.CANCELLED))
    assert await write(ledger, ShardEnd(first.shard, None)) == [True]

    run = await ask(ledger, Step.CANCEL, "run_1")
    assert run.status is RunStatus.CANCELLED
    assert (run.statistics.done, run.statistics.cancelled) == (1, 1)
    events = await all_events(ledger)
    assert events[-1].kind is EventKind.CANCELLED
    assert len(events) == run.last_sequence


async def test_several_runs_share_one_transaction(ledger: SqlLedger) -> None:
    await start(ledger, "run_1", cells=1)
    await start(ledger, "run_2", cells=1)
    (first,) = await claim(ledger)
    (second,) = await claim(ledger)

    answers = await ledger.commit("w1", [sent(first.shard, 0), sent(second.shard, 0), sent(ShardKey("run_9", 0, 1), 0)])
    await ledger.commit("w1", [[result(0)], [result(0, run_id="run_2")], [result(0, run_id="run_9")]])

    assert answers == [[True], [True], [False]]
    for run_id in ("run_1", "run_2"):
        assert (await ledger.get_run(PROJECT, run_id)).statistics.done == 1


async def test_results_page_by_cell_with_filters(ledger: SqlLedger) -> None:
    await start(ledger, cells=4)
    (first,) = await claim(ledger)
    await write(ledger, *sent(first.shard, 0, 1, 2, 3))
    await write(ledger, result(3), result(1, CellStatus.FAILED), result(0)._replace(model=1))
    marker = await ledger.last_sequence("run_1")
    await write(ledger, result(2))

    async def cells(query: ResultQuery) -> list[int]:
        return [stored.record.cell for stored in await ledger.page_results(query)]

    assert await cells(ResultQuery("run_1", limit=2)) == [0, 1]
    assert await cells(ResultQuery("run_1", after=(1,))) == [2, 3]
    assert await cells(ResultQuery("run_1", statuses=[CellStatus.FAILED])) == [1]
    assert await cells(ResultQuery("run_1", models=[1])) == [0]
    assert await cells(ResultQuery("run_1", sequence_max=marker)) == [0, 1, 3]
    assert await ledger.get_result("run_1", 9) is None
    assert await cells(ResultQuery("run_1", cells=[(0, 0), (2, 3)])) == [0, 2, 3]
    assert await cells(ResultQuery("run_1", error_reasons=["NONE_SUCH"])) == []


async def test_results_page_in_every_order_without_gap_or_repeat(ledger: SqlLedger) -> None:
    await start(ledger, cells=6)
    (first,) = await claim(ledger)
    await write(ledger, *sent(first.shard, *range(6)))
    for cell, latency, cost in ((3, 30, 7), (1, 10, 9), (0, 30, 9), (2, 20, 8), (5, 20, 7)):
        await write(ledger, result(cell)._replace(timing=Timing(latency_us=latency), cost=Money(cost)))
    await write(
        ledger, result(4, CellStatus.FAILED)._replace(timing=Timing(), cost=Money(1), error_reason="PROVIDER_ERROR")
    )
    merits = {3: 0.1, 1: -2.5, 0: 0.3, 2: 0.1, 5: None}
    await write(ledger, *(CellScores("run_1", cell, b"scores", b"brands", merit) for cell, merit in merits.items()))
    expected = {
        ResultOrder.CELL: [0, 1, 2, 3, 4, 5],
        ResultOrder.OLDEST_FIRST: [3, 1, 0, 2, 5, 4],
        ResultOrder.NEWEST_FIRST: [4, 5, 2, 0, 1, 3],
        ResultOrder.FASTEST_FIRST: [1, 2, 5, 0, 3],
        ResultOrder.SLOWEST_FIRST: [3, 0, 5, 2, 1],
        ResultOrder.CHEAPEST_FIRST: [4, 3, 5, 2, 0, 1],
        ResultOrder.DEAREST_FIRST: [1, 0, 2, 5, 3, 4],
        ResultOrder.BEST_FIRST: [0, 3, 2, 1],
        ResultOrder.WORST_FIRST: [1, 2, 3, 0],
    }
    assert expected.keys() == set(ResultOrder)
    for order, cells in expected.items():
        for limit in (1, 2, 6):
            query, seen = ResultQuery("run_1", order=order, limit=limit), []
            while page := await ledger.page_results(query):
                seen += [stored.record.cell for stored in page]
                query = query.behind(page[-1])
            assert seen == cells, (order, limit)
    (failed,) = await ledger.page_results(ResultQuery("run_1", error_reasons=["PROVIDER_ERROR"]))
    assert failed.record.cell == 4


async def test_a_results_earlier_attempts_are_read_with_their_times(ledger: SqlLedger, clock: ManualClock) -> None:
    await start(ledger, cells=1)
    (first,) = await claim(ledger)
    await write(ledger, *sent(first.shard, 0))
    await write(ledger, CellAgain("run_1", 0, 1, "failed", "RATE_LIMITED", 0))
    ((attempt, at_us),) = await ledger.attempts_of("run_1", 0)
    assert (attempt.attempt, attempt.outcome, attempt.reason) == (1, "failed", "RATE_LIMITED")
    assert at_us > 0


async def test_tenants_do_not_see_each_other(ledger: SqlLedger) -> None:
    await start(ledger)

    with pytest.raises(NotFound):
        await ledger.get_run("prj_2", "run_1")
    with pytest.raises(NotFound):
        await ledger.get_experiment("prj_2", "exp_1")
    with pytest.raises(NotFound):
        await ask(ledger, Step.CANCEL, project_id="prj_2")
    with pytest.raises(NotFound):
        await ledger.delete_experiment("prj_2", "exp_1", NO_KEY, b"")
    assert await ledger.list_runs("prj_2", "", (), "", 10) == []
    assert await ledger.list_experiments("prj_2", "", 10) == []


async def test_lists_are_newest_first_and_page_by_id(ledger: SqlLedger) -> None:
    for number in range(3):
        await start(ledger, f"run_{number}")
    await ask(ledger, Step.CANCEL, "run_1")

    async def ids(statuses: Sequence[RunStatus] = (), before: str = "", limit: int = 10) -> list[str]:
        return [run.run_id for run in await ledger.list_runs(PROJECT, "exp_1", statuses, before, limit)]

    assert await ids() == ["run_2", "run_1", "run_0"]
    assert await ids(before="run_2", limit=1) == ["run_1"]
    assert await ids([RunStatus.CANCELLED]) == ["run_1"]


async def test_deleting_an_experiment_takes_everything_with_it(ledger: SqlLedger) -> None:
    await start(ledger)
    with pytest.raises(WrongState, match="run_1"):
        await ledger.delete_experiment(PROJECT, "exp_1", NO_KEY, b"")
    await complete(ledger)

    await ledger.delete_experiment(PROJECT, "exp_1", NO_KEY, b"")
    rounds = 0
    while await ledger.purge_some(3):
        rounds += 1

    assert rounds > 3
    assert await all_events(ledger) == []
    assert await ledger.page_results(ResultQuery("run_1")) == []
    with pytest.raises(NotFound):
        await ledger.get_run(PROJECT, "run_1")
    assert await write(ledger, result(0)) == [False]


async def test_a_repeated_request_gets_the_first_answer(ledger: SqlLedger) -> None:
    key = RequestKey(PROJECT, "CreateExperiment", "req-1")
    assert await ledger.recall(key, b"payload") is None

    first = await ledger.create_experiment(
        experiment("exp_1"), b"{}", key=key, payload=b"payload", answer=lambda _: b"one"
    )
    again = await ledger.create_experiment(
        experiment("exp_2"), b"{}", key=key, payload=b"payload", answer=lambda _: b"two"
    )

    assert first == again == await ledger.recall(key, b"payload") == b"one"
    assert len(await ledger.list_experiments(PROJECT, "", 10)) == 1
    with pytest.raises(AlreadyExists):
        await ledger.recall(key, b"other")


async def test_a_spec_stays_as_long_as_anything_uses_it(ledger: SqlLedger) -> None:
    await start(ledger)
    await complete(ledger)

    def renamed(record: ExperimentRecord) -> ExperimentRecord:
        return experiment(record.experiment_id, "new")

    await ledger.update_experiment(
        PROJECT, "exp_1", renamed, b"new spec", key=NO_KEY, payload=b"", answer=lambda _: b""
    )

    assert await ledger.get_spec(PROJECT, "hash") == b"{}"
    assert await ledger.get_spec(PROJECT, "new") == b"new spec"
    loaded = await ledger.load_run("run_1")
    assert loaded is not None
    assert loaded.encoded_spec == b"{}"
    assert await ledger.load_run("run_9") is None


async def test_a_worker_whose_lease_is_over_claims_nothing(ledger: SqlLedger, clock: ManualClock) -> None:
    await start(ledger)
    (first,) = await claim(ledger)
    clock.advance(LEASE_MS / 1_000 + 1)

    # Its own range looks like an orphan's.
    assert await ledger.claim(ClaimRequest("w1", 100, ("run_1",), 4, grant_max=64, takeovers_max=16)) == []

    assert [each.shard.first_cell for each in await claim(ledger, extend=["run_1"])] == [4]
    assert next(each.shard for each in (await ledger.heartbeat("w1", LEASE_MS)).held) == first.shard
