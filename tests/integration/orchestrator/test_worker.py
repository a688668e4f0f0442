"""Workers on a real ledger in a scripted world: everything that can happen to a cell."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest

from llmlab.api.metrics.v1.metrics_pb2 import SampleScores
from services.orchestrator.calls import Answer, AttemptState, CallId, Failure, Money, PlannedCall
from services.orchestrator.experiment import ScorerTarget
from services.orchestrator.ledger import Claim, ClaimRequest
from services.orchestrator.limits import RunLimits
from services.orchestrator.states import CellStatus, RunStatus, Step
from services.orchestrator.topics import WORK_TOPIC
from services.orchestrator.worker import Worker
from services.runtime.errors import DomainError, InvalidField
from services.runtime.failpoints import arm
from services.runtime.liveness import Hold, Liveness, liveness_of
from tests.support.ledger import ask
from tests.support.orchestrator import (
    USAGE,
    answer,
    eventually,
    failure,
    study,
)
from tests.support.orchestrator_lab import POLICY, Lab, assert_whole


async def test_a_run_goes_from_start_to_end(lab: Lab) -> None:
    async with lab.worker():
        cells = await lab.start(study(rows=20, repeats=2))
        run = await lab.ended()
        await eventually(lambda: lab.identity.revoked)

    results = await lab.results()
    assert run.status is RunStatus.COMPLETED
    assert (run.statistics.done, run.statistics.scored) == (cells, cells)
    assert run.statistics.cost.nano_usd == 5 * cells
    assert all(stored.bodies.answer and stored.bodies.scores for stored in results)
    assert_whole(run, results, lab.world)
    assert lab.world.most_under_way <= 8
    events = await lab.ledger.read_events("run_1", 0, 10_000)
    assert [event.sequence for event in events] == list(range(1, run.last_sequence + 1))


async def test_a_failed_call_is_tried_again_and_then_given_up(lab: Lab) -> None:
    def script(call: PlannedCall) -> Answer | Failure:
        cell, attempt = (int(part) for part in call.call_id.split("/")[1:])
        if cell == 0 or (cell == 1 and attempt < 3):
            return failure()
        if cell == 2:
            return failure("CONTENT_POLICY", retryable=False)
        if cell == 3 and attempt < 5:
            # A provider that names no time is left alone for seconds.
            return failure("RATE_LIMITED", dispatched=False)._replace(retry_after_ms=1)
        return answer()

    lab.world.script = script
    async with lab.worker():
        await lab.start(study(rows=2))
        run = await lab.ended()

    results = await lab.results()
    assert [(stored.record.status, stored.record.attempts) for stored in results[:4]] == [
        (CellStatus.FAILED, 3),
        (CellStatus.DONE, 3),
        (CellStatus.FAILED, 1),
        (CellStatus.DONE, 1),
    ]
    assert (run.statistics.failed, run.statistics.attempts_failed) == (2, 4)
    assert_whole(run, results, lab.world)


async def test_a_run_without_a_single_answer_fails_and_says_why(lab: Lab) -> None:
    lab.world.script = lambda call: failure("BUDGET_EXCEEDED", retryable=False, dispatched=False)
    async with lab.worker():
        await lab.start(study(rows=1))
        run = await lab.ended()

    assert run.status is RunStatus.FAILED
    assert "BUDGET_EXCEEDED" in run.failure
    assert not lab.world.dispatched


async def test_a_stream_that_breaks_loses_no_cell_and_pays_none_twice(lab: Lab) -> None:
    lab.world.cut_after = 3
    async with lab.worker():
        await lab.start(study(rows=4))
        await lab.until(lambda run: run.statistics.unknown > 0)
        lab.world.cut_after = None
        run = await lab.ended()

    results = await lab.results()
    assert run.status is RunStatus.COMPLETED
    assert_whole(run, results, lab.world)
    assert all(stored.record.cost.nano_usd == 5 for stored in results)


async def test_a_gateway_that_is_down_is_waited_for(lab: Lab) -> None:
    lab.world.gateway_down = True
    async with lab.worker():
        cells = await lab.start(study(rows=4))
        await eventually(lambda: lab.world.holds)
        lab.world.gateway_down = False
        run = await lab.ended()

    assert run.statistics.done == cells
    assert AttemptState.TOMBSTONED in lab.world.holds.values()
    assert_whole(run, await lab.results(), lab.world)


async def test_unknown_calls_are_made_again_when_the_run_asks_for_it(lab: Lab) -> None:
    lab.world.cut_after = 3
    async with lab.worker():
        await lab.start(study(rows=4), limits=RunLimits(concurrency=8, retry_unknown=True, attempts_max=10))
        await lab.until(lambda run: run.statistics.attempts_failed > 0)
        lab.world.cut_after = None
        run = await lab.ended()

    assert (run.statistics.unknown, run.statistics.done) == (0, 16)
    assert_whole(run, await lab.results(), lab.world)


async def test_answers_wait_for_their_scores_while_metrics_is_down(lab: Lab) -> None:
    lab.world.metrics_down = True
    async with lab.worker():
        cells = await lab.start(study(rows=4))
        run = await lab.until(lambda run: run.statistics.done == 16)
        assert (run.status, run.statistics.scored) == (RunStatus.RUNNING, 0)
        lab.world.metrics_down = False
        run = await lab.ended()

    assert (run.status, run.statistics.scored) == (RunStatus.COMPLETED, cells)


async def test_a_bill_that_the_gateway_did_not_confirm_is_settled_from_the_ledger(lab: Lab) -> None:
    lab.world.script = lambda call: answer(cost=None)
    lab.world.cost_down = True
    async with lab.worker():
        cells = await lab.start(study(rows=2))
        run = await lab.until(lambda run: run.statistics.scored == 8)
        assert run.status is RunStatus.RUNNING
        lab.world.cost_down = False
        run = await lab.ended()

    assert run.statistics.cost.nano_usd == 5 * cells
    assert len(lab.world.settled_by_ledger) == cells
    assert set(lab.world.holds.values()) == {AttemptState.SETTLED}


async def test_a_bill_that_becomes_known_after_the_end_is_added_to_an_unknown_result(lab: Lab) -> None:
    lab.world.script = lambda call: answer(cost=None)
    lab.world.cut_after = 3
    async with lab.worker():
        await lab.start(study(rows=1))
        run = await lab.ended()
        assert run.statistics.unknown > 0
        assert run.statistics.cost.nano_usd == 5 * run.statistics.done
        # The gateway was only cut off: what it held is settled a little later.
        lab.world.holds.update(dict.fromkeys(lab.world.holds, AttemptState.SETTLED))
        run = await lab.until(lambda run: run.statistics.cost.nano_usd == 5 * 4)

    assert all(stored.record.cost.nano_usd == 5 for stored in await lab.results())


async def test_the_cost_of_an_attempt_that_was_made_again_is_settled_too(lab: Lab) -> None:
    def second_time(call: PlannedCall) -> Answer | Failure:
        again = CallId.parse(call.call_id).attempt > 1
        return answer() if again else failure()._replace(usage=USAGE, cost=None)

    lab.world.script = second_time
    async with lab.worker():
        cells = await lab.start(study(rows=2))
        run = await lab.ended()

    assert run.statistics.cost.nano_usd == 2 * 5 * cells
    assert {item.succeeded for item in lab.world.settled_by_ledger} == {False}
    assert all(stored.record.cost.nano_usd == 10 for stored in await lab.results())


async def test_a_cancelled_run_ends_at_once_and_its_bills_are_settled_later(lab: Lab) -> None:
    lab.world.script = lambda call: answer(cost=None)
    lab.world.cost_down = True
    async with lab.worker():
        await lab.start(study(rows=2))
        await lab.until(lambda run: run.statistics.scored == 8)
        await ask(lab.ledger, Step.CANCEL)
        lab.hints.publish(WORK_TOPIC)
        run = await lab.ended()
        assert (run.status, run.statistics.cost.nano_usd) == (RunStatus.CANCELLED, 0)
        lab.world.cost_down = False
        run = await lab.until(lambda run: run.statistics.cost.nano_usd == 5 * 8)

    assert set(lab.world.holds.values()) == {AttemptState.SETTLED}


async def test_a_run_ends_without_a_cost_that_nobody_confirms(lab: Lab) -> None:
    lab.world.script = lambda call: answer(cost=None)
    lab.world.cost_down = True
    async with lab.worker(replace(POLICY, bill_wait_ms=50, bill_life_ms=1_000)):
        cells = await lab.start(study(rows=1))
        run = await lab.ended()
        assert (run.status, run.statistics.cost) == (RunStatus.COMPLETED, Money(0))
        run = await lab.until(lambda run: run.statistics.cost == Money(0, cells))

    assert {stored.record.cost for stored in await lab.results()} == {Money(0, 1)}


async def test_cancel_stops_calls_and_keeps_results(lab: Lab) -> None:
    async with lab.worker():
        await lab.start(study(rows=50), limits=RunLimits(concurrency=4))
        await lab.until(lambda run: run.statistics.done >= 4)
        lab.world.gate = asyncio.Event()
        await eventually(lambda: lab.world.under_way >= 4)
        await ask(lab.ledger, Step.CANCEL)
        lab.hints.publish(WORK_TOPIC)
        run = await lab.ended()

    results = await lab.results()
    assert run.status is RunStatus.CANCELLED
    assert run.statistics.cancelled == 4
    assert run.statistics.done >= 4
    assert len(results) == run.statistics.done + 4
    assert sum(lab.world.dispatched.values()) == len(results)


JUDGED = replace(study(rows=8), scorers=(ScorerTarget("judge", needs_model=True),))


async def test_what_a_run_pays_for_is_scored_in_batches_of_its_concurrency(lab: Lab) -> None:
    async with lab.worker():
        await lab.start(JUDGED, limits=RunLimits(concurrency=4))
        run = await lab.ended()

    assert (run.status, run.statistics.scored) == (RunStatus.COMPLETED, 32)
    assert max(lab.world.score_sizes) <= 4 // POLICY.scoring_concurrency


async def test_a_cancelled_run_does_not_wait_for_its_judge(lab: Lab) -> None:
    lab.world.score_gate = asyncio.Event()
    async with lab.worker():
        await lab.start(JUDGED, limits=RunLimits(concurrency=4))
        await eventually(lambda: lab.world.score_requests)
        await ask(lab.ledger, Step.CANCEL)
        lab.hints.publish(WORK_TOPIC)
        run = await lab.ended()

    assert (run.status, run.statistics.scored) == (RunStatus.CANCELLED, 0)


async def test_a_call_that_does_not_stop_is_cut_and_accounted(lab: Lab) -> None:
    async with lab.worker():
        lab.world.gate = asyncio.Event()
        await lab.start(study(rows=4), limits=RunLimits(concurrency=2))
        await eventually(lambda: lab.world.under_way >= 2)
        lab.world.cancelled = DeafList()
        await ask(lab.ledger, Step.CANCEL)
        lab.hints.publish(WORK_TOPIC)
        run = await lab.ended()

    assert (run.status, run.statistics.cancelled) == (RunStatus.CANCELLED, 2)
    assert run.statistics.cost.nano_usd == 10


class DeafList(list[str]):
    """A gateway that does not hear cancels."""

    def extend(self, values: object) -> None:
        return


async def kill_a_worker_with_calls_under_way(lab: Lab) -> int:
    """Leaves a run with 8 calls under way that nobody waits for; returns its number of cells. The gate is shut."""
    lab.world.gate = asyncio.Event()
    worker = asyncio.create_task(Worker(lab.ports(), POLICY).run())
    cells = await lab.start(study(rows=10))
    await eventually(lambda: lab.world.under_way >= 8)
    lab.ledger.release = nothing  # type: ignore[assignment, method-assign]
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)
    return cells


async def nothing(*arguments: object) -> None:
    """A worker that is killed hands nothing back."""


async def test_a_dead_workers_run_is_finished_by_the_next(lab: Lab) -> None:
    cells = await kill_a_worker_with_calls_under_way(lab)
    lab.world.gate = None

    async with lab.worker():
        run = await lab.ended()

    results = await lab.results()
    assert run.status is RunStatus.COMPLETED
    assert (run.statistics.unknown, run.statistics.done) == (8, cells - 8)
    assert_whole(run, results, lab.world)


async def test_a_run_goes_on_while_it_is_found_out_what_came_of_a_dead_workers_calls(lab: Lab) -> None:
    lab.world.script = lambda _: answer(cost=None)
    cells = await kill_a_worker_with_calls_under_way(lab)
    lab.world.gate, lab.world.script = None, lambda _: answer()

    async with lab.worker(replace(POLICY, unknown_after_ms=600_000)):
        run = await lab.until(lambda run: run.statistics.done == cells - 8)

    assert (run.status, run.statistics.unknown) == (RunStatus.RUNNING, 0)


async def test_a_stopping_worker_finishes_its_calls_and_another_goes_on(lab: Lab) -> None:
    async with lab.worker():
        cells = await lab.start(study(rows=50))
        await lab.until(lambda run: run.statistics.done >= 10)
    async with lab.worker():
        run = await lab.ended()

    assert (run.statistics.done, run.statistics.unknown) == (cells, 0)
    assert_whole(run, await lab.results(), lab.world)


async def test_a_run_that_starts_while_a_worker_looks_for_others_is_not_overlooked(lab: Lab) -> None:
    claim, started = lab.ledger.claim, asyncio.Event()

    async def claim_too_early(request: ClaimRequest) -> list[Claim]:
        claims = await claim(request)
        if not (claims or started.is_set()):
            await lab.start(study())
            started.set()
            await asyncio.sleep(0.05)  # the worker hears of it before it hears of what it asked for
        return claims

    lab.ledger.claim = claim_too_early  # type: ignore[method-assign]
    async with lab.worker(replace(POLICY, poll_ms=60_000)):
        async with asyncio.timeout(20):
            await started.wait()
        run = await lab.ended()

    assert run.status is RunStatus.COMPLETED


async def test_two_workers_share_a_run(lab: Lab) -> None:
    async with lab.worker(replace(POLICY, slots_max=4)), lab.worker(replace(POLICY, slots_max=4)):
        cells = await lab.start(study(rows=100), limits=RunLimits(concurrency=8))
        run = await lab.ended()

    assert run.statistics.done == cells
    assert_whole(run, await lab.results(), lab.world)
    assert lab.world.most_under_way <= 8


@pytest.mark.parametrize("where", ["before_sent_commit", "after_sent", "answer_received", "result_committed"])
async def test_a_lane_that_breaks_anywhere_is_begun_again(lab: Lab, where: str) -> None:
    points = arm(f"orchestrator.{where}=error@2")
    try:
        async with lab.worker():
            await lab.start(study(rows=10))
            run = await lab.ended()
    finally:
        arm("")

    assert points.hits[f"orchestrator.{where}"] >= 2
    assert run.status is RunStatus.COMPLETED
    assert_whole(run, await lab.results(), lab.world)


async def test_a_call_that_the_gateway_does_not_take_fails_alone(lab: Lab) -> None:
    lab.world.unsendable = frozenset({"run_1/3/1"})
    async with lab.worker():
        await lab.start(study(rows=4))
        run = await lab.ended()

    results = await lab.results()
    assert run.status is RunStatus.COMPLETED
    assert [stored.record.cell for stored in results if stored.record.status is not CellStatus.DONE] == [3]
    assert results[3].record.error_reason == "INVALID_FIELD"
    assert sum(lab.world.dispatched.values()) == run.statistics.done


@pytest.mark.parametrize(
    "error",
    [
        InvalidField("samples", "a sample breaks a rule"),
        DomainError("INTERNAL", "a scorer broke", code="INTERNAL"),
        DomainError("DEADLINE_EXCEEDED", "a scorer takes too long", code="DEADLINE_EXCEEDED"),
    ],
    ids=["refused", "fault", "deadline"],
)
async def test_an_answer_that_metrics_cannot_score_stays_without_scores_and_the_run_ends(
    lab: Lab, error: DomainError
) -> None:
    lab.world.unscorable[3] = error
    async with lab.worker(replace(POLICY, score_tries_max=3)):
        cells = await lab.start(study(rows=4))
        run = await lab.ended()

    assert (run.status, run.statistics.scored) == (RunStatus.COMPLETED, cells)
    scored = [SampleScores.FromString(stored.bodies.scores) for stored in await lab.results()]
    assert [cell for cell, sample in enumerate(scored) if not sample.scores] == [3]
    assert scored[3].error.message == error.message


class BrokenAtFirst:
    """A proof of life whose directory cannot be written, once."""

    def __init__(self, liveness: Liveness) -> None:
        self._liveness = liveness
        self.failures = 0

    def hold(self, name: str) -> AbstractAsyncContextManager[Hold]:
        if not self.failures:
            self.failures += 1
            raise PermissionError("read-only file system")
        return self._liveness.hold(name)

    async def is_dead(self, name: str) -> bool:
        return await self._liveness.is_dead(name)


async def test_no_fault_ends_a_worker_for_good(lab: Lab) -> None:
    broken = BrokenAtFirst(liveness_of(lab.database))
    worker = Worker(replace(lab.ports(), liveness=broken), POLICY)
    task = asyncio.create_task(worker.run())
    await lab.start(study(rows=2))
    try:
        run = await lab.ended()
    finally:
        worker.stop()
        await asyncio.gather(task, return_exceptions=True)

    assert (run.status, broken.failures) == (RunStatus.COMPLETED, 1)
