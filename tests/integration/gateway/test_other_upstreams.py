"""A second upstream answers instead of the first, over real sockets and in another format: nothing twice, all paid."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from llmlab.api.common.v1 import error_pb2
from llmlab.api.cost.v1 import hold_pb2
from llmlab.api.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from services.gateway.settings import GatewaySettings
from services.gateway.wiring import build
from services.runtime.server import RunningServer
from tests.support.gateway_rpc import Caller, refusal_of, rpc_call, token_of
from tests.support.provider_streams import ANTHROPIC, JSON, OPENAI, SSE
from tests.support.replay import Asked, ReplayServer, Reply, replay_server

CATALOGUE = """
providers:
  - {{name: first, kind: openai, base_url: "{first}", models: [{{name: m}}]}}
  - {{name: spare, kind: anthropic, base_url: "{spare}", models: [{{name: m}}]}}
models:
  - name: safe
    deployments: [{{model: first/m}}]
    fallbacks: {{general: [spare/m], context_window: [spare/m]}}
  # The turns begin with the first.
  - name: quick
    deployments: [{{model: first/m, weight: 1000}}, {{model: spare/m, weight: 0.001}}]
    hedge_after_ms: 20
"""
WHOLE = Reply(headers=SSE, pieces=tuple(ANTHROPIC))


@dataclass
class World:
    """A caller of a gateway, and the two upstreams behind it."""

    caller: Caller
    first: ReplayServer
    spare: ReplayServer

    async def states(self, *attempt_ids: str) -> list[int]:
        return [(await self.caller.attempt_state(attempt_id)).state for attempt_id in attempt_ids]


async def opened(settings: GatewaySettings, cost: RunningServer, tmp_path: Path) -> AsyncIterator[World]:
    file = tmp_path / "catalogue.yaml"
    async with replay_server(lambda _: Reply()) as first, replay_server(lambda _: WHOLE) as spare:
        file.write_text(CATALOGUE.format(first=first.base_url, spare=spare.base_url))
        own = settings.model_copy(
            update={"catalogue_file": file, "retries_max": 0, "breaker_consecutive_failures": 10_000}
        )
        async with (
            build(own, environ={}) as gateway,
            grpc.aio.insecure_channel(gateway.address) as channel,
            grpc.aio.insecure_channel(cost.address) as costs,
        ):
            yield World(Caller(gateway_pb2_grpc.GatewayServiceStub(channel), costs), first, spare)


@pytest.fixture
async def world(settings: GatewaySettings, cost: RunningServer, tmp_path: Path) -> AsyncIterator[World]:
    async for one in opened(settings, cost, tmp_path):
        yield one


def text_of(chunks: list[gateway_pb2.Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


async def test_a_conversation_that_is_too_long_is_answered_by_another_kind_of_model(world: World) -> None:
    body = b'{"error": {"message": "too long", "code": "context_length_exceeded"}}'
    world.first.script = lambda _: Reply(status=400, headers=JSON, pieces=(body,))
    chunks = await world.caller.stream(rpc_call(model="safe", call_id="long"))
    assert text_of(chunks) == "Blüe."
    refused, answered = chunks[-1].finished.attempts
    assert (refused.deployment, refused.error.reason) == ("first/m", error_pb2.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED)
    assert (answered.deployment, answered.cause) == ("spare/m", gateway_pb2.ATTEMPT_CAUSE_FALLBACK)
    assert world.spare.asked[0].path.endswith("/messages")
    assert await world.states("long/1", "long/2") == [hold_pb2.ATTEMPT_STATE_SETTLED] * 2


async def test_wherever_the_first_is_cut_no_text_comes_twice(world: World) -> None:
    whole = b"".join(OPENAI)
    ends = set()
    for cut in [0, *itertools.accumulate(map(len, OPENAI))][:-2]:
        world.first.script = reply_of(Reply(headers=SSE, pieces=(whole[:cut],), cut=True))
        before = len(world.spare.asked)
        seen: list[str] = []
        try:
            await follow(world.caller, rpc_call(model="safe", call_id=f"cut-{cut}"), seen)
        except grpc.aio.AioRpcError:
            ends.add("cut")
            assert "".join(seen) in ("", "Blü", "Blüe.")
            assert len(world.spare.asked) == before
        else:
            # Nothing of the first had been shown: the answer is the spare's, whole.
            ends.add("fallen back")
            assert "".join(seen) == "Blüe."
            assert len(world.spare.asked) == before + 1
    assert ends == {"cut", "fallen back"}
    assert (await world.caller.spend()).held_nano_usd == 0


async def test_where_both_must_not_be_paid_a_cut_before_the_first_text_is_the_end(
    settings: GatewaySettings, cost: RunningServer, tmp_path: Path
) -> None:
    async for world in opened(settings.model_copy(update={"retry_ambiguous": False}), cost, tmp_path):
        world.first.script = lambda _: Reply(headers=SSE, pieces=(OPENAI[0],), cut=True)
        refused, error = await refusal_of(world.caller.complete(rpc_call(model="safe")))
        assert (refused.reason, error.retryable, world.spare.asked) == ("STREAM_TRUNCATED", True, [])


def reply_of(reply: Reply) -> Callable[[Asked], Reply]:
    return lambda _: reply


async def follow(caller: Caller, call: gateway_pb2.Call, seen: list[str]) -> None:
    """Passes the stream's text on as it comes, up to its error too."""
    request = gateway_pb2.StreamCompleteRequest(call=call)
    async for message in caller.stub.StreamComplete(request, metadata=token_of()):
        seen += [chunk.text for chunk in message.chunks]


async def test_a_rival_that_is_first_wins_and_the_losers_socket_is_closed(world: World) -> None:
    world.first.script = lambda _: Reply(headers=SSE, pieces=tuple(OPENAI[:1]), hold=True)
    chunks = await world.caller.stream(rpc_call(model="quick", call_id="race"))
    await world.first.client_left.wait()
    assert text_of(chunks) == "Blüe."
    assert {chunk.started.attempt_id for chunk in chunks if chunk.HasField("started")} == {"race/2"}
    lost, won = chunks[-1].finished.attempts
    assert (lost.attempt_id, lost.error.reason) == ("race/1", error_pb2.ERROR_REASON_CANCELLED)
    assert (won.attempt_id, won.cause) == ("race/2", gateway_pb2.ATTEMPT_CAUSE_HEDGE)
    assert lost.usage.input_tokens > 0
    assert await world.states("race/1", "race/2") == [hold_pb2.ATTEMPT_STATE_SETTLED] * 2
    assert (await world.caller.spend()).held_nano_usd == 0
