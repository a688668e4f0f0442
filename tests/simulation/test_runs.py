"""Runs in virtual time: workers die, freeze and come back, the gateway, cost and metrics fail, streams break anywhere.

Outcomes come late and twice, the cost service acts and loses its answer, holds expire, one answer cannot be scored, and
the wall clock is set forward and back. Each seed is one story. Whatever happens, in the end every cell has exactly one
result, every call that reached the provider has exactly one record, none was made twice, the events have no gap, and
the run has cost what the cost service says.

LLMLAB_TEST_SIMULATION_SEEDS sets how many seeds are run, LLMLAB_TEST_SIMULATION_FIRST where to begin; a failing seed is
named and replays by itself.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import sqlite3
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select

from services.orchestrator.calls import (
    NO_MONEY,
    NO_USAGE,
    Answer,
    AttemptState,
    CallOutcome,
    Failure,
    Money,
    PlannedCall,
    ResolvedAttempt,
    Settlement,
)
from services.orchestrator.limits import RunLimits
from services.orchestrator.policy import WorkerPolicy
from services.orchestrator.ports import KnownModels, RunCredential
from services.orchestrator.product import Product
from services.orchestrator.records import LAST_EVENTS, ExperimentRecord, RunRecord, Statistics
from services.orchestrator.rpc.codec import answer_text
from services.orchestrator.spec_codec import encode_spec, spec_hash
from services.orchestrator.states import ENDED, RunStatus, Step
from services.orchestrator.store import ResultQuery, SqlLedger
from services.orchestrator.store import tables as t
from services.orchestrator.topics import WORK_TOPIC
from services.orchestrator.worker import Worker, WorkerPorts
from services.runtime.backoff import Backoff
from services.runtime.errors import DomainError, WrongState
from services.runtime.hints import LocalHints
from services.runtime.liveness import Hold
from services.runtime.migrate import upgrade
from services.runtime.requests import RequestKey
from tests.support.ledger import ask
from tests.support.orchestrator import (
    PRICE,
    USAGE,
    World,
    WorldIdentity,
    WorldMetrics,
    answer,
    failure,
    study,
    unavailable,
)
from tests.support.virtual_time import InlineDatabase, VirtualClock, run_virtually

SEEDS = int(os.environ.get("LLMLAB_TEST_SIMULATION_SEEDS", "200"))
FIRST = int(os.environ.get("LLMLAB_TEST_SIMULATION_FIRST", "0"))
CHAOS_S = 10.0
TROUBLES_PER_S = 3.0
PATIENCE_S = 900.0
PROCESSES_MAX = 6
CLOCK_STEP_S = 15.0
HOLD_LIFE_S = 8.0
GUESS = Money(11)
COSTS = {AttemptState.SETTLED: PRICE, AttemptState.EXPIRED: GUESS}
PROJECT = "prj_1"
RUN = "run_1"
NO_KEY = RequestKey(PROJECT, "Test", "")
POLICY = WorkerPolicy(
    lease_ms=3_000,
    poll_ms=1_000,
    shard_cells=4,
    unknown_after_ms=800,
    cancel_grace_ms=300,
    drain_ms=1_000,
    settle_after_ms=100,
    bill_wait_ms=3_000,
    bill_sweep_ms=1_000,
    bill_life_ms=3_600_000,
    score_tries_max=3,
    retry=Backoff(base_ms=50, cap_ms=1_000),
    peer=Backoff(base_ms=20, cap_ms=500),
)


@dataclass
class Provider:
    """What the provider and the cost service know, and what fails at the moment."""

    rng: random.Random
    calls: Counter[str] = field(default_factory=Counter)
    holds: dict[str, AttemptState] = field(default_factory=dict)
    held_at_s: dict[str, float] = field(default_factory=dict)
    clock: VirtualClock = field(default_factory=VirtualClock)
    gateway_down: bool = False
    cost_down: bool = False
    break_rate: float = 0.0
    failure_rate: float = 0.0
    cost_loses_rate: float = 0.0

    def hold(self, hold_id: str) -> None:
        """Hold money for a call."""
        self.holds[hold_id] = AttemptState.HELD
        self.held_at_s[hold_id] = self.clock.passed_s

    def state(self, hold_id: str) -> AttemptState:
        """What the cost service knows; an unknown attempt is tombstoned, and a hold expires after a while."""
        state = self.holds.setdefault(hold_id, AttemptState.TOMBSTONED)
        if state is AttemptState.HELD and self.clock.passed_s - self.held_at_s[hold_id] > HOLD_LIFE_S:
            state = self.holds[hold_id] = AttemptState.EXPIRED
        return state

    def holds_money(self) -> bool:
        """Whether a call that nobody told the end of still holds its money."""
        return any(self.state(hold_id) is AttemptState.HELD for hold_id in list(self.holds))

    def charged(self) -> int:
        """What all calls have cost, nano-USD."""
        return sum(COSTS.get(self.state(hold_id), NO_MONEY).nano_usd for hold_id in list(self.holds))


class ShakyGateway:
    """A gateway that goes on by itself when its caller is gone, or is killed with its calls."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._cancelled: set[str] = set()

    async def complete_batch(
        self, credential: RunCredential, calls: Sequence[PlannedCall], timeout_s: float
    ) -> AsyncIterator[list[CallOutcome]]:
        provider, rng = self._provider, self._provider.rng
        await asyncio.sleep(rng.uniform(0, 0.02))
        if provider.gateway_down:
            raise unavailable("the gateway")
        outcomes: asyncio.Queue[CallOutcome | None] = asyncio.Queue()
        tasks = [asyncio.create_task(self._serve(call, outcomes)) for call in calls]
        if rng.random() < provider.break_rate:
            tasks.append(asyncio.create_task(self._break(outcomes, tasks[:], killed=rng.random() < 0.5)))
        try:
            for _ in calls:
                outcome = await asyncio.wait_for(outcomes.get(), timeout_s)
                if outcome is None:
                    raise unavailable("the gateway")
                yield [outcome] * (2 if rng.random() < 0.05 else 1)
        except TimeoutError:
            raise unavailable("the gateway") from None

    async def _break(self, outcomes: asyncio.Queue[CallOutcome | None], tasks: Iterable[Any], *, killed: bool) -> None:
        await asyncio.sleep(self._provider.rng.uniform(0, 0.3))
        outcomes.put_nowait(None)
        if killed:
            for task in tasks:
                task.cancel()

    async def _serve(self, call: PlannedCall, outcomes: asyncio.Queue[CallOutcome | None]) -> None:
        provider, rng, hold_id = self._provider, self._provider.rng, f"{call.call_id}/1"
        await asyncio.sleep(rng.uniform(0, 0.1))
        if hold_id in provider.holds:
            reason = (
                "HOLD_TOMBSTONED" if provider.holds[hold_id] is AttemptState.TOMBSTONED else "CALL_ALREADY_DISPATCHED"
            )
            outcomes.put_nowait(CallOutcome(call.call_id, failure(reason, retryable=False, dispatched=False)))
            return
        if rng.random() < provider.failure_rate:
            outcomes.put_nowait(CallOutcome(call.call_id, failure("RATE_LIMITED", dispatched=False)))
            return
        provider.hold(hold_id)
        await asyncio.sleep(rng.uniform(0, 0.05))
        provider.calls[call.call_id] += 1
        await asyncio.sleep(rng.uniform(0, 0.3))
        ending: Answer | Failure = answer()
        if call.call_id in self._cancelled:
            ending = failure("CANCELLED", retryable=False)._replace(usage=USAGE, cost=PRICE)
        elif rng.random() < provider.failure_rate:
            ending = failure()._replace(usage=USAGE, cost=PRICE)
        if rng.random() < 0.1:
            ending = ending._replace(cost=None)
        else:
            provider.holds[hold_id] = AttemptState.SETTLED
            await asyncio.sleep(rng.uniform(0, 0.02))
        outcomes.put_nowait(CallOutcome(call.call_id, ending))

    async def cancel_calls(self, credential: RunCredential, call_ids: Sequence[str]) -> None:
        self._cancelled.update(call_ids)

    async def list_models(self, token: str) -> KnownModels:
        raise NotImplementedError


class ShakyBills:
    """The cost service."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def resolve_attempts(self, project_id: str, hold_ids: Sequence[str]) -> list[ResolvedAttempt]:
        await asyncio.sleep(self._provider.rng.uniform(0, 0.02))
        if self._provider.cost_down:
            raise unavailable("cost")
        return [self._resolve(hold_id) for hold_id in hold_ids]

    def _resolve(self, hold_id: str) -> ResolvedAttempt:
        state = self._provider.state(hold_id)
        usage = USAGE if state is AttemptState.SETTLED else NO_USAGE
        return ResolvedAttempt(hold_id, state, usage, COSTS.get(state))

    async def settle(self, project_id: str, settlements: Sequence[Settlement]) -> list[Money | DomainError]:
        await asyncio.sleep(self._provider.rng.uniform(0, 0.02))
        if self._provider.cost_down:
            raise unavailable("cost")
        outcomes: list[Money | DomainError] = []
        for item in settlements:
            if self._loses():
                outcomes.append(DomainError("INTERNAL", "a fault of the cost service", code="INTERNAL"))
                continue
            self._provider.holds[item.attempt_id] = AttemptState.SETTLED
            outcomes.append(PRICE)
        if self._loses():
            raise unavailable("cost, after it had acted,")
        return outcomes

    def _loses(self) -> bool:
        return self._provider.rng.random() < self._provider.cost_loses_rate


class Names:
    """The proof of life of every process: it ends when the process is killed, not when it is frozen."""

    def __init__(self, owners: dict[str, Process], process: Process) -> None:
        self._owners = owners
        self._process = process

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[Hold]:
        self._owners[name] = self._process
        yield Hold(name)
        del self._owners[name]

    async def is_dead(self, name: str) -> bool:
        return name not in self._owners or self._owners[name].killed


class Mortal:
    """A port of a process that can be frozen: its calls hang until it thaws, for ever when it is killed."""

    def __init__(self, port: Any, process: Process) -> None:
        self._port = port
        self._process = process

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._port, name)
        if not inspect.iscoroutinefunction(attribute):
            return attribute

        async def call(*arguments: Any) -> Any:
            await self._process.breathe()
            result = await attribute(*arguments)
            await self._process.breathe()
            return result

        return call


class MortalGateway:
    """The gateway as a process that can be frozen sees it."""

    def __init__(self, gateway: ShakyGateway, process: Process) -> None:
        self._gateway = gateway
        self._process = process
        self.cancel_calls = gateway.cancel_calls
        self.list_models = gateway.list_models

    async def complete_batch(
        self, credential: RunCredential, calls: Sequence[PlannedCall], timeout_s: float
    ) -> AsyncIterator[list[CallOutcome]]:
        await self._process.breathe()
        async for outcomes in self._gateway.complete_batch(credential, calls, timeout_s):
            await self._process.breathe()
            yield outcomes


class Process:
    """One worker process."""

    def __init__(self) -> None:
        self.alive = asyncio.Event()
        self.alive.set()
        self.killed = False
        self.task: asyncio.Task[None] | None = None

    async def breathe(self) -> None:
        """Go on if alive; the dead stay here until the story is over, and do nothing more then."""
        await self.alive.wait()
        if self.killed:
            raise asyncio.CancelledError

    def thaw(self) -> None:
        """Go on where it stood."""
        if not self.killed:
            self.alive.set()


class Story:
    """One seed."""

    def __init__(self, seed: int, clock: VirtualClock, database: InlineDatabase) -> None:
        self.rng = random.Random(seed)
        self.clock = clock
        self.database = database
        self.ledger = SqlLedger(database)
        self.provider = Provider(random.Random(seed + 1), clock=clock)
        self.gateway = ShakyGateway(self.provider)
        self.world = World()
        self.names: dict[str, Process] = {}
        self.hints = LocalHints()
        self.processes: list[Process] = []
        self.numbers = count()

    def spawn(self) -> None:
        """Start a worker process."""
        process = Process()
        ports = WorkerPorts(
            ledger=Mortal(self.ledger, process),
            gateway=MortalGateway(self.gateway, process),
            metrics=Mortal(WorldMetrics(self.world), process),
            bills=Mortal(ShakyBills(self.provider), process),
            identity=WorldIdentity(),
            hints=self.hints,
            liveness=Names(self.names, process),
            clock=self.clock,
            rng=random.Random(self.rng.random()),
            answer_text=answer_text,
            name_worker=lambda: f"wrk_{next(self.numbers):06}",
        )
        process.task = asyncio.create_task(Worker(ports, POLICY).run())
        self.processes.append(process)

    async def start_run(self) -> int:
        spec = study(rows=self.rng.randint(1, 6), repeats=self.rng.randint(1, 2))
        encoded = encode_spec(spec)
        cells = Product.of(spec).cells
        record = ExperimentRecord("exp_1", PROJECT, "a study", "", spec_hash(encoded), cells, 1, 1)
        await self.ledger.create_experiment(record, encoded, key=NO_KEY, payload=b"", answer=lambda _: b"")
        limits = RunLimits(
            concurrency=self.rng.choice([1, 3, 8, 20]), attempts_max=10, retry_unknown=self.rng.random() < 0.4
        )
        run = RunRecord(
            RUN,
            PROJECT,
            "exp_1",
            "a study",
            RunStatus.PENDING,
            spec_hash(encoded),
            limits.in_force(),
            "usr_1",
            "",
            "dlg_1",
            created_us=self.clock.now_us(),
            last_sequence=1,
            statistics=Statistics(cells_total=cells),
        )
        await self.ledger.start_run(run, NO_KEY, b"", lambda _: b"")
        self.hints.publish(WORK_TOPIC)
        return cells

    async def chaos(self) -> None:
        """Trouble for a while, then none."""
        rng, provider = self.rng, self.provider
        provider.break_rate = rng.choice([0, 0.1, 0.4])
        provider.failure_rate = rng.choice([0, 0.1, 0.3])
        provider.cost_loses_rate = rng.choice([0, 0.1, 0.3])
        if rng.random() < 0.3:
            poison = DomainError("INTERNAL", "this answer breaks a scorer", code="INTERNAL")
            self.world.unscorable[rng.randrange(4)] = poison
        cancel_at = rng.uniform(0, CHAOS_S / 4) if rng.random() < 0.2 else float("inf")
        wishes = [Step.PAUSE, Step.RESUME, Step.RETRY] if rng.random() < 0.5 else []
        while self.clock.passed_s < CHAOS_S:
            await asyncio.sleep(rng.expovariate(TROUBLES_PER_S))
            if self.clock.passed_s > cancel_at:
                cancel_at = float("inf")
                await ask(self.ledger, Step.CANCEL)
                self.hints.publish(WORK_TOPIC)
            if wishes and rng.random() < 0.3:
                await self._ask(rng.choice(wishes))
            troubles = [self._kill, self._freeze, self._set_clock]
            troubles += [self._toggle_gateway, self._toggle_cost, self._toggle_metrics]
            rng.choice(troubles)()
        provider.gateway_down = provider.cost_down = self.world.metrics_down = False
        provider.break_rate = provider.failure_rate = provider.cost_loses_rate = 0
        for process in self.processes:
            process.thaw()
        self.spawn()
        await self._ask(Step.RESUME)
        await self._ask(Step.RETRY)

    async def _ask(self, step: Step) -> None:
        """Ask something of the run, whatever its state."""
        with suppress(WrongState):
            await ask(self.ledger, step, unknown=self.rng.random() < 0.5)
            self.hints.publish(WORK_TOPIC)

    def _kill(self) -> None:
        victim = self.rng.choice([process for process in self.processes if not process.killed])
        if len(self.processes) < PROCESSES_MAX:
            victim.killed = True
            victim.alive.clear()
            self.spawn()

    def _freeze(self) -> None:
        victim = self.rng.choice(self.processes)
        if not victim.killed and victim.alive.is_set():
            victim.alive.clear()
            asyncio.get_running_loop().call_later(self.rng.uniform(0.5, 9), victim.thaw)

    def _set_clock(self) -> None:
        self.clock.off_s += self.rng.uniform(-CLOCK_STEP_S, CLOCK_STEP_S)

    def _toggle_gateway(self) -> None:
        self.provider.gateway_down = not self.provider.gateway_down

    def _toggle_cost(self) -> None:
        self.provider.cost_down = not self.provider.cost_down

    def _toggle_metrics(self) -> None:
        self.world.metrics_down = not self.world.metrics_down

    async def until_ended(self) -> RunRecord:
        async with asyncio.timeout(PATIENCE_S):
            while (await self.ledger.get_run(PROJECT, RUN)).status not in ENDED:  # noqa: ASYNC110 (time is virtual)
                await asyncio.sleep(1)
        # What zombies still hold is delivered: by now every lease of before is over, and was looked at.
        await asyncio.sleep((POLICY.lease_ms + 2 * POLICY.poll_ms) / 1_000)
        async with asyncio.timeout(PATIENCE_S):
            while self.provider.holds_money() or self.database.at_once(_rows, t.open_bills):  # noqa: ASYNC110
                await asyncio.sleep(1)
        return await self.ledger.get_run(PROJECT, RUN)

    async def stop(self) -> None:
        for process in self.processes:
            process.killed = True
            process.alive.set()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)

    async def check(self, run: RunRecord, cells: int) -> None:
        """The invariants."""
        stored = await self.ledger.page_results(ResultQuery(RUN, limit=10_000))
        results = [each.record for each in stored]
        statistics = run.statistics
        if run.status is not RunStatus.CANCELLED:
            assert [record.cell for record in results] == list(range(cells)), "one result a cell"
            assert statistics.scored == statistics.done, "every answer is scored"
        counted = Counter(record.status.value for record in results)
        for name in ("done", "failed", "unknown", "cancelled"):
            assert counted[name] == getattr(statistics, name), name

        events = await self.ledger.read_events(RUN, 0, 100_000)
        assert [event.sequence for event in events] == list(range(1, run.last_sequence + 1)), "no gap"
        assert [event.sequence for event in events if event.final] == [run.last_sequence], "one last event"
        assert events[-1].kind in LAST_EVENTS

        attempts = self.database.at_once(_rows, t.attempts)
        left_over = self.database.at_once(_rows, t.in_flight)
        records = Counter((record.cell, record.attempt) for record in results)
        records.update((row["cell"], row["attempt"]) for row in attempts)
        calls = {_cell_and_attempt(call_id) for call_id in self.provider.calls}
        assert set(self.provider.calls.values()) <= {1}, "a call was made twice"
        assert set(records.values()) <= {1}, "a call has two records"
        assert not left_over
        assert calls <= set(records), "a call without a record"

        outcomes = Counter(row["outcome"] for row in attempts)
        known = statistics.done + outcomes["failed"]
        maybe = statistics.failed + statistics.unknown + statistics.cancelled
        maybe += sum(outcomes[name] for name in ("unknown", "superseded", "failed_earlier", "unknown_earlier"))
        assert known <= len(calls) <= known + maybe
        assert statistics.cost == Money(self.provider.charged()), "not what the calls have cost"
        assert statistics.cost.nano_usd == sum(record.cost.nano_usd for record in results) + sum(
            row["cost_nano_usd"] for row in attempts if row["cell"] not in {record.cell for record in results}
        )


def _rows(connection: Connection, table: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(select(table)).mappings()]


def _cell_and_attempt(call_id: str) -> tuple[int, int]:
    _, cell, attempt = call_id.split("/")
    return int(cell), int(attempt)


async def tell(seed: int, clock: VirtualClock, database: InlineDatabase) -> None:
    story = Story(seed, clock, database)
    try:
        for _ in range(story.rng.randint(1, 3)):
            story.spawn()
        cells = await story.start_run()
        await story.chaos()
        await story.check(await story.until_ended(), cells)
    finally:
        await story.stop()


class Teller:
    """Tells seeds, each on an empty ledger."""

    def __init__(self, folder: Path) -> None:
        self.database = InlineDatabase(f"sqlite:///{folder / 'ledger.db'}", schema="orchestrator")
        self.database.at_once(upgrade, "orchestrator", "services.orchestrator.migrations", write=True)
        self._empty = sqlite3.connect(":memory:")
        with closing(sqlite3.connect(folder / "ledger.db")) as migrated:
            migrated.backup(self._empty)

    def tell(self, seed: int) -> None:
        """One story from its beginning to its end."""

        async def begin(clock: VirtualClock) -> None:
            self.database.begin_anew(self._empty, clock)
            await tell(seed, clock, self.database)

        run_virtually(begin)

    def close(self) -> None:
        """Close the databases."""
        self._empty.close()
        self.database.dispose()


def memory_folder() -> str | None:
    """A folder in memory, where there is one: thousands of commits need no disk here."""
    shared = Path("/dev/shm")
    return str(shared) if os.access(shared, os.W_OK) else None


@pytest.fixture(scope="module")
def teller() -> Iterator[Teller]:
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder, closing(Teller(Path(folder))) as one:
        yield one


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_whatever_happens_the_books_are_right(seed: int, teller: Teller) -> None:
    teller.tell(seed)


def test_a_seed_is_replayed_exactly(teller: Teller) -> None:
    """The same calls, outcomes and events at the same virtual times: a seed that fails can be looked into.

    Neither a story that was told before nor a ledger of its own changes anything.
    """

    def books(seed: int, of: Teller) -> list[list[Any]]:
        of.tell(seed)
        tables = (t.attempts, t.results, t.events)
        return [of.database.at_once(_rows, table) for table in tables]

    first = books(16, teller)
    assert books(17, teller) != first
    assert books(16, teller) == first
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder, closing(Teller(Path(folder))) as another:
        assert books(16, another) == first
