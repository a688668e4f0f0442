"""One run in one worker, in the moments in which what it knows and what the ledger knows differ."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import cast

import pytest

from services.orchestrator.calls import Answer, CallId, Failure, PlannedCall
from services.orchestrator.context import WorkerContext
from services.orchestrator.lane import Lane
from services.orchestrator.ledger import (
    CellResult,
    Claim,
    Sent,
    ShardEnd,
    ShardKey,
    ShardState,
    Slowed,
    StoredAnswer,
    Write,
)
from services.orchestrator.limits import RunLimits
from services.orchestrator.outcomes import CellHistory
from services.orchestrator.plan import RunPlan
from services.orchestrator.policy import WorkerPolicy
from services.orchestrator.ports import Ledger
from services.orchestrator.records import RunRecord, Statistics
from services.orchestrator.spec_codec import encode_spec
from services.orchestrator.states import CellStatus, RunStatus
from services.orchestrator.writer import LedgerWriter
from services.runtime.backoff import Backoff
from services.runtime.clock import SYSTEM_CLOCK
from services.runtime.hints import LocalHints
from tests.support.orchestrator import (
    World,
    WorldBills,
    WorldGateway,
    WorldMetrics,
    answer,
    eventually,
    failure,
    study,
)

FAST = Backoff(base_ms=1, cap_ms=2)
POLICY = WorkerPolicy(settle_after_ms=0, retry=FAST, peer=FAST)
FIRST, SECOND = ShardKey("run_1", 0, 1), ShardKey("run_1", 4, 1)
UNTOUCHED = ShardState(frozenset(), (), (), {}, (), ())


class Scripted:
    """The part of a ledger that a lane speaks to. Everything is accepted but what `refuses` says."""

    def __init__(self, refuses: Callable[[Write], bool] = lambda write: False) -> None:
        self.refuses = refuses
        self.gate: asyncio.Event | None = None
        """Where set, the end of a range is committed and its answer waits."""
        self.state = UNTOUCHED
        self.written: list[Write] = []

    async def commit(self, worker_id: str, batches: Sequence[Sequence[Write]]) -> list[list[bool]]:
        writes = [write for batch in batches for write in batch]
        self.written += writes
        if self.gate is not None and any(isinstance(write, ShardEnd) for write in writes):
            await self.gate.wait()
        return [[not self.refuses(write) for write in batch] for batch in batches]

    async def load_shard(self, run_id: str, first_cell: int, cells: int) -> ShardState:
        return self.state

    async def stored_answers(self, run_id: str, cells: Sequence[int]) -> list[StoredAnswer]:
        return []


class Scene:
    """A lane of a run of 64 cells, and what it told its worker."""

    def __init__(self, ledger: Scripted, world: World) -> None:
        self.suspicions = 0
        run = RunRecord(
            "run_1",
            "prj_1",
            "exp_1",
            "a study",
            RunStatus.RUNNING,
            "hash",
            RunLimits(concurrency=4, attempts_max=5).in_force(),
            "usr_1",
            "",
            "dlg_1",
            created_us=1,
            statistics=Statistics(cells_total=64),
        )
        rng = random.Random(1)
        port = cast("Ledger", ledger)
        context = WorkerContext(
            ledger=port,
            writer=LedgerWriter(port, "w1", FAST, rng, LocalHints()),
            gateway=WorldGateway(world),
            metrics=WorldMetrics(world),
            bills=WorldBills(world),
            policy=POLICY,
            clock=SYSTEM_CLOCK,
            rng=rng,
            answer_text=bytes.decode,
            may_send=lambda: True,
            to_give_back=lambda run_id, slots: 0,
            changed=lambda: None,
            suspects=self._suspect,
        )
        self.lane = Lane(RunPlan(run, encode_spec(study(rows=16))), context)

    def _suspect(self) -> None:
        self.suspicions += 1

    async def run(self) -> None:
        async with asyncio.timeout(10):
            await self.lane.run()


async def test_slots_pass_on_when_the_lease_is_renewed_before_the_end_of_a_range_is_answered() -> None:
    ledger = Scripted()
    ledger.gate = asyncio.Event()
    scene = Scene(ledger, World())
    await scene.lane.add(Claim(FIRST, 4, slots=4, inherited=False))
    await scene.lane.add(Claim(SECOND, 60, slots=0, inherited=False))
    running = asyncio.create_task(scene.run())
    await eventually(lambda: any(isinstance(write, ShardEnd) for write in ledger.written))

    # The ledger has passed the slots on and deleted the range; the lane does not know yet.
    await scene.lane.check_held(frozenset({SECOND}))
    ledger.gate.set()
    await running

    assert sorted(write.cell for write in ledger.written if isinstance(write, CellResult)) == list(range(64))


async def test_a_cancelled_lane_that_looks_at_a_range_again_ends() -> None:
    scene = Scene(Scripted(lambda write: isinstance(write, Sent)), World())
    await scene.lane.add(Claim(FIRST, 4, slots=4, inherited=False))
    running = asyncio.create_task(scene.run())
    await eventually(lambda: scene.suspicions)

    scene.lane.cancel()
    await scene.lane.check_held(frozenset({FIRST}))

    await running


async def test_a_range_that_was_claimed_just_before_the_cancel_is_given_back() -> None:
    ledger = Scripted()
    world = World()
    scene = Scene(ledger, world)
    await scene.lane.add(Claim(SECOND, 4, slots=0, inherited=False))
    running = asyncio.create_task(scene.run())
    scene.lane.cancel()

    await scene.lane.add(Claim(FIRST, 4, slots=4, inherited=False))
    await running

    assert {write.shard for write in ledger.written if isinstance(write, ShardEnd)} == {FIRST, SECOND}
    assert not world.dispatched


@pytest.mark.parametrize("stopped", [RunStatus.CANCELLING, RunStatus.EXHAUSTING])
async def test_a_lane_that_stopped_is_left_when_its_run_is_retried(stopped: RunStatus) -> None:
    # As the ledger answers for a run that goes on again: its cells have no results, so no range of it has ended.
    ledger = Scripted(lambda write: isinstance(write, ShardEnd))
    world = World(gate=asyncio.Event())
    scene = Scene(ledger, world)
    await scene.lane.add(Claim(FIRST, 4, slots=4, inherited=False))
    running = asyncio.create_task(scene.run())
    await eventually(lambda: world.under_way)
    scene.lane.follow(stopped)
    await scene.lane.add(Claim(SECOND, 4, slots=0, inherited=False))
    assert not scene.lane.finished

    scene.lane.follow(RunStatus.RUNNING)

    assert scene.lane.finished  # its worker begins another one with the ranges that it holds
    assert not any(map(scene.lane.holds, (FIRST, SECOND)))
    assert world.gate is not None
    world.gate.set()
    await running
    results = [write.cell for write in ledger.written if isinstance(write, CellResult)]
    assert sorted(results) == [0, 1, 2, 3]  # what was under way is paid for, and kept


async def test_a_stale_look_at_the_ledger_makes_no_call_id_anew() -> None:
    world = World(script=_third_time_lucky)
    refused: list[Write] = []

    def refuse_the_third_once(write: Write) -> bool:
        if isinstance(write, Sent) and write.attempt == 3 and not refused:
            refused.append(write)
            return True
        return False

    ledger = Scripted(refuse_the_third_once)
    scene = Scene(ledger, world)
    await scene.lane.add(Claim(FIRST, 1, slots=1, inherited=False))
    running = asyncio.create_task(scene.run())
    await eventually(lambda: scene.suspicions)

    # As it was before the second call's outcome was committed.
    ledger.state = UNTOUCHED._replace(histories={0: CellHistory(counted=1)})
    await scene.lane.check_held(frozenset({FIRST}))
    await running

    assert world.dispatched == {"run_1/0/1": 1, "run_1/0/2": 1, "run_1/0/3": 1}
    (ended,) = [write for write in ledger.written if isinstance(write, CellResult)]
    assert (ended.status, ended.attempt) == (CellStatus.DONE, 3)


async def test_what_a_provider_takes_at_once_is_put_on_record() -> None:
    def busy_at_first(call: PlannedCall) -> Answer | Failure:
        return failure("RATE_LIMITED") if CallId.parse(call.call_id).attempt == 1 else answer()

    ledger = Scripted()
    scene = Scene(ledger, World(script=busy_at_first))
    await scene.lane.add(Claim(FIRST, 4, slots=4, inherited=False))
    await scene.run()

    told = [write.calls for write in ledger.written if isinstance(write, Slowed)]
    # Cells 0 - 3 are of both models.
    assert [calls.model for calls in told[0]] == [0, 1]
    assert all(1 <= calls.calls_max < 4 for calls in told[0])


def _third_time_lucky(call: PlannedCall) -> Answer | Failure:
    return answer() if CallId.parse(call.call_id).attempt == 3 else failure()
