"""A real metrics server on a free port. It computes in a thread, which starts faster than a worker process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc
import pytest

from llmlab.api.metrics.v1.metrics_pb2_grpc import MetricsServiceStub
from services.metrics.settings import MetricsSettings
from services.metrics.wiring import build
from services.runtime.auth import ServiceTokenMinter
from services.runtime.channel import call_metadata, open_channel

if TYPE_CHECKING:
    from llmlab.api.metrics.v1.metrics_pb2_grpc import MetricsServiceAsyncStub

SERVICE_KEY = "3c" * 32


@pytest.fixture
def settings() -> MetricsSettings:
    return MetricsSettings(
        port=0, workers=0, samples_per_task=4, max_text_characters=100_000, auth_service_key=SERVICE_KEY
    )


@pytest.fixture
async def channel(settings: MetricsSettings) -> AsyncIterator[grpc.aio.Channel]:
    async with build(settings) as server, open_channel(server.address, settings) as channel:
        yield channel


@pytest.fixture
def metrics(channel: grpc.aio.Channel) -> MetricsServiceAsyncStub:
    return MetricsServiceStub(channel)


@pytest.fixture
def reader(settings: MetricsSettings) -> tuple[tuple[str, str], ...]:
    """The metadata of a caller who may read."""
    return call_metadata(ServiceTokenMinter.from_settings(settings).token("prj_1", permissions=["READ"]))
