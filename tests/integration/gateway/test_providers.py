"""What callers see of a provider that fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from llmlab.api.gateway.v1 import gateway_pb2, gateway_pb2_grpc, provider_pb2, provider_pb2_grpc
from services.gateway.settings import GatewaySettings
from services.gateway.wiring import build
from services.runtime.server import RunningServer
from tests.support.gateway_rpc import Caller, refusal_of, rpc_call, token_of

# Nothing listens on port 1.
UNREACHABLE = """
providers:
  - name: away
    kind: openai
    base_url: http://127.0.0.1:1/v1
    models: [{name: "*"}]
"""


@pytest.fixture
def settings(settings: GatewaySettings, tmp_path: Path) -> GatewaySettings:
    file = tmp_path / "catalogue.yaml"
    file.write_text(UNREACHABLE)
    return settings.model_copy(
        update={"catalogue_file": file, "breaker_consecutive_failures": 2, "breaker_open_s": 60.0}
    )


@pytest.fixture
async def channel(settings: GatewaySettings) -> AsyncIterator[grpc.aio.Channel]:
    async with build(settings, environ={}) as server, grpc.aio.insecure_channel(server.address) as channel:
        yield channel


async def providers(channel: grpc.aio.Channel) -> dict[str, provider_pb2.Provider]:
    stub = provider_pb2_grpc.ProviderServiceStub(channel)
    found: list[provider_pb2.Provider] = []
    token = ""
    while True:
        request = provider_pb2.ListProvidersRequest(page_size=5, page_token=token)
        page = await stub.ListProviders(request, metadata=token_of())
        found += page.providers
        token = page.next_page_token
        if not token:
            break
    names = [provider.name for provider in found]
    assert names == sorted(names)
    return {provider.name: provider for provider in found}


async def test_an_open_breaker_is_told_to_callers_and_shown(channel: grpc.aio.Channel, cost: RunningServer) -> None:
    async with grpc.aio.insecure_channel(cost.address) as costs:
        caller = Caller(gateway_pb2_grpc.GatewayServiceStub(channel), costs)
        for _ in range(2):
            _, error = await refusal_of(caller.complete(rpc_call(model="away/m")))
            assert not error.dispatched
        refused, error = await refusal_of(caller.complete(rpc_call(model="away/m")))
        assert (refused.code, refused.reason, error.dispatched, error.retryable) == (
            "UNAVAILABLE",
            "CIRCUIT_OPEN",
            False,
            True,
        )
        assert refused.retry_after_ms is not None
        assert 0 < refused.retry_after_ms <= 60_000
        ignoring = rpc_call(model="away/m", resilience=gateway_pb2.Resilience(ignore_circuit_breaker=True))
        refused, _ = await refusal_of(caller.complete(ignoring))
        assert refused.reason == "NETWORK_ERROR"
    shown = await providers(channel)
    assert shown["mock"].configured
    assert shown["openai"].missing_setting == "OPENAI_API_KEY"
    (deployment,) = shown["away"].deployments
    assert deployment.model == "away/m"
    breaker = deployment.circuit_breaker
    assert (breaker.state, breaker.failed_calls, breaker.error_rate) == (provider_pb2.CIRCUIT_STATE_OPEN, 2, 1.0)
    assert breaker.HasField("next_probe_at")
