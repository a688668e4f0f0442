"""OpenAI, Anthropic and Gemini, configured by keys in the environment, against servers that speak their formats."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from llmlab.api.cost.v1 import hold_pb2
from llmlab.api.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from services.gateway.mockserver.server import serve_mock
from services.gateway.settings import GatewaySettings
from services.gateway.wiring import build
from services.runtime.server import RunningServer
from tests.support.gateway_rpc import Caller, rpc_call, token_of

MODELS = ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5", "google/gemini-2.5-flash"]


@pytest.fixture
def call_log(tmp_path: Path) -> Path:
    return tmp_path / "calls.jsonl"


@pytest.fixture
async def environ(call_log: Path) -> AsyncIterator[dict[str, str]]:
    async with serve_mock(call_log=call_log, any_model="instant") as base_url:
        yield {
            "OPENAI_API_KEY": "key-1",
            "OPENAI_BASE_URL": base_url,
            "ANTHROPIC_API_KEY": "key-2",
            "ANTHROPIC_BASE_URL": base_url.removesuffix("/v1"),
            "GOOGLE_API_KEY": "key-3",
            "GEMINI_BASE_URL": base_url.removesuffix("/v1"),
        }


@pytest.fixture
async def caller(settings: GatewaySettings, environ: dict[str, str], cost: RunningServer) -> AsyncIterator[Caller]:
    async with (
        build(settings, environ=environ) as gateway,
        grpc.aio.insecure_channel(gateway.address) as channel,
        grpc.aio.insecure_channel(cost.address) as costs,
    ):
        yield Caller(gateway_pb2_grpc.GatewayServiceStub(channel), costs)


def logged_ids(call_log: Path) -> list[str]:
    return [json.loads(line)["idempotency_key"] for line in call_log.read_text().splitlines()]


@pytest.mark.parametrize("model", MODELS)
async def test_unary_stream_and_batch_reach_the_provider_once_each(caller: Caller, call_log: Path, model: str) -> None:
    unary = await caller.complete(rpc_call(call_id="u", model=model))
    chunks = await caller.stream(rpc_call(call_id="s", model=model))
    batch = await caller.batch(*(rpc_call(call_id=f"b/{number}", model=model) for number in range(8)))
    assert unary.parts[0].text
    assert "".join(chunk.text for chunk in chunks)
    assert unary.provider_model == model.partition("/")[2]
    completions = [unary, chunks[-1].finished, *(outcome.completion for outcome in batch.values())]
    assert all(completion.cost.cost_nano_usd > 0 for completion in completions)
    assert all(completion.usage.output_tokens > 0 for completion in completions)
    assert sorted(logged_ids(call_log)) == sorted(["u/1", "s/1", *(f"b/{number}/1" for number in range(8))])
    resolved = await caller.attempt_state("u/1")
    assert resolved.state == hold_pb2.ATTEMPT_STATE_SETTLED


async def test_configured_models_say_so(caller: Caller) -> None:
    answer = await caller.stub.ListModels(gateway_pb2.ListModelsRequest(page_size=100), metadata=token_of())
    configured = {model.provider for model in answer.models if model.configured}
    assert configured == {"mock", "openai", "anthropic", "google"}


OWN = """
providers:
  - name: my-server
    kind: openai
    base_url: {base_url}
    api_key_variable: MY_KEY
    max_tokens_field: max_completion_tokens
    models: [{{name: "*"}}]
"""


async def test_a_compatible_provider_is_a_catalogue_entry(
    settings: GatewaySettings, cost: RunningServer, tmp_path: Path, call_log: Path
) -> None:
    file = tmp_path / "catalogue.yaml"
    async with serve_mock(call_log=call_log) as base_url:
        file.write_text(OWN.format(base_url=base_url))
        own = settings.model_copy(update={"catalogue_file": file})
        async with (
            build(own, environ={"MY_KEY": "k"}) as gateway,
            grpc.aio.insecure_channel(gateway.address) as channel,
            grpc.aio.insecure_channel(cost.address) as costs,
        ):
            caller = Caller(gateway_pb2_grpc.GatewayServiceStub(channel), costs)
            answer = await caller.complete(rpc_call(call_id="own", model="my-server/instant"))
    assert answer.parts[0].text
    assert answer.finish_reason == gateway_pb2.FINISH_REASON_STOP
    assert logged_ids(call_log) == ["own/1"]
