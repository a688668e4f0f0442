"""Bytes to a provider and back: a lean HTTP/1.1 client, one per provider.

It does what a call to a model needs and nothing else: no redirects (they would resend the key to wherever the answer
points), no cookies, no retries, nothing from the environment. ADR 4 has what that saves.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import zlib
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from services.gateway.providers.http_connection import AnswerCut, ConnectionBroken, HttpConnection
from services.gateway.providers.http_pool import HttpPool, NotSent, Origin, TransportLimits

__all__ = [
    "AnswerCut",
    "AnswerTooLarge",
    "ConnectionBroken",
    "HttpAnswer",
    "HttpTransport",
    "NotSent",
    "TransportLimits",
]

_INFLATED_MAX_BYTES = 1024 * 1024
_INFLATED = frozenset({b"gzip", b"x-gzip", b"deflate"})
_URLS_KEPT = 1_024
_SAFE_IN_TARGETS = "/?%:@!$&'()*+,;=-._~[]"


class AnswerTooLarge(Exception):
    """The body is larger than the limit."""


class HttpAnswer:
    """The answer to one request, its body not read yet."""

    def __init__(self, connection: HttpConnection, limits: TransportLimits) -> None:
        self.status = connection.status
        self._connection = connection
        self._limits = limits
        encoding = connection.headers.get(b"content-encoding")
        # Asked not to, some servers compress all the same.
        self._inflater = zlib.decompressobj(zlib.MAX_WBITS | 32) if encoding in _INFLATED else None

    @property
    def headers(self) -> Mapping[str, str]:
        """By their names in lower case."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self._connection.headers.items()}

    @property
    def is_event_stream(self) -> bool:
        """Whether the body is a stream of server-sent events."""
        kind = self._connection.headers.get(b"content-type", b"")
        return kind.partition(b";")[0].strip().lower() == b"text/event-stream"

    def read(self) -> Awaitable[bytes]:
        """What has arrived of the body, at least one byte; empty at its end. Raises AnswerCut."""
        return self._connection.read() if self._inflater is None else self._inflated(self._inflater)

    async def _inflated(self, inflater: zlib._Decompress) -> bytes:
        while data := inflater.unconsumed_tail or await self._connection.read():
            try:
                inflated = inflater.decompress(data, _INFLATED_MAX_BYTES)
            except zlib.error as error:
                raise AnswerCut(f"the compressed answer is broken: {error}") from error
            if inflated:
                return inflated
        if not inflater.eof:
            raise AnswerCut("the compressed answer is incomplete")
        return b""

    async def body(self) -> bytes:
        """The whole body. Raises AnswerCut and AnswerTooLarge."""
        limit = self._limits.max_answer_bytes if self.status < 300 else self._limits.max_error_bytes
        received: list[bytes] = []
        size = 0
        while data := await self.read():
            size += len(data)
            if size > limit:
                raise AnswerTooLarge(f"the answer is larger than {limit} bytes")
            received.append(data)
        return b"".join(received)

    async def drain(self) -> None:
        """Wait a moment for the end of a body whose last word was read: then its connection can be used again."""
        if self._connection.complete:
            return
        with suppress(TimeoutError, AnswerCut):
            async with asyncio.timeout(self._limits.drain_s):
                while await self._connection.read():
                    pass


class HttpTransport:
    """Keep-alive connections to one provider."""

    def __init__(self, limits: TransportLimits | None = None, roots: ssl.SSLContext | None = None) -> None:
        """`roots` are trusted instead of those of the machine."""
        self.limits = limits or TransportLimits()
        self._pool = HttpPool(self.limits, roots)

    def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> _Sending:
        """Send a request: `async with` gives the HttpAnswer.

        Leaving the block before the body's end closes the socket, which stops the provider. Raises NotSent where no
        connection could be made, ConnectionBroken where it broke before the headers came.
        """
        return _Sending(self._pool, self.limits, method, url, headers, body)

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()


class _Sending:
    """See HttpTransport.send. A class and no generator: half of the calls' time in this module."""

    __slots__ = ("_arguments", "_connection", "_limits", "_origin", "_pool")

    def __init__(
        self,
        pool: HttpPool,
        limits: TransportLimits,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
    ) -> None:
        self._pool = pool
        self._limits = limits
        self._arguments = (method, url, headers, body)

    async def __aenter__(self) -> HttpAnswer:
        method, url, headers, body = self._arguments
        place = _place_of(url)
        self._origin = place.origin
        request = self._head(method, place, headers, len(body)) + body
        connection = self._connection = await self._pool.take(place.origin)
        try:
            await connection.ask(request)
        except BaseException:
            self._pool.give_back(place.origin, connection)
            raise
        return HttpAnswer(connection, self._limits)

    async def __aexit__(self, *_: object) -> None:
        # Waits for nothing, so that neither a cancel nor a closed generator can keep the socket open.
        self._pool.give_back(self._origin, self._connection)

    def _head(self, method: str, place: _Place, headers: Mapping[str, str], length: int) -> bytes:
        target, proxy_header = place.target, ""
        if (proxy := self._pool.proxy) is not None and not place.origin.tls:
            target, proxy_header = f"http://{place.origin.authority}{target}", proxy.header
        head = (
            f"{method} {target} HTTP/1.1\r\nHost: {place.origin.authority}\r\n{proxy_header}"
            # Compression makes a server hold chunks back.
            "Accept-Encoding: identity\r\n"
        )
        if length or method != "GET":
            head += f"Content-Length: {length}\r\n"
        own = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if own.count("\n") != len(headers) or own.count("\r") != len(headers) or "\0" in own:
            raise NotSent("a header has a line break in it: check the provider's key")
        return f"{head}{own}\r\n".encode()


class _Place(NamedTuple):
    origin: Origin
    target: str


@functools.lru_cache(_URLS_KEPT)
def _place_of(url: str) -> _Place:
    """Where a request goes. Raises NotSent for an address that is none."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        host = host if host.isascii() else host.encode("idna").decode()
        port = parts.port
    except ValueError as error:
        raise NotSent(f"the provider's base URL is not an address: {error}") from error
    if parts.scheme not in ("http", "https") or not host or parts.username is not None:
        raise NotSent("the provider's base URL is not an address of the form https://host/path")
    tls = parts.scheme == "https"
    target = quote(parts.path or "/", safe=_SAFE_IN_TARGETS)
    if parts.query:
        target += f"?{quote(parts.query, safe=_SAFE_IN_TARGETS)}"
    return _Place(Origin(tls, host, port or (443 if tls else 80)), target)
