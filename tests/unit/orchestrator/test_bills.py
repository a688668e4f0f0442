"""Costs that become known after their calls, and what the cost service's words mean."""

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
from services.orchestrator.bills import OpenBills, known_costs
from services.orchestrator.calls import NO_USAGE, AttemptState, Money, ResolvedAttempt, Settlement
from services.orchestrator.ledger import CellSettled, OpenBill
from services.orchestrator.peers.cost import GrpcBills
from services.orchestrator.policy import WorkerPolicy
from services.orchestrator.states import CellStatus
from services.runtime.auth import ServiceTokenMinter
from services.runtime.backoff import Backoff
from services.runtime.clock import SYSTEM_CLOCK
from services.runtime.errors import DomainError, InvalidField, WrongState
from tests.support.orchestrator import PRICE, USAGE, World, WorldBills, eventually

WORST_CASE = Money(1_000)
UNPRICED = Money(0, 1)


class Cost:
    """A cost service in which every attempt is in one state, and which refuses what it is told to."""

    def __init__(
        self, state: AttemptState, *, item: dict[str, DomainError] | None = None, batch: frozenset[str] = frozenset()
    ) -> None:
        self.state = state
        self.item = item or {}
        self.batch = batch
        self.settled: list[Settlement] = []

    async def resolve_attempts(self, project_id: str, hold_ids: Sequence[str]) -> list[ResolvedAttempt]:
        cost = None if self.state is AttemptState.HELD else WORST_CASE
        return [ResolvedAttempt(hold_id, self.state, NO_USAGE, cost) for hold_id in hold_ids]

    async def settle(self, project_id: str, settlements: Sequence[Settlement]) -> list[Money | DomainError]:
        if self.batch.intersection(item.attempt_id for item in settlements):
            raise InvalidField("items[0].provider_model", "is too long")
        self.settled.extend(settlements)
        return [self.item.get(item.attempt_id, PRICE) for item in settlements]


def bill(cell: int, status: CellStatus = CellStatus.DONE, attempt: int = 1) -> OpenBill:
    return OpenBill("run_1", cell, attempt, status, USAGE, "small-1", 7)


@pytest.mark.parametrize("state", [AttemptState.HELD, AttemptState.EXPIRED])
async def test_a_known_outcome_is_settled_also_after_its_hold_expired(state: AttemptState) -> None:
    cost = Cost(state)

    known = await known_costs(cost, "prj_1", [bill(3, attempt=2)])

    assert [(item.attempt_id, item.usage) for item in cost.settled] == [("run_1/3/2/1", USAGE)]
    assert known == [CellSettled("run_1", 3, 2, True, NO_USAGE, PRICE)]


@pytest.mark.parametrize(
    ("state", "cost"),
    [
        (AttemptState.HELD, None),
        (AttemptState.SETTLED, WORST_CASE),
        (AttemptState.EXPIRED, WORST_CASE),
    ],
)
async def test_an_unknown_outcome_is_read_and_never_settled(state: AttemptState, cost: Money | None) -> None:
    service = Cost(state)

    known = await known_costs(service, "prj_1", [bill(3, CellStatus.UNKNOWN)])

    assert [each.cost for each in known] == ([] if cost is None else [cost])
    assert not service.settled


async def test_a_refused_settlement_has_no_price_and_is_not_free(caplog: pytest.LogCaptureFixture) -> None:
    refused: DomainError = InvalidField("usage", "cannot be")
    known = await known_costs(
        Cost(AttemptState.HELD, item={"run_1/1/1/1": refused}), "prj_1", [bill(cell) for cell in range(3)]
    )

    assert [(each.cell, each.cost) for each in known] == [(0, PRICE), (1, UNPRICED), (2, PRICE)]
    assert "run_1/1/1/1 stays unknown" in caplog.text


async def test_a_refused_request_is_halved_until_the_wrong_bill_is_alone() -> None:
    service = Cost(AttemptState.HELD, batch=frozenset({"run_1/5/1/1"}))

    known = await known_costs(service, "prj_1", [bill(cell) for cell in range(8)])

    assert {each.cell: each.cost for each in known} == dict.fromkeys(range(8), PRICE) | {5: UNPRICED}
    assert "run_1/5/1/1" not in {item.attempt_id for item in service.settled}


@pytest.mark.parametrize("state", [AttemptState.RELEASED, AttemptState.TOMBSTONED])
async def test_a_call_that_was_made_without_a_hold_has_no_price(state: AttemptState) -> None:
    (known,) = await known_costs(Cost(state), "prj_1", [bill(0)])

    assert known.cost == UNPRICED


@pytest.mark.parametrize(
    "error",
    [
        WrongState("HOLD_RESOLVED", "settled in the meantime"),
        DomainError("INTERNAL", "a fault", code="INTERNAL"),
    ],
)
async def test_what_may_be_known_later_stays_open(error: DomainError) -> None:
    assert await known_costs(Cost(AttemptState.HELD, item={"run_1/0/1/1": error}), "prj_1", [bill(0)]) == []


async def test_a_cell_waits_for_its_bills_for_a_while_only() -> None:
    world = World(cost_down=True)
    given_up: list[int] = []
    open_bills = OpenBills(
        "prj_1",
        WorldBills(world),
        WorkerPolicy(settle_after_ms=0, bill_wait_ms=30, peer=Backoff(base_ms=1, cap_ms=2)),
        random.Random(1),
        SYSTEM_CLOCK,
        settled=lambda settled: None,
        given_up=given_up.extend,
    )
    open_bills.add(bill(3))
    open_bills.add(bill(3, CellStatus.FAILED, attempt=2))
    assert 3 in open_bills
    task = asyncio.create_task(open_bills.run())
    try:
        await eventually(lambda: given_up)
    finally:
        task.cancel()

    assert given_up == [3, 3]
    assert 3 not in open_bills


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
