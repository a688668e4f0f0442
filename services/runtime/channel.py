"""Channels to peers: every call has a deadline, a request id and a trace, and only what may be repeated is retried.

    async with open_channel(settings.cost_target, settings) as channel:
        stub = budget_pb2_grpc.BudgetServiceStub(channel)
        answer = await stub.Hold(request, metadata=call_metadata(minter.token(project_id)))

A failed call raises `grpc.aio.AioRpcError`; `services.runtime.status.error_from_rpc` turns it into a DomainError.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, Self

import grpc

from services.runtime.context import current_request_id, remaining_s
from services.runtime.errors import DeadlineExceeded
from services.runtime.interceptors.request_id import REQUEST_ID_HEADER
from services.runtime.methods import api_methods
from services.runtime.settings import ServiceSettings
from services.runtime.status import error_from_rpc
from services.runtime.tls import ChannelCertificates
from services.runtime.tls_channel import RenewedChannel
from services.runtime.traced_call import TracedCall

if TYPE_CHECKING:
    from services.runtime.spans import Tracer

Metadata = tuple[tuple[str, str], ...]

# A rich status (partial text of a failed completion, many field violations) does not fit in the default 8 KiB.
MAX_METADATA_BYTES = 64 * 1024
# CANCELLED is what gRPC says to calls that come in while a server closes. One that its caller cancels is not retried.
_RETRIED_CODES = ("UNAVAILABLE", "CANCELLED")
# After a peer's restart the first call that finds it again should not wait for a long back-off.
_RECONNECT_MIN_MS = 100
_RECONNECT_MAX_MS = 2_000
_CONNECT_TIMEOUT_MS = 2_000
_RESOLVE_AGAIN_MS = 2_000


def call_metadata(token: str) -> Metadata:
    """The metadata that shows `token` to a peer."""
    return (("authorization", f"Bearer {token}"),)


def open_channel(target: str, settings: ServiceSettings, tracer: Tracer | None = None) -> grpc.aio.Channel:
    """A channel to one peer; keep it for the life of the process and close it with `async with`.

    `target` is "host:port" or any gRPC target; a name is resolved to all its addresses and calls go round them.
    TLS where the peers' roots are set, with this process's certificate where that is set too; both are read again when
    their files change. A call without `timeout` gets the named default, and no call gets more than what is left of the
    RPC being served. With a `tracer` calls carry the trace of what they are made for.
    """
    options = channel_options(settings)
    address = (
        target if "://" in target or target.startswith(("ipv4:", "ipv6:", "unix:", "dns:")) else f"dns:///{target}"
    )
    channel: grpc.aio.Channel
    if settings.tls_ca is None:
        channel = grpc.aio.insecure_channel(address, options=options)
    else:
        channel = RenewedChannel(
            ChannelCertificates(settings),
            lambda credentials: grpc.aio.secure_channel(address, credentials, options=options),
            calls_end_s=settings.default_stream_deadline_ms / 1_000,
        )
    return _DeadlineChannel(
        channel,
        unary_s=settings.default_deadline_ms / 1_000,
        stream_s=settings.default_stream_deadline_ms / 1_000,
        tracer=tracer,
    )


async def messages_of(stream: Any) -> AsyncGenerator[Any, None]:
    """The messages of a server's stream; its errors as DomainErrors. A reader that leaves early cancels the call."""
    try:
        async for message in stream:
            yield message
    except grpc.aio.AioRpcError as error:
        raise error_from_rpc(error) from error
    finally:
        stream.cancel()


def service_config(retry_attempts: int) -> str:
    """The service config: round robin, and retries of the RPCs that declare themselves idempotent, of no other.

    A paid call behind a retry policy is sent to the provider twice when its server is killed.
    """
    names = []
    for method in api_methods().values():
        if method.idempotent:
            service, _, name = method.path[1:].partition("/")
            names.append({"service": service, "method": name})
    retries = {
        "name": names,
        "retryPolicy": {
            "maxAttempts": retry_attempts,
            "initialBackoff": "0.05s",
            "maxBackoff": "1s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": _RETRIED_CODES,
        },
    }
    return json.dumps(
        {
            "loadBalancingConfig": [{"round_robin": {}}],
            "methodConfig": [retries] if retry_attempts > 1 else [],
            # Stops retrying a peer that fails more than it answers.
            "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
        }
    )


def channel_options(settings: ServiceSettings) -> list[tuple[str, int | str]]:
    """The options of a channel, by the settings."""
    return [
        ("grpc.service_config", service_config(settings.retry_attempts)),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.keepalive_time_ms", int(settings.keepalive_s * 1_000)),
        ("grpc.keepalive_timeout_ms", int(settings.keepalive_timeout_s * 1_000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.initial_reconnect_backoff_ms", _RECONNECT_MIN_MS),
        ("grpc.min_reconnect_backoff_ms", _CONNECT_TIMEOUT_MS),
        ("grpc.max_reconnect_backoff_ms", _RECONNECT_MAX_MS),
        ("grpc.dns_min_time_between_resolutions_ms", _RESOLVE_AGAIN_MS),
    ]


class _DeadlineChannel(grpc.aio.Channel):
    """Adds deadline and request id to each call.

    It stands before the channel and is no client interceptor: grpc.aio runs those in a task of their own for every
    call, which costs more than the call's own work here.
    """

    def __init__(self, channel: grpc.aio.Channel, *, unary_s: float, stream_s: float, tracer: Tracer | None) -> None:
        self._channel = channel
        self._unary_s = unary_s
        self._stream_s = stream_s
        self._tracer = tracer

    def unary_unary(self, method: str, *arguments: Any, **named: Any) -> Any:
        """A callable for one RPC."""
        return self._timed(method, self._channel.unary_unary(method, *arguments, **named), self._unary_s)

    def unary_stream(self, method: str, *arguments: Any, **named: Any) -> Any:
        """A callable for one RPC with a stream of answers."""
        return self._timed(method, self._channel.unary_stream(method, *arguments, **named), self._stream_s)

    def stream_unary(self, method: str, *arguments: Any, **named: Any) -> Any:
        """A callable for one RPC with a stream of requests."""
        return self._timed(method, self._channel.stream_unary(method, *arguments, **named), self._stream_s)

    def stream_stream(self, method: str, *arguments: Any, **named: Any) -> Any:
        """A callable for one RPC with streams both ways."""
        return self._timed(method, self._channel.stream_stream(method, *arguments, **named), self._stream_s)

    def _timed(self, method: str, call: Any, default_s: float) -> Any:
        timed = _Call(call, default_s)
        return timed if self._tracer is None else TracedCall(timed, method, self._tracer)

    async def close(self, grace: float | None = None) -> None:
        """Close the connection; calls in progress get `grace` seconds."""
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002 (gRPC's)
        """State of the connection."""
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the state is another one."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until connected."""
        await self._channel.channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


class _Call:
    """One RPC of a stub: calls of it get a deadline and the request id of the RPC being served."""

    __slots__ = ("_call", "_default_s")

    def __init__(self, call: Any, default_s: float) -> None:
        self._call = call
        self._default_s = default_s

    def __call__(
        self,
        request: Any = None,
        *,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str]] | None = None,
        **more: Any,
    ) -> Any:
        left_s = remaining_s()
        timeout_s = self._default_s if timeout is None else timeout
        if left_s is not None and left_s < timeout_s:
            timeout_s = left_s
            if timeout_s <= 0:
                raise DeadlineExceeded("DEADLINE_EXCEEDED", "the caller's deadline passed before a peer was asked")
        request_id = current_request_id()
        if request_id:
            metadata = (*(metadata or ()), (REQUEST_ID_HEADER, request_id))
        return self._call(request, timeout=timeout_s, metadata=metadata, **more)
