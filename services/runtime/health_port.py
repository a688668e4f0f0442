"""A port of its own for probes: health checks and nothing else, without TLS and without a credential.

Kubernetes' gRPC probes know no TLS, so a server that demands certificates could not be probed on its own port.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from grpc_health.v1 import health_pb2_grpc

from services.runtime.health import Health
from services.runtime.listening import listen
from services.runtime.settings import ServiceSettings

_CONCURRENT_CHECKS_MAX = 100


@asynccontextmanager
async def open_health_port(settings: ServiceSettings, health: Health) -> AsyncIterator[int | None]:
    """Answer probes during the context; yields the port, None where none is set. Raises SettingsError."""
    if settings.health_port is None:
        yield None
        return
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)], maximum_concurrent_rpcs=_CONCURRENT_CHECKS_MAX)
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    port = listen(server, settings, "health_port")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)
