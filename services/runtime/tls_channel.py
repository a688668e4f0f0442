"""A channel over TLS that becomes a new one when its certificates are replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

import grpc

from services.runtime.tls import ChannelCertificates


class RenewedChannel(grpc.aio.Channel):
    """Calls go over the newest connection; those under way end on the one where they began.

    Stubs keep what `unary_unary` and its like return, so that is what finds the channel of the moment at each call.
    """

    def __init__(
        self,
        certificates: ChannelCertificates,
        connect: Callable[[grpc.ChannelCredentials], grpc.aio.Channel],
        calls_end_s: float,
    ) -> None:
        """`calls_end_s`: the longest that a call takes, so that a connection without one is closed."""
        self._certificates = certificates
        self._connect = connect
        self._calls_end_s = calls_end_s
        self._channel = connect(certificates.credentials)
        self._leaving: set[asyncio.Task[None]] = set()

    def current(self) -> grpc.aio.Channel:
        """The channel for a call that begins now."""
        if self._certificates.changed():
            old, self._channel = self._channel, self._connect(self._certificates.credentials)
            closing = asyncio.get_running_loop().create_task(_leave(old, self._calls_end_s))
            self._leaving.add(closing)
            closing.add_done_callback(self._leaving.discard)
        return self._channel

    def unary_unary(self, *arguments: Any, **named: Any) -> Any:
        """A callable for one RPC."""
        return _Callable(self, "unary_unary", arguments, named)

    def unary_stream(self, *arguments: Any, **named: Any) -> Any:
        """A callable for one RPC with a stream of answers."""
        return _Callable(self, "unary_stream", arguments, named)

    def stream_unary(self, *arguments: Any, **named: Any) -> Any:
        """A callable for one RPC with a stream of requests."""
        return _Callable(self, "stream_unary", arguments, named)

    def stream_stream(self, *arguments: Any, **named: Any) -> Any:
        """A callable for one RPC with streams both ways."""
        return _Callable(self, "stream_stream", arguments, named)

    async def close(self, grace: float | None = None) -> None:
        """Close the newest connection, within `grace` seconds, and those before it at once."""
        leaving = list(self._leaving)
        for task in leaving:
            task.cancel()
        await asyncio.gather(self._channel.close(grace), *leaving, return_exceptions=True)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002 (gRPC's)
        """State of the newest connection."""
        return self.current().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the newest connection's state is another one."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until connected."""
        await self.current().channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


async def _leave(channel: grpc.aio.Channel, calls_end_s: float) -> None:
    """Close a channel after its last call, or at once when this task is cancelled."""
    try:
        await channel.close(calls_end_s)
    finally:
        await channel.close()


class _Callable:
    """One RPC of a stub, on whichever channel is the newest."""

    __slots__ = ("_arguments", "_channel", "_kind", "_made", "_named", "_owner")

    def __init__(self, owner: RenewedChannel, kind: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._owner = owner
        self._kind = kind
        self._arguments = arguments
        self._named = named
        self._channel: grpc.aio.Channel | None = None
        self._made: Any = None

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        channel = self._owner.current()
        if channel is not self._channel:
            self._channel = channel
            self._made = getattr(channel, self._kind)(*self._arguments, **self._named)
        return self._made(*arguments, **named)
