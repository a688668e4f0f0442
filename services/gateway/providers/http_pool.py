"""Keep-alive connections to providers: opened when needed, kept for a while, never more than a limit in use."""

from __future__ import annotations

import asyncio
import base64
import functools
import socket
import ssl
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from aiohappyeyeballs import AddrInfoType, start_connection

from services.gateway.providers.http_connection import ConnectionBroken, HttpConnection

_NAMES_KEPT_S = 10.0
_SECOND_ADDRESS_AFTER_S = 0.25
"""How long the first address of a host has before the next one is tried beside it (RFC 8305)."""


@dataclass(frozen=True, slots=True)
class TransportLimits:
    """Bounds of one provider's connections."""

    connect_timeout_s: float = 5.0
    max_connections: int = 512
    keepalive_s: float = 60.0
    drain_s: float = 0.02
    max_answer_bytes: int = 16 * 1024 * 1024
    max_error_bytes: int = 64 * 1024
    proxy: str = ""


class NotSent(Exception):
    """No connection could be made: nothing left this process."""


class Origin(NamedTuple):
    """Where a connection ends."""

    tls: bool
    host: str
    port: int

    @property
    def authority(self) -> str:
        """Host and port, as in a Host header; the scheme's own port is left out."""
        return self.bracketed if self.port == (443 if self.tls else 80) else f"{self.bracketed}:{self.port}"

    @property
    def bracketed(self) -> str:
        """The host as it is written before a port."""
        return f"[{self.host}]" if ":" in self.host else self.host


class Proxy:
    """An HTTP proxy on the way to every provider, http://[user:password@]host:port."""

    def __init__(self, url: str) -> None:
        """Raises ValueError where the address is none."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError("a proxy's address has the form http://host:port")
        self.origin = Origin(tls=False, host=parts.hostname, port=parts.port or 80)
        self.header = ""
        """The header that shows its credentials, with its line's end; empty where it needs none."""
        if parts.username:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self.header = f"Proxy-Authorization: Basic {base64.b64encode(credentials.encode()).decode()}\r\n"


class HttpPool:
    """Gives connections out, one request each at a time, and takes them back."""

    def __init__(self, limits: TransportLimits, roots: ssl.SSLContext | None = None) -> None:
        """`roots` are trusted instead of those of the machine."""
        self.proxy = Proxy(limits.proxy) if limits.proxy else None
        self._limits = limits
        self._roots = roots
        self._places = asyncio.Semaphore(limits.max_connections)
        self._idle: defaultdict[Origin, list[HttpConnection]] = defaultdict(list)
        self._open: set[HttpConnection] = set()
        self._none_open = asyncio.Event()
        self._none_open.set()
        self._names: dict[tuple[str, int], tuple[float, Sequence[AddrInfoType]]] = {}
        self._sweep: asyncio.TimerHandle | None = None

    async def take(self, origin: Origin) -> HttpConnection:
        """A connection that has to be given back. Raises NotSent."""
        await self._places.acquire()
        try:
            idle = self._idle[origin]
            while idle:
                connection = idle.pop()
                if connection.reusable and not self._too_old(connection):
                    return connection
                connection.abort()
            connection = await self._opened(origin)
            if connection.open:
                self._open.add(connection)
                self._none_open.clear()
            return connection
        except BaseException:
            self._places.release()
            raise

    def give_back(self, origin: Origin, connection: HttpConnection) -> None:
        """Keep it for the next request, or close it at once where its answer was not read to the end."""
        self._places.release()
        if not connection.reusable:
            connection.abort()
            return
        connection.idle_since_s = time.monotonic()
        self._idle[origin].append(connection)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self._limits.keepalive_s, self._drop_old)

    async def close(self) -> None:
        """Close all connections."""
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in self._open:
            connection.abort()
        await self._none_open.wait()

    def _too_old(self, connection: HttpConnection) -> bool:
        return time.monotonic() - connection.idle_since_s >= self._limits.keepalive_s

    def _drop_old(self) -> None:
        self._sweep = None
        kept = 0
        for idle in self._idle.values():
            for connection in [one for one in idle if not one.reusable or self._too_old(one)]:
                idle.remove(connection)
                connection.abort()
            kept += len(idle)
        if kept:
            self._sweep = asyncio.get_running_loop().call_later(self._limits.keepalive_s, self._drop_old)

    async def _opened(self, origin: Origin) -> HttpConnection:
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                if self.proxy is None:
                    return await self._connected(origin, tls=origin.tls)
                connection = await self._connected(self.proxy.origin, tls=False)
                if not origin.tls:
                    return connection
                try:
                    return await self._through(connection, self.proxy, origin)
                except BaseException:
                    connection.abort()
                    raise
        except TimeoutError:
            raise NotSent(f"connecting to {origin.host} timed out") from None
        # uvloop raises RuntimeError for some of them, name look-ups raise ValueError for names that are none.
        except (OSError, RuntimeError, ValueError, ConnectionBroken) as error:
            raise NotSent(f"cannot connect to {origin.host}: {str(error) or type(error).__name__}") from error

    async def _connected(self, origin: Origin, *, tls: bool) -> HttpConnection:
        sock = await start_connection(
            await self._addresses(origin),
            happy_eyeballs_delay=_SECOND_ADDRESS_AFTER_S,
            socket_factory=_socket_without_delay,
        )
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                self._new,
                sock=sock,
                ssl=await self._trusted() if tls else None,
                server_hostname=origin.host if tls else None,
            )
        except BaseException:
            sock.close()
            raise
        return connection

    async def _through(self, connection: HttpConnection, proxy: Proxy, origin: Origin) -> HttpConnection:
        """TLS with the provider, inside a tunnel that the proxy makes."""
        place = f"{origin.bracketed}:{origin.port}"
        await connection.ask(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{proxy.header}\r\n".encode())
        if connection.status != 200:
            raise ConnectionBroken(f"the proxy answered with status {connection.status}")
        inside = self._new()
        transport = await asyncio.get_running_loop().start_tls(
            connection.transport, inside, await self._trusted(), server_hostname=origin.host
        )
        if transport is None:
            raise ConnectionBroken("the tunnel broke")
        inside.connection_made(transport)
        return inside

    def _new(self) -> HttpConnection:
        return HttpConnection(self._lost)

    def _lost(self, connection: HttpConnection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._none_open.set()

    async def _trusted(self) -> ssl.SSLContext:
        if self._roots is not None:
            return self._roots
        return await asyncio.to_thread(_machine_roots)

    async def _addresses(self, origin: Origin) -> Sequence[AddrInfoType]:
        """Of the host; kept for a moment, so that a burst of connections asks once."""
        key = (origin.host, origin.port)
        known = self._names.get(key)
        if known is None or known[0] < time.monotonic():
            found = await asyncio.get_running_loop().getaddrinfo(*key, type=socket.SOCK_STREAM)
            known = self._names[key] = (time.monotonic() + _NAMES_KEPT_S, found)
        return known[1]


@functools.cache
def _machine_roots() -> ssl.SSLContext:
    """Reading the certificates takes some 20 ms, once a process."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _socket_without_delay(address: AddrInfoType) -> socket.socket:
    """Nagle's algorithm is off: a request is one segment that must not wait."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made
