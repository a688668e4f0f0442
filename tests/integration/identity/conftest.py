"""A real identity server on a free port, on each database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from llmlab.api.identity.v1.identity_pb2_grpc import IdentityServiceStub
from services.identity.settings import IdentitySettings
from services.identity.wiring import build
from services.runtime.server import RunningServer

if TYPE_CHECKING:
    from llmlab.api.identity.v1.identity_pb2_grpc import IdentityServiceAsyncStub

SERVICE_KEY = "5e" * 32


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> IdentitySettings:
    return IdentitySettings(
        port=0, home=tmp_path / "home", database_url=database_url, auth_service_key=SERVICE_KEY, email_attempts=3
    )


@pytest.fixture
async def server(settings: IdentitySettings) -> AsyncIterator[RunningServer]:
    async with build(settings) as server:
        yield server


@pytest.fixture
async def channel(server: RunningServer) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield channel


@pytest.fixture
def identity(channel: grpc.aio.Channel) -> IdentityServiceAsyncStub:
    return IdentityServiceStub(channel)
