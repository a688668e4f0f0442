"""What the gateway puts into spans: names of the conventions for generative models, texts only where asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from llmlab.api.common.v1 import content_pb2
from llmlab.api.gateway.v1 import chat_pb2, chat_pb2_grpc, gateway_pb2_grpc
from services.gateway import wiring
from services.gateway.settings import GatewaySettings
from services.runtime.server import RunningServer
from tests.support.gateway_rpc import TRACED, Caller, options, rpc_call, token_of
from tests.support.spans import spans_of, way


async def spans_after(settings: GatewaySettings, cost: RunningServer, file: Path, **more: Any) -> list[dict[str, Any]]:
    """The spans of a gateway that answers a batch: one call of another trace, one of none, one that fails."""
    traced = settings.model_copy(update={"trace_file": file, "trace_ratio": 0.0, **more})
    async with (
        wiring.build(traced, environ={}) as gateway,
        grpc.aio.insecure_channel(gateway.address) as channel,
        grpc.aio.insecure_channel(cost.address) as costs,
    ):
        caller = Caller(gateway_pb2_grpc.GatewayServiceStub(channel), costs)
        outcomes = await caller.batch(
            rpc_call("About zebras.", call_id="followed", traceparent=TRACED, run_id="run_1"),
            rpc_call("About zebras.", call_id="not-followed"),
            rpc_call(call_id="odd", traceparent="nonsense"),
            rpc_call(call_id="failed", traceparent=TRACED, parameters=options(error_rate=1, error_kinds="rate_limit")),
        )
    assert {call_id for call_id, outcome in outcomes.items() if outcome.HasField("error")} == {"failed"}
    return spans_of(file)


@pytest.mark.parametrize("texts", [False, True])
async def test_the_calls_of_a_batch_are_in_the_traces_that_they_belong_to(
    settings: GatewaySettings, cost: RunningServer, tmp_path: Path, texts: bool
) -> None:
    spans = await spans_after(settings, cost, tmp_path / "spans", trace_texts=texts)
    assert {span["trace_id"] for span in spans} == {TRACED[3:35]}
    calls = {span["attributes"]["llmlab.call.id"]: span for span in spans if span["name"] == "call"}
    assert {call_id: span["status"] for call_id, span in calls.items()} == {"followed": "UNSET", "failed": "ERROR"}
    assert {span["parent_span_id"] for span in calls.values()} == {TRACED[36:52]}
    assert calls["followed"]["attributes"]["llmlab.run.id"] == "run_1"
    assert calls["failed"]["attributes"]["error.type"] == "RATE_LIMITED"

    below = [span for span in spans if span["parent_span_id"] == calls["followed"]["span_id"]]
    assert [(span["name"], span["kind"]) for span in below] == [
        ("hold", "CLIENT"),
        ("chat instant", "CLIENT"),
        ("settle", "CLIENT"),
    ]
    chat, settled = below[1]["attributes"], below[2]["attributes"]
    assert settled["llmlab.cost.unpriced"] is False
    assert chat["gen_ai.operation.name"] == "chat"
    assert chat["gen_ai.provider.name"] == "mock"
    assert chat["gen_ai.request.model"] == "instant"
    assert chat["gen_ai.request.stream"] is False
    assert chat["gen_ai.response.finish_reasons"] == ["stop"]
    assert chat["gen_ai.usage.input_tokens"] > 0
    assert chat["llmlab.attempt.id"] == "followed/1"
    if texts:
        asked = [{"role": "user", "parts": [{"type": "text", "content": "About zebras."}]}]
        assert json.loads(chat["gen_ai.input.messages"]) == asked
        (answered,) = json.loads(chat["gen_ai.output.messages"])
        assert answered["role"] == "assistant"
        assert answered["parts"][0]["content"]
    else:
        assert "zebras" not in json.dumps(spans)
        assert not {name for name in chat if name.endswith(".messages")}


async def test_a_chat_turn_is_in_the_trace_of_who_asked(settings: GatewaySettings, tmp_path: Path) -> None:
    traced = settings.model_copy(update={"chat_history": True, "trace_file": tmp_path / "spans", "trace_ratio": 0.0})
    async with wiring.build(traced, environ={}) as gateway, grpc.aio.insecure_channel(gateway.address) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        create = chat_pb2.CreateChatSessionRequest(model="mock/instant")
        session = (await stub.CreateChatSession(create, metadata=token_of())).session
        parts = [content_pb2.ContentPart(text="About zebras.")]
        ask = chat_pb2.SendChatMessageRequest(session_id=session.session_id, parts=parts)
        async for _ in stub.SendChatMessage(ask, metadata=(*token_of(), ("traceparent", TRACED))):
            pass
    spans = spans_of(tmp_path / "spans")
    asked = "llmlab.api.gateway.v1.ChatService/SendChatMessage"
    below = [("hold", "call"), ("chat instant", "call"), ("settle", "call")]
    assert sorted(way(spans)) == sorted([(asked, ""), ("call", asked), *below])
    assert {span["trace_id"] for span in spans} == {TRACED[3:35]}
    assert "zebras" not in json.dumps(spans)
