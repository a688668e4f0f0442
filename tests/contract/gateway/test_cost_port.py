"""One suite for both adapters of the gateway's port to the cost service: in memory, and the real service over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from services.cost import wiring as cost_wiring
from services.cost.settings import CostSettings
from services.gateway.calls import Owner
from services.gateway.cost_port import CostPort, Reservation, Settlement
from services.gateway.peers import CostPeer
from services.gateway.settings import GatewaySettings
from services.gateway.traced import TracedCost
from services.gateway.usage import TokenUsage
from services.runtime.auth import ServiceTokenMinter
from services.runtime.channel import open_channel
from services.runtime.clock import SYSTEM_CLOCK
from services.runtime.errors import DomainError
from services.runtime.tracing import continued, open_tracing
from tests.support.gateway import OWNER, InMemoryLedger
from tests.support.gateway_rpc import SERVICE_KEY, TRACED
from tests.support.spans import spans_of

RESERVATION = Reservation("call/1", "n1", "mock", "small", 100, 100, "run_1", (("feature", "search"),), 60_000)


def settlement(attempt_id: str = "call/1") -> Settlement:
    usage = TokenUsage(input_tokens=10, output_tokens=5)
    return Settlement(attempt_id, usage, "small", SYSTEM_CLOCK.now_us(), succeeded=True)


@pytest.fixture(params=["in memory", "over gRPC"])
async def port(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CostPort]:
    if request.param == "in memory":
        yield InMemoryLedger()
        return
    async with cost_peer(tmp_path / "home") as peer:
        yield peer


@asynccontextmanager
async def cost_peer(home: Path, spans: Path | None = None) -> AsyncIterator[CostPeer]:
    books = CostSettings(port=0, home=home, auth_service_key=SERVICE_KEY, trace_file=spans, trace_ratio=0)
    async with cost_wiring.build(books) as server:
        settings = GatewaySettings(home=home, auth_service_key=SERVICE_KEY, cost_projects_max=2)
        async with open_channel(server.address, settings) as channel:
            peer = CostPeer(channel, ServiceTokenMinter.from_settings(settings), settings)
            yield peer
            await peer.close()


async def test_hold_and_settle(port: CostPort) -> None:
    await port.hold(OWNER, RESERVATION)
    cost = await port.settle(OWNER, settlement())
    assert cost.cost_nano_usd > 0
    assert cost.unpriced_calls == 0


async def test_a_repeat_with_the_same_nonce_is_the_same_hold(port: CostPort) -> None:
    await port.hold(OWNER, RESERVATION)
    await port.hold(OWNER, RESERVATION)


async def test_another_nonce_is_refused(port: CostPort) -> None:
    await port.hold(OWNER, RESERVATION)
    with pytest.raises(DomainError) as refusal:
        await port.hold(OWNER, replace(RESERVATION, nonce="n2"))
    assert (refusal.value.code, refusal.value.reason) == ("ALREADY_EXISTS", "HOLD_NONCE_MISMATCH")


async def test_settling_twice_is_settling_once(port: CostPort) -> None:
    await port.hold(OWNER, RESERVATION)
    once = settlement()
    assert await port.settle(OWNER, once) == await port.settle(OWNER, once)


async def test_settling_without_a_hold_is_refused(port: CostPort) -> None:
    with pytest.raises(DomainError) as refusal:
        await port.settle(OWNER, settlement("nobody/1"))
    assert refusal.value.code == "NOT_FOUND"


async def test_releasing_is_idempotent_and_needs_no_hold(port: CostPort) -> None:
    await port.hold(OWNER, RESERVATION)
    await port.release(OWNER, "call/1")
    await port.release(OWNER, "call/1")
    await port.release(OWNER, "nobody/1")


async def test_one_bad_item_does_not_harm_those_that_share_its_rpc(port: CostPort) -> None:
    await port.hold(OWNER, RESERVATION)
    others = [replace(RESERVATION, attempt_id=f"other/{number}") for number in range(20)]
    bad = replace(RESERVATION, nonce="n2")
    results = await asyncio.gather(*(port.hold(OWNER, one) for one in [*others, bad]), return_exceptions=True)
    assert results[:-1] == [None] * 20
    assert isinstance(results[-1], DomainError)


async def test_usage_for_which_nothing_was_held_is_recorded_once(tmp_path: Path) -> None:
    async with cost_peer(tmp_path / "home") as peer:
        once = settlement()
        await peer.record(OWNER, RESERVATION, once)
        await peer.record(OWNER, RESERVATION, once)
        assert not await peer.has_hard_budget(OWNER)


async def test_projects_have_their_own_attempts_and_batches(tmp_path: Path) -> None:
    async with cost_peer(tmp_path / "home") as peer:
        await peer.hold(OWNER, RESERVATION)
        for number in range(4):
            # More projects than batches are kept open for.
            await peer.hold(Owner(f"prj_{number + 2}"), replace(RESERVATION, nonce="their own"))
        assert (await peer.settle(OWNER, settlement())).cost_nano_usd > 0


async def test_a_call_is_billed_at_the_tier_that_answered_or_else_the_one_that_was_held(tmp_path: Path) -> None:
    async with cost_peer(tmp_path / "home") as peer:
        costs = []
        for number, (asked, answered) in enumerate((("", ""), ("flex", ""), ("", "flex"), ("flex", "default"))):
            attempt_id = f"call/{number}"
            held = replace(RESERVATION, attempt_id=attempt_id, provider="openai", model="gpt-5", service_tier=asked)
            await peer.hold(OWNER, held)
            ended = replace(settlement(attempt_id), provider_model="gpt-5", service_tier=answered)
            costs.append((await peer.settle(OWNER, ended)).cost_nano_usd)
        standard, flex = costs[0], costs[1]
        assert costs == [standard, flex, flex, standard]
        assert 0 < flex < standard


async def test_money_of_a_recorded_call_is_in_its_trace_on_both_sides(tmp_path: Path) -> None:
    file = tmp_path / "spans"
    gateway = GatewaySettings(trace_file=file)
    async with cost_peer(tmp_path / "home", file) as peer:
        with open_tracing(gateway) as tracer:
            assert tracer is not None
            port = TracedCost(peer, tracer)
            with continued(TRACED):
                await port.hold(OWNER, RESERVATION)
                await port.release(OWNER, RESERVATION.attempt_id)
                await port.record(OWNER, replace(RESERVATION, attempt_id="call/2"), settlement("call/2"))
            await port.hold(OWNER, replace(RESERVATION, attempt_id="call/3"))
            await port.release(OWNER, "call/3")
    spans = spans_of(file)
    names = {span["span_id"]: f"{span['service']} {span['name']}" for span in spans}
    found = {(names[span["span_id"]], names.get(span["parent_span_id"], "")) for span in spans}
    assert found == {
        ("llmlab-gateway hold", ""),
        ("llmlab-cost hold", "llmlab-gateway hold"),
        ("llmlab-gateway release", ""),
        ("llmlab-cost release", "llmlab-gateway release"),
        ("llmlab-gateway record", ""),
    }
    assert {span["trace_id"] for span in spans} == {TRACED[3:35]}
    assert {span["attributes"]["llmlab.attempt.id"] for span in spans} == {"call/1", "call/2"}
