"""An upstream that is cut anywhere ends the RPC with an error, in every wire format: never with a shorter answer."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from llmlab.api.common.v1 import error_pb2, usage_pb2
from llmlab.api.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from services.gateway.settings import GatewaySettings
from services.gateway.wiring import build
from services.runtime.server import RunningServer
from tests.support.gateway_rpc import refusal_of, rpc_call, token_of
from tests.support.provider_kinds import KINDS
from tests.support.provider_streams import SSE, STREAMS, sse
from tests.support.replay import ReplayServer, Reply, replay_server

CATALOGUE = """
providers:
  - {{name: anthropic, kind: anthropic, base_url: "{url}", models: [{{name: "*"}}]}}
  - {{name: gemini, kind: gemini, base_url: "{url}", models: [{{name: "*"}}]}}
  - {{name: openai, kind: openai, base_url: "{url}", models: [{{name: "*"}}]}}
  - {{name: responses, kind: openai, api: responses, base_url: "{url}", models: [{{name: "*"}}]}}
"""
ERRORS: dict[str, Any] = {
    "anthropic": {"type": "error", "error": {"type": "overloaded_error", "message": "no"}},
    "gemini": {"error": {"code": 503, "status": "UNAVAILABLE", "message": "no"}},
    "openai": {"error": {"code": 502, "message": "no"}},
    "responses": {"type": "error", "code": "server_error", "message": "no"},
}


@dataclass
class World:
    """A gateway, and the upstream behind it."""

    stub: Any
    upstream: ReplayServer

    async def stream(self, kind: str, call_id: str, reply: Reply) -> list[gateway_pb2.Chunk]:
        self.upstream.script = lambda _: reply
        request = gateway_pb2.StreamCompleteRequest(call=asked(kind, call_id))
        stream = self.stub.StreamComplete(request, metadata=token_of())
        return [chunk async for message in stream for chunk in message.chunks]

    async def complete(self, kind: str, call_id: str, reply: Reply) -> gateway_pb2.Completion:
        self.upstream.script = lambda _: reply
        request = gateway_pb2.CompleteRequest(call=asked(kind, call_id))
        answer: gateway_pb2.CompleteResponse = await self.stub.Complete(request, metadata=token_of())
        return answer.completion


def asked(kind: str, call_id: str) -> gateway_pb2.Call:
    call = rpc_call(call_id=call_id, model=f"{kind}/model")
    call.resilience.retries_max = 0
    return call


@pytest.fixture
async def world(settings: GatewaySettings, cost: RunningServer, tmp_path: Path) -> AsyncIterator[World]:
    file = tmp_path / "catalogue.yaml"
    async with replay_server(lambda _: Reply()) as upstream:
        file.write_text(CATALOGUE.format(url=upstream.base_url))
        # Every call fails here: an open breaker would keep the later ones from the upstream.
        own = settings.model_copy(
            update={"catalogue_file": file, "breaker_consecutive_failures": 10_000, "breaker_calls_min": 10_000}
        )
        async with (
            build(own, environ={}) as gateway,
            grpc.aio.insecure_channel(gateway.address) as channel,
        ):
            yield World(gateway_pb2_grpc.GatewayServiceStub(channel), upstream)


def cuts(kind: str) -> list[int]:
    """Every boundary between events but the last, and the middle of every event."""
    edges = [0, *itertools.accumulate(map(len, STREAMS[kind]))]
    middles = [(start + end) // 2 for start, end in itertools.pairwise(edges)]
    return sorted({*edges[:-1], *middles})


def check(error: error_pb2.CallError) -> None:
    assert error.reason == error_pb2.ERROR_REASON_STREAM_TRUNCATED
    assert error.partial_text in ("", "Blü", "Blüe.")
    assert error.dispatched
    assert error.usage.input_tokens > 0
    assert error.usage.source == usage_pb2.USAGE_SOURCE_ESTIMATED


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cut_anywhere_is_an_error(world: World, kind: str) -> None:
    whole = b"".join(STREAMS[kind])
    partial = set()
    for cut in cuts(kind):
        reply = Reply(headers=SSE, pieces=(whole[:cut],), cut=True)
        for way in (world.stream, world.complete):
            refused, error = await refusal_of(way(kind, f"{kind}/{cut}/{way.__name__}", reply))
            assert refused.code == "UNAVAILABLE", cut
            check(error)
            partial.add(error.partial_text)
    # Bytes that were in flight when the connection broke may be lost, but not all of them every time.
    assert "Blüe." in partial


@pytest.mark.parametrize("kind", KINDS)
async def test_a_body_that_ends_without_a_reason_is_an_error(world: World, kind: str) -> None:
    for count in range(len(STREAMS[kind]) - 2):
        reply = Reply(headers=SSE, pieces=tuple(STREAMS[kind][:count]))
        if any(word in piece for piece in reply.pieces for word in (b'finish_reason": "', b"stop_reason")):
            continue
        refused, error = await refusal_of(world.stream(kind, f"{kind}/{count}", reply))
        assert refused.code == "UNAVAILABLE", count
        check(error)
        sent = b"".join(reply.pieces)
        pieces = [piece for piece in ("Blü", "e.") if json.dumps(piece).encode() in sent]
        assert error.partial_text == "".join(pieces)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_inside_a_good_stream_is_an_error(world: World, kind: str) -> None:
    pieces = (*STREAMS[kind][:-2], *sse(ERRORS[kind]), *STREAMS[kind][-2:])
    refused, error = await refusal_of(world.stream(kind, kind, Reply(headers=SSE, pieces=pieces)))
    assert refused.code in ("UNAVAILABLE", "INTERNAL")
    assert (error.message, error.partial_text) == ("no", "Blüe.")
    assert error.usage.output_tokens > 0


@pytest.mark.parametrize("kind", KINDS)
async def test_the_whole_stream_is_a_success(world: World, kind: str) -> None:
    chunks = await world.stream(kind, kind, Reply(headers=SSE, pieces=tuple(STREAMS[kind])))
    assert "".join(chunk.text for chunk in chunks) == "Blüe."
    assert chunks[-1].finished.finish_reason == gateway_pb2.FINISH_REASON_TOOL_CALLS
