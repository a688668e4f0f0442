"""What people ask of runs, as workers carry it out."""

from __future__ import annotations

import asyncio

from services.orchestrator.limits import RunLimits
from services.orchestrator.states import RunStatus, Step
from services.orchestrator.topics import WORK_TOPIC
from tests.support.ledger import ask
from tests.support.orchestrator import (
    answer,
    eventually,
    failure,
    study,
)
from tests.support.orchestrator_lab import PROJECT, Lab, assert_whole


async def test_a_pause_lets_calls_end_gives_everything_back_and_a_resume_goes_on(lab: Lab) -> None:
    async with lab.worker():
        cells = await lab.start(study(rows=50), limits=RunLimits(concurrency=4))
        await lab.until(lambda run: run.statistics.done >= 4)
        lab.world.gate = asyncio.Event()
        await eventually(lambda: lab.world.under_way >= 4)
        await ask(lab.ledger, Step.PAUSE)
        lab.hints.publish(WORK_TOPIC)
        lab.world.gate.set()
        # Another run finds all slots free, on the same worker.
        await lab.all_given_back()
        paused = await lab.ledger.get_run(PROJECT, "run_1")
        made = sum(lab.world.dispatched.values())
        await lab.start(study(rows=50), "run_2")
        await lab.ended("run_2")
        assert (paused.status, paused.statistics.done) == (RunStatus.PAUSED, made)
        assert paused.statistics.done < cells

        await ask(lab.ledger, Step.RESUME)
        lab.hints.publish(WORK_TOPIC)
        run = await lab.ended()

    assert (run.status, run.statistics.done) == (RunStatus.COMPLETED, cells)
    assert [stored.record.cell for stored in await lab.results()] == list(range(cells))
    assert set(lab.world.dispatched.values()) == {1}


async def test_a_pause_that_is_taken_back_at_once_changes_nothing(lab: Lab) -> None:
    async with lab.worker():
        cells = await lab.start(study(rows=20), limits=RunLimits(concurrency=4))
        for _ in range(5):
            for step in (Step.PAUSE, Step.RESUME):
                await ask(lab.ledger, step)
                lab.hints.publish(WORK_TOPIC)
                await asyncio.sleep(0)
        run = await lab.ended()

    assert (run.status, run.statistics.done) == (RunStatus.COMPLETED, cells)


async def test_whoever_resumes_a_run_pays_for_the_calls_from_then_on(lab: Lab) -> None:
    """Also where the worker has never let go of the run: calls of before the pause are under way all the time."""
    lab.world.gate = asyncio.Event()
    async with lab.worker():
        cells = await lab.start(study(rows=10), limits=RunLimits(concurrency=4))
        await eventually(lambda: lab.world.under_way == 4)
        of_the_first = set(lab.world.delegations)
        await ask(lab.ledger, Step.PAUSE)
        # The second look begins after the first has been acted upon.
        for _ in range(2):
            await lab.looked_after()
        await ask(lab.ledger, Step.RESUME)
        lab.hints.publish(WORK_TOPIC)
        await lab.looked_after()
        lab.world.gate.set()
        run = await lab.ended()

    assert (run.status, run.statistics.done) == (RunStatus.COMPLETED, cells)
    assert {lab.world.delegations.pop(call) for call in of_the_first} == {"dlg_run_1"}
    assert set(lab.world.delegations.values()) == {"dlg_2"} == {run.delegation_id}


async def test_a_retry_calls_again_for_what_failed_with_all_attempts_anew(lab: Lab) -> None:
    lab.world.script = lambda call: failure() if "/3/" in call.call_id else answer()
    async with lab.worker():
        cells = await lab.start(study(rows=4), limits=RunLimits(concurrency=4, attempts_max=2))
        assert (await lab.ended()).statistics.failed == 1
        lab.world.script = lambda call: failure() if call.call_id.endswith("/3/3") else answer()
        await ask(lab.ledger, Step.RETRY)
        lab.hints.publish(WORK_TOPIC)
        run = await lab.ended()

    results = await lab.results()
    assert (run.status, run.statistics.done, run.statistics.scored) == (RunStatus.COMPLETED, cells, cells)
    assert run.statistics.attempts_failed == 3
    assert (results[3].record.attempt, results[3].record.attempts) == (4, 4)
    assert_whole(run, results, lab.world)


async def test_a_run_ends_when_its_money_is_used_up_and_goes_on_with_more(lab: Lab) -> None:
    limits = RunLimits(concurrency=4, max_cost_nano_usd=5 * 10)
    lab.world.limits["run_1"] = limits.max_cost_nano_usd
    async with lab.worker():
        cells = await lab.start(study(rows=50), limits=limits)
        run = await lab.ended()
        assert (run.status, run.statistics.done, run.statistics.scored) == (RunStatus.EXHAUSTED, 10, 10)
        assert run.statistics.cost.nano_usd == limits.max_cost_nano_usd
        assert f"{cells - 10} of {cells} cells were not called" in run.failure
        assert len(await lab.results()) == 10

        lab.world.limits["run_1"] = 5 * cells
        await ask(lab.ledger, Step.RETRY)
        lab.hints.publish(WORK_TOPIC)
        run = await lab.ended()

    assert (run.status, run.statistics.done, run.failure) == (RunStatus.COMPLETED, cells, "")
    assert_whole(run, await lab.results(), lab.world)
