"""A real gateway beside a real cost service, both on free ports of loopback, over SQLite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from llmlab.api.gateway.v1 import gateway_pb2_grpc
from services.cost import wiring as cost_wiring
from services.cost.settings import CostSettings
from services.gateway import wiring as gateway_wiring
from services.gateway.settings import GatewaySettings
from services.runtime.server import RunningServer
from tests.support.gateway_rpc import SERVICE_KEY, Caller


@pytest.fixture
async def cost(tmp_path: Path, sqlite_url: str) -> AsyncIterator[RunningServer]:
    settings = CostSettings(port=0, home=tmp_path / "home", database_url=sqlite_url, auth_service_key=SERVICE_KEY)
    async with cost_wiring.build(settings) as server:
        yield server


@pytest.fixture
def settings(cost: RunningServer, tmp_path: Path) -> GatewaySettings:
    return GatewaySettings(
        port=0,
        home=tmp_path / "home",
        auth_service_key=SERVICE_KEY,
        cost_target=cost.address,
        hold_wait_ms=2_000,
        # A few outcomes fill a message, so that batches are split.
        batch_flush_bytes=1_024,
    )


@pytest.fixture
async def gateway(settings: GatewaySettings) -> AsyncIterator[RunningServer]:
    async with gateway_wiring.build(settings, environ={}) as server:
        yield server


@pytest.fixture
async def caller(gateway: RunningServer, cost: RunningServer) -> AsyncIterator[Caller]:
    async with grpc.aio.insecure_channel(gateway.address) as channel, grpc.aio.insecure_channel(cost.address) as costs:
        yield Caller(gateway_pb2_grpc.GatewayServiceStub(channel), costs)
