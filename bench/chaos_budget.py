"""No budget is ever overspent: many clients, overlapping budgets, and kill -9 of the service and of its database.

    make chaos-budget [SEEDS=20]
    python -m bench.chaos_budget [--seeds 20] [--first-seed 1] [--database postgresql|sqlite|both]

Each seed runs a cost service as a process on a durable database of its own. Eight clients have 1,000 calls under way
at once, in batches and singly, which together ask for 20 times what overlapping hard budgets (project, key, tag) let
through. Meanwhile the service and PostgreSQL are killed and started again. A client repeats a request that got no
answer, with the same nonce; of the calls that were held it settles most at exactly their worst case, some of them twice
and some after their hold has expired, it releases some, and it never tells of others.

When all clients are done and expired holds are reconciled, for every budget: settled <= limit to the nano-dollar, at
least 99 % of the tightest limit is used, nothing is held, spend is the sum of what was settled, each hold was resolved
once, and no client saw another error than the refusals of the contract or a server that was away. Prints a line a seed
and, last, one JSON object; exits with 1 where a seed failed. A seed replays the same demand and the same faults; the
order of the answers is the machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc
import uvloop

from bench.cost_server import CostServer, DatabaseKind, cost_server
from llmlab.api.common.v1 import error_pb2, usage_pb2
from llmlab.api.cost.v1 import budget_pb2, hold_pb2, spend_pb2
from llmlab.api.cost.v1.budget_pb2_grpc import BudgetServiceStub
from llmlab.api.cost.v1.hold_pb2_grpc import HoldServiceStub
from llmlab.api.cost.v1.spend_pb2_grpc import UsageServiceStub
from services.runtime.status import error_from_rpc

if TYPE_CHECKING:
    from llmlab.api.cost.v1.budget_pb2_grpc import BudgetServiceAsyncStub
    from llmlab.api.cost.v1.hold_pb2_grpc import HoldServiceAsyncStub
    from llmlab.api.cost.v1.spend_pb2_grpc import UsageServiceAsyncStub

R = TypeVar("R")

PROJECT: Final = "prj_chaos"
CLIENTS: Final = 8
CALLS_AT_ONCE: Final = 1_000
DEMAND: Final = 20
"""What the calls ask for together, in limits of the tightest budget."""
OUTPUT_TOKENS: Final = 1_000
RPC_DEADLINE_S: Final = 5.0
PAUSE_S: Final = 0.25
"""Between two tries; shorter ones take the processor from the service that is starting."""
RECONCILE_LOOKS: Final = 300
SEED_TIMEOUT_S: Final = 240.0
USABLE_MIN: Final = 0.99
SETTINGS: Final = {
    "LLMLAB_COST_RECONCILE_INTERVAL_S": "0.2",
    "LLMLAB_COST_EXPIRED_HOLDS": "charge",
    "LLMLAB_COST_DATABASE_POOL_SIZE": "8",
}
RESOLVED: Final = (hold_pb2.ATTEMPT_STATE_SETTLED, hold_pb2.ATTEMPT_STATE_RELEASED)
AWAY: Final = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


class Violation(AssertionError):
    """A promise was broken; the message says which."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a seed is."""

    calls_at_once: int = CALLS_AT_ONCE
    granted: int = 600
    """Calls that the tightest budget lets through."""
    kills: int = 2
    """Kills of the service; on PostgreSQL as many of the database."""
    hold_life_ms: int = 4_000
    late_s: float = 6.0
    """A settlement that waits so long finds its hold expired."""

    @property
    def calls(self) -> int:
        """All calls of all clients."""
        return self.granted * DEMAND


@dataclass(slots=True)
class Outcome:
    """What one seed did."""

    seed: int
    database: str
    calls: int = 0
    held: int = 0
    settled: int = 0
    refused: int = 0
    abandoned: int = 0
    repeats: int = 0
    kills: int = 0
    used: float = 0.0
    """Settled, divided by the tightest limit."""
    seconds: float = 0.0
    failure: str = ""


@dataclass(slots=True)
class Chaos:
    """One seed: the calls, what became of them, and the faults."""

    server: CostServer
    scale: Scale
    outcome: Outcome
    held_nano_usd: dict[str, int] = field(default_factory=dict)
    """The worst case of each call that was held."""
    settled_nano_usd: dict[str, int] = field(default_factory=dict)
    known: Counter[str] = field(default_factory=Counter)
    """How each held call ended, by its id: how often an ending was accepted for the first time."""
    late: list[hold_pb2.SettleItem] = field(default_factory=list)
    call_nano_usd: int = 0
    budget_ids: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Make the budgets, let clients and faults loose, wait for reconciliation, and check every promise."""
        async with self.server.channel() as channel:
            stub: HoldServiceAsyncStub = HoldServiceStub(channel)
            await self._set_up(channel, stub)
            calls = [f"seed{self.outcome.seed}/{number}/1/1" for number in range(self.scale.calls)]
            done = asyncio.Event()
            faults = asyncio.create_task(self._break_things(done))
            try:
                async with asyncio.TaskGroup() as clients:
                    for number in range(CLIENTS):
                        clients.create_task(self._client(stub, number, calls[number::CLIENTS]))
            finally:
                done.set()
                await faults
            await self._check(channel, stub)

    async def _set_up(self, channel: grpc.aio.Channel, stub: HoldServiceAsyncStub) -> None:
        """Learn what a call costs, from one that is given back, and make budgets for so many of them."""
        probe = hold_pb2.HoldRequest(item=_hold_item("probe/1", self.scale.hold_life_ms))
        metadata = self.server.metadata(PROJECT)
        self.call_nano_usd = (await stub.Hold(probe, metadata=metadata)).outcome.held_nano_usd
        await stub.Release(hold_pb2.ReleaseRequest(attempt_id="probe/1"), metadata=metadata)
        budgets: BudgetServiceAsyncStub = BudgetServiceStub(channel)
        # No limit is a whole number of calls; the tightest is that of the tag, which every call has.
        limit = self.scale.granted * self.call_nano_usd + self.call_nano_usd // 3
        scopes = [
            (budget_pb2.BudgetScope(), limit * 2),
            (budget_pb2.BudgetScope(tag="team=chaos"), limit),
            (budget_pb2.BudgetScope(key_id="key_0"), limit * 3 // 5),
            (budget_pb2.BudgetScope(key_id="key_1"), limit * 3 // 5),
        ]
        for scope, limit_nano_usd in scopes:
            wanted = budget_pb2.Budget(
                name="chaos", limit_nano_usd=limit_nano_usd, scope=scope, period=budget_pb2.BUDGET_PERIOD_TOTAL
            )
            request = budget_pb2.CreateBudgetRequest(budget=wanted)
            made = await budgets.CreateBudget(request, metadata=self.server.metadata(PROJECT, "MANAGE"))
            self.budget_ids.append(made.budget.budget_id)

    async def _client(self, stub: HoldServiceAsyncStub, number: int, calls: list[str]) -> None:
        """Send one client's calls, so many at once, in groups of 1 to 40."""
        chance = random.Random(f"{self.outcome.seed}-{number}")  # noqa: S311 - a demand that can be repeated
        under_way = asyncio.Semaphore(max(1, self.scale.calls_at_once // CLIENTS))
        async with asyncio.TaskGroup() as groups:
            while calls:
                size = min(len(calls), chance.choice((1, 1, 7, 40)), self.scale.calls_at_once // CLIENTS)
                group, calls = calls[:size], calls[size:]
                for _ in group:
                    await under_way.acquire()
                fates = [chance.random() for _ in group]
                groups.create_task(self._calls(stub, group, fates, chance.randrange(2), under_way))

    async def _calls(
        self, stub: HoldServiceAsyncStub, group: list[str], fates: list[float], key: int, under_way: asyncio.Semaphore
    ) -> None:
        """Hold a group, and let each of its calls meet its fate."""
        try:
            self.outcome.calls += len(group)
            items = [_hold_item(attempt_id, self.scale.hold_life_ms, key) for attempt_id in group]
            held = await self._ask(lambda metadata: _hold(stub, items, metadata))
            settles: list[hold_pb2.SettleItem] = []
            releases: list[str] = []
            for one, fate in zip(held, fates, strict=True):
                if one.HasField("error"):
                    self._count_refusal(one)
                    continue
                self.held_nano_usd[one.attempt_id] = one.held_nano_usd
                self.outcome.held += 1
                if fate < 0.02:
                    self.outcome.abandoned += 1
                elif fate < 0.04:
                    self.late.append(_settle_item(one.attempt_id))
                elif fate < 0.10:
                    releases.append(one.attempt_id)
                else:
                    settles.append(_settle_item(one.attempt_id))
            await self._settle(stub, settles)
            if settles and fates[0] > 0.7:
                await self._settle(stub, settles)
            if releases:
                request = hold_pb2.ReleaseBatchRequest(attempt_ids=releases)
                await self._ask(lambda metadata: stub.ReleaseBatch(request, metadata=metadata, timeout=RPC_DEADLINE_S))
                self.known.update(releases)
        finally:
            for _ in group:
                under_way.release()

    async def _settle(self, stub: HoldServiceAsyncStub, items: list[hold_pb2.SettleItem]) -> None:
        if not items:
            return
        request = hold_pb2.SettleBatchRequest(items=items)
        answer = await self._ask(lambda metadata: stub.SettleBatch(request, metadata=metadata, timeout=RPC_DEADLINE_S))
        for one in answer.outcomes:
            if one.HasField("error"):
                raise Violation(f"a settlement was refused: {one.error.message}")
            first = one.attempt_id not in self.settled_nano_usd
            if not first and self.settled_nano_usd[one.attempt_id] != one.cost.cost_nano_usd:
                raise Violation(f"a repeated settlement of {one.attempt_id} cost another amount")
            self.settled_nano_usd[one.attempt_id] = one.cost.cost_nano_usd
            self.known.update([one.attempt_id] if first else [])

    def _count_refusal(self, one: hold_pb2.HoldOutcome) -> None:
        if one.error.reason == error_pb2.ERROR_REASON_HOLD_RESOLVED:
            # Its first answer was lost, and the hold expired before the service was back.
            self.held_nano_usd[one.attempt_id] = self.call_nano_usd
            self.outcome.held += 1
            self.outcome.abandoned += 1
        elif one.error.reason == error_pb2.ERROR_REASON_BUDGET_EXCEEDED:
            self.outcome.refused += 1
        else:
            reason = error_pb2.ErrorReason.Name(one.error.reason)
            raise Violation(f"the hold of {one.attempt_id} was refused with {reason}: {one.error.message}")

    async def _ask(self, send: Callable[[tuple[tuple[str, str], ...]], Awaitable[R]]) -> R:
        """Send a request again, the same to the letter, until it is answered; any error but absence is a violation."""
        while True:
            try:
                return await send(self.server.metadata(PROJECT))
            except grpc.aio.AioRpcError as error:
                if error.code() not in AWAY:
                    raise Violation(f"a caller saw {error.code().name}: {error.details()}") from error
                self.outcome.repeats += 1
                await asyncio.sleep(PAUSE_S)

    async def _break_things(self, done: asyncio.Event) -> None:
        """Kill the service, and the database where it is a server, in the middle of the work."""
        chance = random.Random(f"{self.outcome.seed}-faults")  # noqa: S311 - faults that can be repeated
        for number in range(self.scale.kills * 2):
            # After so many answers, not so many seconds: a fast machine is hit as often as a slow one.
            goal = int(self.scale.calls * chance.uniform(0.3, 0.9) * (number + 1) / (self.scale.kills * 2))
            while self.outcome.held + self.outcome.refused < goal and not done.is_set():  # noqa: ASYNC110 - progress
                await asyncio.sleep(0.005)
            if done.is_set():
                return
            postgres = self.server.postgres
            if number % 2 == 0 or postgres is None:
                await asyncio.to_thread(self.server.kill)
                await asyncio.to_thread(self.server.start)
            else:
                await asyncio.to_thread(postgres.end, chance.choice((signal.SIGQUIT, signal.SIGINT)))
                await asyncio.to_thread(postgres.start)
            self.outcome.kills += 1

    async def _check(self, channel: grpc.aio.Channel, stub: HoldServiceAsyncStub) -> None:
        budgets: BudgetServiceAsyncStub = BudgetServiceStub(channel)
        await asyncio.sleep(self.scale.late_s)
        await self._nothing_is_held(budgets)
        # Abandoned and late calls are charged at their worst case now; what late ones cost corrects it.
        await self._settle(stub, self.late)
        await self._each_hold_is_resolved_once(stub)
        await self._fill_up(stub)
        await self._budgets_hold(budgets)
        usage: UsageServiceAsyncStub = UsageServiceStub(channel)
        spend = await usage.SummarizeSpend(
            spend_pb2.SummarizeSpendRequest(), metadata=self.server.metadata(PROJECT, "READ")
        )
        if spend.total.cost.cost_nano_usd != sum(self.settled_nano_usd.values()):
            raise Violation(f"spend is {spend.total.cost.cost_nano_usd}, settled {sum(self.settled_nano_usd.values())}")
        if spend.total.calls != len(self.settled_nano_usd) or spend.held_nano_usd:
            raise Violation(f"{spend.total.calls} calls on record, {len(self.settled_nano_usd)} settled, {spend}")
        self.outcome.settled = len(self.settled_nano_usd)

    async def _each_hold_is_resolved_once(self, stub: HoldServiceAsyncStub) -> None:
        states = await self._states(stub, list(self.held_nano_usd))
        expired = [attempt_id for attempt_id, state in states.items() if state == hold_pb2.ATTEMPT_STATE_EXPIRED]
        if len(expired) != self.outcome.abandoned or any(attempt_id in self.known for attempt_id in expired):
            raise Violation(f"{len(expired)} holds expired, {self.outcome.abandoned} were abandoned")
        for attempt_id in states.keys() - expired:
            if self.known[attempt_id] != 1 or states[attempt_id] not in RESOLVED:
                state = hold_pb2.AttemptState.Name(states[attempt_id])
                raise Violation(f"{attempt_id} is {state} and was resolved {self.known[attempt_id]} times")

    async def _nothing_is_held(self, budgets: BudgetServiceAsyncStub) -> None:
        """Wait for the reconciler: every hold's time is over."""
        held: list[int] = []
        for _ in range(RECONCILE_LOOKS):
            held = [one.status.held_nano_usd for one in await self._standing(budgets)]
            if not any(held):
                return
            await asyncio.sleep(0.1)
        raise Violation(f"money is still held: {held}")

    async def _states(
        self, stub: HoldServiceAsyncStub, attempt_ids: list[str]
    ) -> dict[str, hold_pb2.AttemptState.ValueType]:
        states: dict[str, hold_pb2.AttemptState.ValueType] = {}
        for start in range(0, len(attempt_ids), 256):
            request = hold_pb2.ResolveAttemptsRequest(attempt_ids=attempt_ids[start : start + 256])
            answer = await stub.ResolveAttempts(request, metadata=self.server.metadata(PROJECT))
            states |= {one.attempt_id: one.state for one in answer.attempts}
        return states

    async def _fill_up(self, stub: HoldServiceAsyncStub) -> None:
        """What was given back at the very end can still be used: no phantom blocks."""
        for key in (0, 1):
            for number in range(self.scale.granted):
                attempt_id = f"seed{self.outcome.seed}/fill{key}/{number}/1"
                item = _hold_item(attempt_id, self.scale.hold_life_ms, key)
                (held,) = await _hold(stub, [item], self.server.metadata(PROJECT))
                if held.HasField("error"):
                    break
                self.held_nano_usd[held.attempt_id] = held.held_nano_usd
                await self._settle(stub, [_settle_item(held.attempt_id)])

    async def _budgets_hold(self, budgets: BudgetServiceAsyncStub) -> None:
        """No budget is overspent, the tightest is used, and each balance is what its calls cost."""
        standing = await self._standing(budgets)
        for one in standing:
            if one.status.settled_nano_usd > one.limit_nano_usd or one.status.held_nano_usd:
                raise Violation(f"a budget is overspent or holds money: {one}")
        project, team, *keys = [one.status.settled_nano_usd for one in standing]
        if not project == team == sum(keys):
            raise Violation(f"balances disagree: project {project}, tag {team}, keys {keys}")
        charged = self.outcome.abandoned * self.call_nano_usd
        if team != sum(self.settled_nano_usd.values()) + charged:
            raise Violation(f"{team} is charged, but calls cost {sum(self.settled_nano_usd.values())} + {charged}")
        self.outcome.used = team / standing[1].limit_nano_usd
        if self.outcome.used < USABLE_MIN:
            raise Violation(f"only {self.outcome.used:.4f} of the budget could be used")

    async def _standing(self, budgets: BudgetServiceAsyncStub) -> list[budget_pb2.Budget]:
        request = budget_pb2.ListBudgetsRequest()
        listed = await budgets.ListBudgets(request, metadata=self.server.metadata(PROJECT, "READ"))
        return list(listed.budgets)


async def _hold(
    stub: HoldServiceAsyncStub, items: list[hold_pb2.HoldItem], metadata: tuple[tuple[str, str], ...]
) -> list[hold_pb2.HoldOutcome]:
    """Hold a group; one call alone goes through the RPC for single calls, whose refusals are statuses."""
    if len(items) > 1:
        request = hold_pb2.HoldBatchRequest(items=items)
        return list((await stub.HoldBatch(request, metadata=metadata, timeout=RPC_DEADLINE_S)).outcomes)
    try:
        single = hold_pb2.HoldRequest(item=items[0])
        return [(await stub.Hold(single, metadata=metadata, timeout=RPC_DEADLINE_S)).outcome]
    except grpc.aio.AioRpcError as error:
        if error.code() not in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.FAILED_PRECONDITION):
            raise
        refusal = error_pb2.CallError(
            reason=error_pb2.ErrorReason.Value(f"ERROR_REASON_{error_from_rpc(error).reason}"),
            message=error.details() or "",
        )
        return [hold_pb2.HoldOutcome(attempt_id=items[0].attempt_id, error=refusal)]


def _hold_item(attempt_id: str, life_ms: int, key: int = 0) -> hold_pb2.HoldItem:
    return hold_pb2.HoldItem(
        attempt_id=attempt_id,
        nonce=f"nonce-{attempt_id}",
        provider="mock",
        model="small",
        output_tokens_max=OUTPUT_TOKENS,
        attribution=spend_pb2.Attribution(key_id=f"key_{key}", tags={"team": "chaos"}),
        expires_in_ms=life_ms,
    )


def _settle_item(attempt_id: str) -> hold_pb2.SettleItem:
    """As much as was held."""
    usage = usage_pb2.TokenUsage(output_tokens=OUTPUT_TOKENS, source=usage_pb2.USAGE_SOURCE_MEASURED)
    return hold_pb2.SettleItem(attempt_id=attempt_id, usage=usage, succeeded=True)


async def run_seed(seed: int, kind: DatabaseKind, scale: Scale) -> Outcome:
    """Run one seed; what it broke, if anything, is in the outcome."""
    outcome = Outcome(seed, kind)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="llmlab-chaos-") as folder:
        try:
            async with asyncio.timeout(SEED_TIMEOUT_S), cost_server(kind, Path(folder), SETTINGS) as server:
                await Chaos(server, scale, outcome).run()
        except* (Violation, TimeoutError, grpc.aio.AioRpcError) as broken:
            outcome.failure = "; ".join(_leaves(broken))
    outcome.seconds = round(time.monotonic() - began, 1)
    outcome.used = round(outcome.used, 5)
    return outcome


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[str]:
    found: list[str] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [f"{type(error).__name__}: {error}"]
    return found


def main() -> int:
    """Run the seeds, PostgreSQL and SQLite by turns; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--database", choices=["postgresql", "sqlite", "both"], default="both")
    chosen = parser.parse_args()
    kinds: list[DatabaseKind] = ["postgresql", "sqlite"] if chosen.database == "both" else [chosen.database]
    outcomes: list[Outcome] = []
    for seed in range(chosen.first_seed, chosen.first_seed + chosen.seeds):
        outcome = uvloop.run(run_seed(seed, kinds[seed % len(kinds)], Scale()))
        outcomes.append(outcome)
        print(_line(outcome), flush=True)
    failed = [outcome.seed for outcome in outcomes if outcome.failure]
    totals = {
        name: sum(getattr(outcome, name) for outcome in outcomes)
        for name in ("calls", "held", "settled", "refused", "abandoned", "repeats", "kills")
    }
    used_min = min(outcome.used for outcome in outcomes)
    summary = {"chaos": "budget", "seeds": len(outcomes), "failed_seeds": failed, "used_min": used_min, **totals}
    print(json.dumps(summary))
    return 1 if failed else 0


def _line(outcome: Outcome) -> str:
    fields: dict[str, Any] = asdict(outcome)
    failure = fields.pop("failure")
    return " ".join(f"{name}={value}" for name, value in fields.items()) + (f" FAILED: {failure}" if failure else " ok")


if __name__ == "__main__":
    sys.exit(main())
