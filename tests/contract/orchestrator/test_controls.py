"""Cancel, pause, resume, retry and delete, in every state and in every order, on both databases."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.orchestrator.calls import Money
from services.orchestrator.ledger import CellAgain, Claim, DueRetry, Exhausted, ShardBack, ShardEnd, ShardKey
from services.orchestrator.outcomes import CellHistory
from services.orchestrator.records import EventKind, RunEvent
from services.orchestrator.states import ENDED, STOPPING, CellStatus, RunStatus, Step, follower, may
from services.orchestrator.store import ResultQuery, SqlLedger
from services.orchestrator.store.reopening import WINDOW_CELLS
from services.runtime.clock import ManualClock
from services.runtime.database import Database
from services.runtime.errors import NotFound, WrongState
from services.runtime.requests import RequestKey
from tests.support.ledger import LEASE_MS, NO_KEY, PROJECT, ask, claim, result, scores, sent, start, write

DONE, FAILED, UNKNOWN, CANCELLED = CellStatus.DONE, CellStatus.FAILED, CellStatus.UNKNOWN, CellStatus.CANCELLED
NEW_RUNS = count(1)


async def end_shard(ledger: SqlLedger, claimed: Claim, fates: dict[int, CellStatus], run_id: str = "run_1") -> None:
    """Give the cells of a range their results, where they have none, and give it back."""
    shard, cells = claimed.shard, range(claimed.shard.first_cell, claimed.shard.first_cell + claimed.cells)
    state = await ledger.load_shard(run_id, shard.first_cell, claimed.cells)
    for cell in sorted(set(cells) - state.finished):
        attempt = state.histories.get(cell, CellHistory()).next_attempt
        assert await write(ledger, *sent(shard, cell, attempt=attempt)) == [True]
        await write(ledger, result(cell, fates.get(cell, DONE), attempt=attempt, run_id=run_id))
    await write(ledger, *scores(*cells, run_id=run_id))
    assert await write(ledger, ShardEnd(shard, None)) == [True]


async def events_of(ledger: SqlLedger, run_id: str = "run_1") -> list[RunEvent]:
    return await ledger.read_events(run_id, 0, 10_000)


async def statuses_of(ledger: SqlLedger, run_id: str = "run_1") -> dict[int, CellStatus]:
    stored = await ledger.page_results(ResultQuery(run_id, limit=10_000))
    return {each.record.cell: each.record.status for each in stored}


async def test_of_a_paused_run_only_ranges_with_open_calls_are_taken_over_until_it_is_resumed(
    ledger: SqlLedger, clock: ManualClock
) -> None:
    await start(ledger)
    (first,) = await claim(ledger, "w1")
    (second,) = await claim(ledger, "w1", extend=["run_1"])
    await write(ledger, *sent(first.shard, 0))

    assert (await ask(ledger, Step.PAUSE)).status is RunStatus.PAUSED
    assert (await ledger.heartbeat("w1", LEASE_MS)).statuses == {"run_1": RunStatus.PAUSED}
    assert await write(ledger, ShardBack(second.shard), ShardBack(second.shard)) == [True, False]
    clock.advance(LEASE_MS / 1_000 + 1)

    (open_range,) = await claim(ledger, "w2", extend=["run_1"])
    assert (open_range.shard, open_range.inherited) == (ShardKey("run_1", 0, 2), True)
    # A call that was under way when its worker died may still come back.
    await write(ledger, result(0))
    assert await write(ledger, ShardBack(open_range.shard), worker="w2") == [True]
    assert await claim(ledger, "w2", extend=["run_1"]) == []
    assert (await ask(ledger, Step.RESUME)).delegation_id == "dlg_2"
    taken = await claim(ledger, "w2")
    assert [each.shard for each in taken[:2]] == [ShardKey("run_1", 0, 3), ShardKey("run_1", 4, 2)]
    assert [each.slots for each in taken] == [0, 0, 2]
    assert [event.kind for event in await events_of(ledger)][1:] == [
        EventKind.PAUSED,
        EventKind.RESULT,
        EventKind.PROGRESS,
        EventKind.RESUMED,
    ]


async def test_a_retry_claims_what_has_no_answer_and_keeps_the_books(ledger: SqlLedger) -> None:
    await start(ledger, cells=12)
    lost = {1: FAILED, 5: UNKNOWN, 6: FAILED}
    (claimed,) = await claim(ledger)
    await write(ledger, *sent(claimed.shard, 1))
    await write(ledger, CellAgain("run_1", 1, 1, "failed", "PROVIDER_ERROR", 0, cost=Money(2)))
    await end_shard(ledger, claimed, lost)
    for _ in range(2):
        await end_shard(ledger, (await claim(ledger))[0], lost)
    before = await ledger.get_run(PROJECT, "run_1")
    assert before.status is RunStatus.COMPLETED
    assert (before.statistics.done, before.statistics.failed, before.statistics.unknown) == (9, 2, 1)

    retried = await ask(ledger, Step.RETRY)
    (first,), (second,) = await claim(ledger), await claim(ledger, extend=["run_1"])
    state = await ledger.load_shard("run_1", 1, 4)

    assert (retried.status, retried.ended_us, retried.delegation_id) == (RunStatus.RUNNING, 0, "dlg_2")
    assert [(each.shard.first_cell, each.cells, each.inherited) for each in (first, second)] == [
        (1, 4, True),
        (6, 4, True),
    ]
    assert await claim(ledger, extend=["run_1"]) == []
    # Its three attempts are its to use again, under numbers that were never used.
    assert state.histories == {1: CellHistory(last=2, earlier=2)}
    assert state.finished == {2, 3, 4}
    assert state.retries == (DueRetry(1, 2, 0),) or state.retries == ()
    for each in (first, second):
        await end_shard(ledger, each, {6: FAILED})
    after = await ledger.get_run(PROJECT, "run_1")
    assert after.status is RunStatus.COMPLETED
    assert (after.statistics.done, after.statistics.failed, after.statistics.unknown) == (10, 1, 1)
    assert after.statistics.attempts_failed == 3
    assert after.statistics.cost == Money(before.statistics.cost.nano_usd + 5)
    stored = await ledger.get_result("run_1", 1)
    assert stored is not None
    assert (stored.record.attempt, stored.record.cost) == (3, Money(7))
    events = await events_of(ledger)
    assert [event.sequence for event in events] == list(range(1, after.last_sequence + 1))
    ends = [(event.kind, event.final) for event in events if event.kind in (EventKind.COMPLETED, EventKind.RETRIED)]
    assert ends == [(EventKind.COMPLETED, False), (EventKind.RETRIED, False), (EventKind.COMPLETED, True)]
    assert {event.result.cell: event.result.status for event in events if event.result}[6] is FAILED


async def test_unknown_cells_are_retried_on_demand_only(ledger: SqlLedger) -> None:
    await start(ledger, cells=2)
    await end_shard(ledger, (await claim(ledger))[0], {0: UNKNOWN})

    assert (await ask(ledger, Step.RETRY)).status is RunStatus.COMPLETED
    assert (await ask(ledger, Step.RETRY, unknown=True)).status is RunStatus.RUNNING
    (claimed,) = await claim(ledger)
    # The lost answer comes while its cell waits for another one.
    await write(ledger, result(0))
    state = await ledger.load_shard("run_1", 0, 2)

    assert state.finished == {0, 1}
    await end_shard(ledger, claimed, {})
    run = await ledger.get_run(PROJECT, "run_1")
    assert (run.status, run.statistics.done, run.statistics.attempts_failed) == (RunStatus.COMPLETED, 2, 0)
    assert run.statistics.cost == Money(10)


async def test_what_was_never_sent_can_be_retried_after_a_cancel(ledger: SqlLedger) -> None:
    await start(ledger, cells=WINDOW_CELLS + 4)
    (first,) = await claim(ledger)
    await write(ledger, *sent(first.shard, 0, 1))
    await ask(ledger, Step.CANCEL)
    await write(ledger, result(0), result(1, CANCELLED), *scores(0), ShardEnd(first.shard, None))
    assert await statuses_of(ledger) == {0: DONE, 1: CANCELLED}

    await ask(ledger, Step.RETRY)
    claims = [(await claim(ledger, extend=["run_1"], capacity=0))[0] for _ in range(2)]

    assert [(each.shard.first_cell, each.cells, each.inherited) for each in claims] == [(1, 3, True), (4, 4, False)]
    assert (await ask(ledger, Step.CANCEL)).status is RunStatus.CANCELLING


async def test_a_retry_whose_cells_have_their_answers_by_now_ends(ledger: SqlLedger) -> None:
    await start(ledger, cells=1)
    await end_shard(ledger, (await claim(ledger))[0], {0: UNKNOWN})
    await ask(ledger, Step.RETRY, unknown=True)
    await write(ledger, result(0))

    (late,) = await claim(ledger)
    await end_shard(ledger, late, {})
    assert await claim(ledger) == []

    assert (await ledger.get_run(PROJECT, "run_1")).status is RunStatus.COMPLETED


async def test_a_deleted_run_is_gone_and_its_rows_follow(ledger: SqlLedger) -> None:
    await start(ledger, cells=2)
    with pytest.raises(WrongState, match="cancel it"):
        await ask(ledger, Step.DELETE)
    await end_shard(ledger, (await claim(ledger))[0], {})
    key = RequestKey(PROJECT, "DeleteRun", "req-1")

    await ledger.delete_run(PROJECT, "run_1", key, b"payload")
    await ledger.delete_run(PROJECT, "run_1", key, b"payload")

    with pytest.raises(NotFound):
        await ledger.delete_run(PROJECT, "run_1", NO_KEY, b"")
    while await ledger.purge_some(2):
        pass
    assert await events_of(ledger) == []
    assert await statuses_of(ledger) == {}
    assert (await ledger.get_experiment(PROJECT, "exp_1")).cells == 2


async def test_a_repeated_request_answers_as_the_first_did(ledger: SqlLedger) -> None:
    await start(ledger)
    key = RequestKey(PROJECT, "PauseRun", "req-1")
    first = await ledger.pause_run(PROJECT, "run_1", key, b"", lambda run: run.status.value.encode())
    await ask(ledger, Step.RESUME)

    again = await ledger.pause_run(PROJECT, "run_1", key, b"", lambda run: run.status.value.encode())

    assert (first, again) == (b"paused", b"paused")
    assert (await ledger.get_run(PROJECT, "run_1")).status is RunStatus.RUNNING


@dataclass
class Story:
    """One run under requests in any order, with a worker by hand, beside what the state machine says of it."""

    ledger: SqlLedger
    run_id: str
    status: RunStatus | None = RunStatus.PENDING
    held: list[Claim] = field(default_factory=list)

    async def request(self, step: Step) -> None:
        """Ask; the answer is the one that the table gives."""
        lost = 0
        if self.status is not None:
            run = await self.ledger.get_run(PROJECT, self.run_id)
            lost = run.statistics.cells_total - run.statistics.done
        if self.status is None or not may(step, self.status):
            with pytest.raises(NotFound if self.status is None else WrongState):
                await ask(self.ledger, step, self.run_id, unknown=True)
            return
        after = (await ask(self.ledger, step, self.run_id, unknown=True)).status
        expected = follower(step, self.status)
        if step is Step.DELETE:
            self.status, self.held = None, []
            return
        if step is Step.RETRY and not lost:
            expected = self.status
        if step is Step.CANCEL and expected is RunStatus.CANCELLING and not self.held:
            expected = RunStatus.CANCELLED
        assert after is expected
        self.status = after

    async def take(self) -> None:
        """Claim a range."""
        claims = await claim(self.ledger, self.run_id, extend=[self.run_id])
        mine = [each for each in claims if each.shard.run_id == self.run_id]
        assert not mine or self.status in (RunStatus.PENDING, RunStatus.RUNNING, *STOPPING)
        self.held.extend(mine)
        await self.look()

    async def finish(self, fate: CellStatus) -> None:
        """End a range, all of its cells in one way; one of a run that stops as it is."""
        if not self.held or self.status is None:
            return
        claimed = self.held.pop()
        if self.status in STOPPING:
            assert await write(self.ledger, ShardEnd(claimed.shard, None), worker=self.run_id) == [True]
        elif self.status is RunStatus.PAUSED and fate is CANCELLED:
            assert await write(self.ledger, ShardBack(claimed.shard), worker=self.run_id) == [True]
        else:
            cells = range(claimed.shard.first_cell, claimed.shard.first_cell + claimed.cells)
            await self._end(claimed, dict.fromkeys(cells, FAILED if fate is CANCELLED else fate))
        await self.look()

    async def exhaust(self) -> None:
        """A worker finds that the run's money is spent."""
        if self.held:
            await write(self.ledger, Exhausted(self.run_id), worker=self.run_id)
        expected = RunStatus.EXHAUSTING if self.held and self.status is RunStatus.RUNNING else self.status
        await self.look()
        assert self.status is expected

    async def _end(self, claimed: Claim, fates: dict[int, CellStatus]) -> None:
        state = await self.ledger.load_shard(self.run_id, claimed.shard.first_cell, claimed.cells)
        for cell in sorted(set(fates) - state.finished):
            attempt = state.histories.get(cell, CellHistory()).next_attempt
            await write(self.ledger, *sent(claimed.shard, cell, attempt=attempt), worker=self.run_id)
            await write(self.ledger, result(cell, fates[cell], attempt=attempt, run_id=self.run_id), worker=self.run_id)
        await write(self.ledger, *scores(*fates, run_id=self.run_id), worker=self.run_id)
        assert await write(self.ledger, ShardEnd(claimed.shard, None), worker=self.run_id) == [True]

    async def look(self) -> None:
        """Where the run stands after a worker's step."""
        if self.status is not None:
            self.status = (await self.ledger.get_run(PROJECT, self.run_id)).status

    async def to_the_end(self) -> None:
        """Work everything off and check the books."""
        if self.status is None:
            return
        if self.status is RunStatus.PAUSED:
            await self.request(Step.RESUME)
        for _ in range(20):
            await self.take()
            while self.held:
                await self.finish(DONE)
            if self.status in ENDED:
                break
        run = await self.ledger.get_run(PROJECT, self.run_id)
        assert run.status in ENDED
        statistics, found = run.statistics, await statuses_of(self.ledger, self.run_id)
        counts = [statistics.done, statistics.failed, statistics.unknown, statistics.cancelled]
        assert counts == [list(found.values()).count(each) for each in (DONE, FAILED, UNKNOWN, CANCELLED)]
        assert run.status in (RunStatus.CANCELLED, RunStatus.EXHAUSTED) or sum(counts) == statistics.cells_total
        assert statistics.scored == statistics.done
        assert statistics.cost == Money(5 * statistics.done)
        events = await events_of(self.ledger, self.run_id)
        assert [event.sequence for event in events] == list(range(1, run.last_sequence + 1))
        assert [event.sequence for event in events if event.final] == [run.last_sequence]


REQUESTS = st.sampled_from([Step.CANCEL, Step.PAUSE, Step.RESUME, Step.RETRY, Step.RETRY, Step.DELETE])
WORK = st.sampled_from(["take", "take", "exhaust", DONE, DONE, FAILED, UNKNOWN, CANCELLED])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.one_of(REQUESTS, WORK, WORK), min_size=1, max_size=14))
async def test_every_order_gives_the_documented_answers(
    steps: list[Step | CellStatus | str], ledger: SqlLedger, database: Database
) -> None:
    story = Story(ledger, f"run_{next(NEW_RUNS)}")
    await start(ledger, story.run_id, cells=10)
    for step in steps:
        if isinstance(step, Step):
            await story.request(step)
        elif isinstance(step, CellStatus):
            await story.finish(step)
        else:
            await (story.exhaust() if step == "exhaust" else story.take())
    await story.to_the_end()
    # The next story begins without this one's runs.
    if story.status is not None:
        await ask(ledger, Step.DELETE, story.run_id)


@pytest.mark.parametrize("step", [Step.CANCEL, Step.PAUSE, Step.RESUME, Step.RETRY, Step.DELETE])
async def test_other_tenants_runs_are_not_found(step: Step, ledger: SqlLedger) -> None:
    await start(ledger)

    with pytest.raises(NotFound):
        await ask(ledger, step, project_id="prj_2")
