"""Ports to listen on; one that cannot be had is a SettingsError that names its variable."""

from __future__ import annotations

import socket

import grpc

from services.runtime.settings import ServiceSettings, SettingsError


def listen(
    server: grpc.aio.Server, settings: ServiceSettings, field: str, credentials: grpc.ServerCredentials | None = None
) -> int:
    """Have `server` listen on the port that `field` of the settings names; returns the port. Raises SettingsError."""
    port: int = getattr(settings, field)
    address = f"{_bracketed(settings.host)}:{port}"
    try:
        _try_to_listen(settings.host, port)
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except (OSError, RuntimeError):
        raise listening_error(settings, field) from None


def listening_error(settings: ServiceSettings, field: str) -> SettingsError:
    """What to say where the port that `field` names cannot be had."""
    variable = settings.variable(field)
    address = f"{_bracketed(settings.host)}:{getattr(settings, field)}"
    return SettingsError(
        f"{variable}: cannot listen on {address}; the port is taken, or the address is not this "
        f"machine's. Stop what listens there, or set {variable} to another port (0: any free one)"
    )


def host_for_clients(settings: ServiceSettings) -> str:
    """The host by which a client on this machine reaches the server."""
    if settings.host in ("0.0.0.0", "::", "[::]"):  # noqa: S104 (compared, not bound)
        return "127.0.0.1"
    return _bracketed(settings.host)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _try_to_listen(host: str, port: int) -> None:
    """Raises OSError where nobody can listen; gRPC would write lines of its own to standard error first."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    socket.create_server((host.strip("[]"), port), family=family).close()
