"""Bills that the ledger settles itself, and what the cost service's words mean."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from llmlab.api.common.v1 import usage_pb2
from llmlab.api.cost.v1 import hold_pb2
from services.orchestrator.calls import NO_USAGE, AttemptState, Money, ResolvedAttempt, Settlement
from services.orchestrator.ledger import CellSettled, OpenBill
from services.orchestrator.peers.cost import GrpcBills
from services.orchestrator.policy import WorkerPolicy
from services.orchestrator.resolving import OpenBills
from services.orchestrator.states import CellStatus
from services.runtime.auth import ServiceTokenMinter
from services.runtime.clock import SYSTEM_CLOCK
from tests.support.orchestrator import PRICE, USAGE, eventually

WORST_CASE = Money(1_000)


class Expired:
    """A cost service in which every hold has expired, charged with its worst case."""

    def __init__(self) -> None:
        self.settled: list[Settlement] = []

    async def resolve_attempts(self, project_id: str, hold_ids: Sequence[str]) -> list[ResolvedAttempt]:
        return [ResolvedAttempt(hold_id, AttemptState.EXPIRED, NO_USAGE, WORST_CASE) for hold_id in hold_ids]

    async def settle(self, project_id: str, settlements: Sequence[Settlement]) -> list[Money | None]:
        self.settled.extend(settlements)
        return [PRICE for _ in settlements]


async def test_a_known_result_is_settled_also_after_its_hold_expired() -> None:
    bills = Expired()
    written: list[CellSettled] = []
    policy = WorkerPolicy(settle_after_ms=0)
    open_bills = OpenBills("run_1", "prj_1", bills, policy, random.Random(1), SYSTEM_CLOCK, written.append)
    open_bills.add(OpenBill(3, 2, CellStatus.DONE, USAGE, "small-1", 7))
    task = asyncio.create_task(open_bills.run())
    try:
        await eventually(lambda: written)
    finally:
        task.cancel()

    assert [(item.attempt_id, item.usage) for item in bills.settled] == [("run_1/3/2/1", USAGE)]
    assert written == [CellSettled("run_1", 3, NO_USAGE, PRICE)]


class Answering:
    """A channel on which every RPC gets one answer."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def unary_unary(self, *arguments: Any, **named: Any) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any, **named: Any) -> Any:
            return self._answer

        return call


@pytest.mark.parametrize(
    ("state", "cost"),
    [
        (hold_pb2.ATTEMPT_STATE_HELD, None),
        (hold_pb2.ATTEMPT_STATE_SETTLED, Money(9)),
        (hold_pb2.ATTEMPT_STATE_EXPIRED, Money(9)),
    ],
)
async def test_a_hold_that_is_open_has_no_cost_yet(state: hold_pb2.AttemptState.ValueType, cost: Money | None) -> None:
    attempt = hold_pb2.ResolvedAttempt(attempt_id="a", state=state, cost=usage_pb2.Cost(cost_nano_usd=9))
    channel = cast("grpc.aio.Channel", Answering(hold_pb2.ResolveAttemptsResponse(attempts=[attempt])))
    minter = ServiceTokenMinter("orchestrator", Ed25519PrivateKey.generate())

    (resolved,) = await GrpcBills(channel, minter).resolve_attempts("prj_1", ["a"])

    assert resolved.cost == cost
