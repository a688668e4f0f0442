"""Workers on a real ledger in a scripted world."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, exists, func, select

from services.orchestrator.experiment import ExperimentSpec
from services.orchestrator.limits import RunLimits
from services.orchestrator.policy import WorkerPolicy
from services.orchestrator.product import Product
from services.orchestrator.records import ExperimentRecord, RunRecord, Statistics
from services.orchestrator.rpc.codec import answer_text
from services.orchestrator.spec_codec import encode_spec, spec_hash
from services.orchestrator.states import ENDED, CellStatus, RunStatus
from services.orchestrator.store import Bodies, ResultQuery, SqlLedger, StoredResult
from services.orchestrator.store.tables import shards, workers
from services.orchestrator.topics import WORK_TOPIC, run_topic
from services.orchestrator.worker import Worker, WorkerPorts
from services.runtime.backoff import Backoff
from services.runtime.clock import SYSTEM_CLOCK
from services.runtime.database import Database
from services.runtime.errors import NotFound
from services.runtime.hints import LocalHints
from services.runtime.liveness import liveness_of
from services.runtime.requests import RequestKey
from tests.support.orchestrator import (
    World,
    WorldBills,
    WorldGateway,
    WorldIdentity,
    WorldMetrics,
)

PROJECT = "prj_1"
NO_KEY = RequestKey(PROJECT, "Test", "")
FAST = Backoff(base_ms=5, cap_ms=40)
POLICY = WorkerPolicy(
    lease_ms=3_000,
    poll_ms=100,
    unknown_after_ms=150,
    cancel_grace_ms=200,
    drain_ms=1_000,
    settle_after_ms=5,
    bill_sweep_ms=50,
    retry=FAST,
    peer=FAST,
)


@dataclass
class Lab:
    """A ledger, a world, and workers to come."""

    database: Database
    ledger: SqlLedger
    world: World
    hints: LocalHints
    identity: WorldIdentity

    @asynccontextmanager
    async def worker(self, policy: WorkerPolicy = POLICY) -> AsyncIterator[asyncio.Task[None]]:
        """A worker for the duration of the block; leaving it stops it in good order."""
        worker = Worker(self.ports(), policy)
        task = asyncio.create_task(worker.run())
        try:
            yield task
        finally:
            worker.stop()
            await asyncio.gather(task, return_exceptions=True)

    def ports(self) -> WorkerPorts:
        return WorkerPorts(
            ledger=self.ledger,
            gateway=WorldGateway(self.world),
            metrics=WorldMetrics(self.world),
            bills=WorldBills(self.world),
            identity=self.identity,
            hints=self.hints,
            liveness=liveness_of(self.database),
            clock=SYSTEM_CLOCK,
            rng=random.Random(7),
            answer_text=answer_text,
        )

    async def start(self, spec: ExperimentSpec, run_id: str = "run_1", limits: RunLimits | None = None) -> int:
        """Start a run; returns its number of cells."""
        encoded = encode_spec(spec)
        cells = Product.of(spec).cells
        record = ExperimentRecord("exp_1", PROJECT, "a study", "", spec_hash(encoded), cells, 1, 1)
        try:
            await self.ledger.get_experiment(PROJECT, "exp_1")
        except NotFound:
            await self.ledger.create_experiment(record, encoded, key=NO_KEY, payload=b"", answer=lambda _: b"")
        run = RunRecord(
            run_id,
            PROJECT,
            "exp_1",
            "a study",
            RunStatus.PENDING,
            spec_hash(encoded),
            (limits or RunLimits(concurrency=8)).in_force(),
            "usr_1",
            "",
            f"dlg_{run_id}",
            created_us=SYSTEM_CLOCK.now_us(),
            last_sequence=1,
            statistics=Statistics(cells_total=cells),
        )
        await self.ledger.start_run(run, NO_KEY, b"", lambda _: b"")
        self.hints.publish(WORK_TOPIC)
        return cells

    async def until(self, condition: Callable[[RunRecord], bool], run_id: str = "run_1") -> RunRecord:
        """The run as soon as the condition holds."""
        async with asyncio.timeout(20):
            with self.hints.subscribe(run_topic(run_id)) as changes:
                while not condition(run := await self.ledger.get_run(PROJECT, run_id)):
                    await changes.wait(0.05)
        return run

    async def ended(self, run_id: str = "run_1") -> RunRecord:
        return await self.until(lambda run: run.status in ENDED, run_id)

    async def all_given_back(self) -> None:
        """Returns as soon as no worker holds cells of the first run."""
        async with asyncio.timeout(20):
            with self.hints.subscribe(run_topic("run_1")) as changes:
                while await self.database.read(held_shards):
                    await changes.wait(0.05)

    async def looked_after(self) -> None:
        """Returns when the worker has renewed its lease, which is when it hears of what was asked of its runs."""
        before = await self.database.read(lease_ends)
        async with asyncio.timeout(20):
            while await self.database.read(lease_ends) == before:
                self.hints.publish(WORK_TOPIC)
                await asyncio.sleep(0.01)

    async def results(self, run_id: str = "run_1") -> list[StoredResult]:
        return await self.ledger.page_results(ResultQuery(run_id, limit=10_000, bodies=Bodies.ALL))


def lease_ends(connection: Connection) -> int:
    """When the lease of the last worker to renew it ends, microseconds UTC."""
    return int(connection.execute(select(func.max(workers.c.expires_us))).scalar_one() or 0)


def held_shards(connection: Connection) -> bool:
    """Whether some worker holds cells."""
    return bool(connection.execute(select(exists().where(shards.c.worker_id != ""))).scalar_one())


def assert_whole(run: RunRecord, results: list[StoredResult], world: World) -> None:
    """Every cell has one result, every call one record, and nothing was dispatched twice under one id."""
    assert [stored.record.cell for stored in results] == list(range(run.statistics.cells_total))
    assert set(world.dispatched.values()) <= {1}
    statistics = run.statistics
    by_status = [sum(stored.record.status is status for stored in results) for status in CellStatus]
    assert by_status == [statistics.done, statistics.failed, statistics.unknown, statistics.cancelled]
    known = statistics.done + statistics.failed + statistics.attempts_failed
    assert known <= sum(world.dispatched.values()) <= known + statistics.unknown
