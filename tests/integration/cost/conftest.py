"""A real cost server on a free port, on each database, with a clock that the test moves."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from services.cost.settings import CostSettings
from services.cost.wiring import build
from services.runtime.clock import ManualClock
from services.runtime.server import RunningServer
from tests.support.cost import NOVEMBER_US, SERVICE_KEY, Callers


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> CostSettings:
    return CostSettings(
        port=0,
        home=tmp_path / "home",
        database_url=database_url,
        auth_service_key=SERVICE_KEY,
        reconcile_interval_s=0.02,
        max_budgets_per_project=3,
        max_price_overrides_per_project=4,
        reprice_batch_events=3,
        reprice_call_events=6,
        reprice_preview_events=40,
    )


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOVEMBER_US)


@pytest.fixture
async def server(settings: CostSettings, clock: ManualClock) -> AsyncIterator[RunningServer]:
    async with build(settings, clock=clock) as server:
        yield server


@pytest.fixture
async def callers(server: RunningServer) -> AsyncIterator[Callers]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield Callers(channel)
