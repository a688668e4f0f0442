"""Aliases, deployments and fallbacks over gRPC, with a catalogue that changes while the gateway runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from llmlab.api.gateway.v1 import gateway_pb2, gateway_pb2_grpc, provider_pb2, provider_pb2_grpc
from services.gateway.settings import GatewaySettings
from services.gateway.wiring import build
from services.runtime.server import RunningServer
from tests.support.gateway_rpc import Caller, refusal_of, rpc_call, token_of

if TYPE_CHECKING:
    from llmlab.api.gateway.v1.provider_pb2_grpc import ProviderServiceAsyncStub

# Nothing listens on port 1.
CATALOGUE = """
providers:
  - name: away
    kind: openai
    base_url: "http://127.0.0.1:1/v1"
    models: [{name: m, capabilities: [tools], requests_per_minute: 60, tokens_per_minute: 6000000, burst_s: 5}]
models:
  - name: shaky
    deployments: [{model: away/m, weight: 9}]
    fallbacks: {general: [mock/small]}
  - name: spread
    deployments: [{model: mock/small, weight: 2}, {model: mock/instant}]
aliases: {fast: ALIAS}
"""


@dataclass(frozen=True)
class Routed:
    """A caller, and the gateway's catalogue file."""

    caller: Caller
    file: Path
    server: RunningServer
    providers: ProviderServiceAsyncStub

    async def models(self) -> dict[str, gateway_pb2.Model]:
        answer = await self.caller.stub.ListModels(gateway_pb2.ListModelsRequest(page_size=1_000), metadata=token_of())
        return {model.name: model for model in answer.models}

    async def states(self, provider: str) -> list[provider_pb2.DeploymentState]:
        answer = await self.providers.ListProviders(provider_pb2.ListProvidersRequest(), metadata=token_of())
        return next(list(found.deployments) for found in answer.providers if found.name == provider)


@pytest.fixture
async def routed(settings: GatewaySettings, cost: RunningServer, tmp_path: Path) -> AsyncIterator[Routed]:
    file = tmp_path / "catalogue.yaml"
    file.write_text(CATALOGUE.replace("ALIAS", "mock/small"))
    own = settings.model_copy(update={"catalogue_file": file, "catalogue_poll_s": 0.02, "retries_max": 0})
    async with (
        build(own, environ={}) as server,
        grpc.aio.insecure_channel(server.address) as channel,
        grpc.aio.insecure_channel(cost.address) as costs,
    ):
        caller = Caller(gateway_pb2_grpc.GatewayServiceStub(channel), costs)
        yield Routed(caller, file, server, provider_pb2_grpc.ProviderServiceStub(channel))


async def test_aliases_and_deployments_answer_and_say_who_did(routed: Routed) -> None:
    caller = routed.caller
    completion = await caller.complete(rpc_call(model="fast"))
    assert (completion.model, completion.attempts[0].deployment) == ("fast", "mock/small")
    spread = [(await caller.complete(rpc_call(model="spread"))).attempts for _ in range(6)]
    assert sorted(attempt.deployment for (attempt,) in spread) == ["mock/instant"] * 2 + ["mock/small"] * 4


async def test_a_fallback_answers_a_direct_call_and_not_one_of_a_batch(routed: Routed) -> None:
    caller = routed.caller
    chunks = await caller.stream(rpc_call(model="shaky", call_id="direct"))
    end = chunks[-1].finished
    # What was never sent anywhere is not among the attempts.
    (attempt,) = end.attempts
    assert (attempt.deployment, attempt.cause) == ("mock/small", gateway_pb2.ATTEMPT_CAUSE_FALLBACK)
    assert (attempt.attempt_id, chunks[0].started.attempt_id) == ("direct/2", "direct/2")
    outcomes = await caller.batch(rpc_call(model="shaky", call_id="batch"))
    assert not outcomes["batch"].HasField("completion")
    allowed = rpc_call(model="shaky", call_id="allowed", resilience=gateway_pb2.Resilience(fallbacks=True))
    assert (await caller.batch(allowed))["allowed"].HasField("completion")
    assert (await caller.spend()).held_nano_usd == 0


async def test_models_are_listed_with_what_they_stand_for(routed: Routed) -> None:
    models = await routed.models()
    assert (models["fast"].alias_of, models["fast"].configured) == ("mock/small", True)
    assert [(place.model, place.weight) for place in models["spread"].deployments] == [
        ("mock/small", 2.0),
        ("mock/instant", 1.0),
    ]
    assert models["shaky"].fallbacks.general == ["mock/small"]
    assert models["away/m"].capabilities == gateway_pb2.Capabilities(tools=True)
    assert not models["mock/small"].HasField("capabilities")


async def test_limits_are_shown_as_they_are_used(routed: Routed) -> None:
    before = await routed.states("away")
    assert [(state.model, state.requests.left, state.requests.burst) for state in before] == [("away/m", 5, 5)]
    assert not before[0].HasField("circuit_breaker")
    # Nothing can be sent there, so what was taken is given back, and the breaker has seen it.
    await refusal_of(routed.caller.complete(rpc_call(model="away/m")))
    (after,) = await routed.states("away")
    assert (after.tokens.per_minute, after.tokens.burst) == (6_000_000, 500_000)
    assert (after.requests.left, after.circuit_breaker.failed_calls) == (5, 1)


async def test_what_a_model_cannot_do_names_the_field(routed: Routed) -> None:
    refused, error = await refusal_of(routed.caller.complete(rpc_call(model="away/m", response_json_schema="{}")))
    assert (refused.code, refused.reason, error.dispatched) == ("INVALID_ARGUMENT", "INVALID_FIELD", False)
    assert refused.violations[0].field == "call.response_json_schema"


async def test_the_catalogue_is_followed_without_a_restart(routed: Routed) -> None:
    routed.file.write_text(CATALOGUE.replace("ALIAS", "mock/large"))
    assert routed.server.reload is not None
    routed.server.reload()
    while (await routed.models())["fast"].alias_of != "mock/large":
        pass
    assert (await routed.caller.complete(rpc_call(model="fast"))).attempts[0].deployment == "mock/large"
