"""Serve gRPC: one call opens a server with all that every llmlab server has, and closes it in the right order."""

from __future__ import annotations

import importlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from grpc_channelz.v1 import channelz, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from llmlab.api.common.v1 import server_pb2
from services.runtime import telemetry
from services.runtime.auth import TokenVerifier
from services.runtime.health import Health, ReadinessCheck
from services.runtime.health_port import open_health_port
from services.runtime.interceptors import standard_stages
from services.runtime.interceptors.overload import OverloadStage
from services.runtime.interceptors.pipeline import Pipeline
from services.runtime.listening import host_for_clients, listen
from services.runtime.loop_lag import watch_loop_lag
from services.runtime.server_info import ServerInfoServicer
from services.runtime.settings import ServiceSettings, SettingsError
from services.runtime.telemetry_port import open_telemetry_port
from services.runtime.tls import server_credentials

if TYPE_CHECKING:
    from services.runtime.spans import Tracer

# After the grace period, answers that are being written get this long to leave.
_LAST_WORDS_S = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers."""

    port: int
    address: str
    """ "host:port", as a client's target."""
    health: Health
    load: OverloadStage
    health_port: int | None = None
    """Where probes are answered without TLS; None where no such port is set."""
    telemetry_port: int | None = None
    """Where Prometheus reads; None where no such port is set."""
    reload: Callable[[], None] | None = None
    """Reads again what may change while it runs; None where there is nothing of the kind."""


class _Registration(NamedTuple):
    add: Callable[[Any, Any], None]
    service: str


@asynccontextmanager
async def serve(
    settings: ServiceSettings,
    servicers: Sequence[object],
    *,
    verifier: TokenVerifier | None,
    checks: Mapping[str, ReadinessCheck] | None = None,
    features: Sequence[str] = (),
    tracer: Tracer | None = None,
) -> AsyncIterator[RunningServer]:
    """Serve until the context ends; then: NOT_SERVING, no new work, endless streams ended, `grace_s` for the rest.

    `servicers` are instances of generated `...Servicer` classes; their registration is found by itself. `verifier` may
    be None only with `auth_required` off. `checks` decide readiness; `features` appear in GetServerInfo.
    RPCs are recorded by `tracer` where there is one.
    Raises SettingsError for a port that is taken and for an open address without authentication.
    """
    _check_protobuf()
    _check_authentication(settings, verifier)
    telemetry.enable(on=settings.telemetry)
    registrations = [(_registration(servicer), servicer) for servicer in servicers]
    names = [registration.service for registration, _ in registrations]
    health = Health(names, checks or {}, interval_s=settings.health_interval_s, timeout_s=settings.health_timeout_s)
    await health.start()
    load = OverloadStage(
        max_rpcs=settings.max_concurrent_rpcs,
        max_streams=settings.max_streams,
        retry_after_ms=settings.overload_retry_ms,
    )
    pipeline = Pipeline(standard_stages(settings, verifier if settings.auth_required else None, load, tracer))
    for registration, servicer in [*registrations, *_own_servicers(settings, features)]:
        registration.add(servicer, pipeline)
    _add_infrastructure(pipeline, settings, health, names)
    server = grpc.aio.server(handlers=[pipeline], options=server_options(settings))
    port = listen(server, settings, "port", server_credentials(settings))
    async with AsyncExitStack() as stack:
        if settings.telemetry:
            await stack.enter_async_context(watch_loop_lag(settings.service, settings.loop_lag_interval_s))
        telemetry_port = await stack.enter_async_context(open_telemetry_port(settings))
        stack.enter_context(telemetry.gauge("rpcs_in_progress", lambda: load.in_progress, service=settings.service))
        health_port = await stack.enter_async_context(open_health_port(settings, health))
        await server.start()
        stack.push_async_callback(_stop, server, health, load, settings.grace_s)
        await stack.enter_async_context(health.running())
        running = RunningServer(
            port=port,
            address=f"{host_for_clients(settings)}:{port}",
            health=health,
            load=load,
            health_port=health_port,
            telemetry_port=telemetry_port,
        )
        _log.info("%s listens on %s", settings.service, running.address)
        yield running


async def _stop(server: grpc.aio.Server, health: Health, load: OverloadStage, grace_s: float) -> None:
    await health.stop()
    try:
        await load.drain(grace_s)
    finally:
        await server.stop(_LAST_WORDS_S)


def _check_protobuf() -> None:
    """The pure-Python protobuf is 30 times slower; nothing says so when it is in use."""
    from google.protobuf.internal import api_implementation

    if api_implementation.Type() != "upb":
        found = api_implementation.Type()
        raise SettingsError(f"protobuf runs as {found!r}, not as 'upb': unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION")


def _check_authentication(settings: ServiceSettings, verifier: TokenVerifier | None) -> None:
    if not settings.auth_required:
        if not settings.on_loopback:
            raise SettingsError(
                f"{settings.variable('host')}: {settings.host} can be reached from other machines, so authentication "
                f"must be on; set {settings.variable('auth_required')}=true, or listen on 127.0.0.1"
            )
        return
    if verifier is None:
        raise SettingsError(f"{settings.variable('auth_required')}: authentication is on, but no key can verify tokens")


def server_options(settings: ServiceSettings) -> list[tuple[str, int]]:
    """The options of a server, by the settings."""
    keepalive_ms = int(settings.keepalive_s * 1_000)
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", int(settings.keepalive_timeout_s * 1_000)),
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients ping as often as servers do; one that pings twice as often is cut off.
        ("grpc.http2.min_ping_interval_without_data_ms", keepalive_ms // 2),
        ("grpc.max_connection_age_ms", int(settings.max_connection_age_s * 1_000)),
        ("grpc.max_connection_age_grace_ms", int(settings.max_connection_age_grace_s * 1_000)),
    ]


def _registration(servicer: object) -> _Registration:
    """The `add_...Servicer_to_server` of the generated class that `servicer` extends, and the service's full name."""
    for base in type(servicer).__mro__:
        module = importlib.import_module(base.__module__)
        add = getattr(module, f"add_{base.__name__}_to_server", None)
        if add is not None:
            messages = importlib.import_module(base.__module__.removesuffix("_grpc"))
            service = messages.DESCRIPTOR.services_by_name[base.__name__.removesuffix("Servicer")]
            return _Registration(add, service.full_name)
    raise TypeError(f"{type(servicer).__name__} extends no generated Servicer class")


def _own_servicers(settings: ServiceSettings, features: Sequence[str]) -> list[tuple[_Registration, object]]:
    info = ServerInfoServicer(settings, features)
    return [(_registration(info), info)]


def _add_infrastructure(pipeline: Pipeline, settings: ServiceSettings, health: Health, services: Sequence[str]) -> None:
    # Where a server is asked for, whatever takes handlers will do.
    server: Any = pipeline
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    own = server_pb2.DESCRIPTOR.services_by_name["ServerService"].full_name
    health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    if settings.reflection:
        reflected = [*services, own, health_name, reflection.SERVICE_NAME]
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflection.aio.ReflectionServicer(reflected), server)
    if settings.channelz:
        channelz_pb2_grpc.add_ChannelzServicer_to_server(channelz.aio.ChannelzServicer(), server)
