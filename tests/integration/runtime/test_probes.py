"""Probes tell the truth: what the health ports of real services say while their PostgreSQL is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.cost import wiring as cost
from services.cost.settings import CostSettings
from services.identity import wiring as identity
from services.identity.settings import IdentitySettings
from services.orchestrator import wiring as orchestrator
from services.orchestrator.settings import OrchestratorSettings
from tests.support.postgres import PostgresServer

Status = health_pb2.HealthCheckResponse


class Probe:
    """What one service says."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = health_pb2_grpc.HealthStub(channel)
        self._readiness = self._stub.Watch(health_pb2.HealthCheckRequest(service="readiness"))

    async def ready(self) -> bool:
        """The next thing that it says of its readiness."""
        return bool((await self._readiness.read()).status == Status.SERVING)

    async def alive(self) -> bool:
        return bool(
            (await self._stub.Check(health_pb2.HealthCheckRequest(service="liveness"))).status == Status.SERVING
        )


async def all_of(probes: list[Probe], ask: Callable[[Probe], Any]) -> list[bool]:
    return list(await asyncio.gather(*map(ask, probes)))


async def test_a_stopped_database_makes_services_unready_and_leaves_them_alive(tmp_path: Path) -> None:
    postgres = PostgresServer(tmp_path / "pg")
    postgres.start()
    common = {
        "port": 0,
        "health_port": 0,
        "home": tmp_path / "home",
        "database_url": postgres.url,
        "auth_service_key": "5e" * 32,
        "health_interval_s": 0.05,
        "health_timeout_s": 30,
    }
    try:
        async with AsyncExitStack() as stack:
            services = [
                await stack.enter_async_context(identity.build(IdentitySettings.model_validate(common))),
                await stack.enter_async_context(cost.build(CostSettings.model_validate(common))),
                await stack.enter_async_context(
                    orchestrator.build(OrchestratorSettings.model_validate({**common, "workers": 1}))
                ),
            ]
            channels = [grpc.aio.insecure_channel(f"127.0.0.1:{service.health_port}") for service in services]
            probes = [Probe(await stack.enter_async_context(channel)) for channel in channels]
            assert await all_of(probes, Probe.ready) == [True] * 3
            await asyncio.to_thread(postgres.stop)
            assert await all_of(probes, Probe.ready) == [False] * 3
            assert await all_of(probes, Probe.alive) == [True] * 3
            await asyncio.to_thread(postgres.start)
            assert await all_of(probes, Probe.ready) == [True] * 3
            assert await all_of(probes, Probe.alive) == [True] * 3
    finally:
        postgres.delete()
