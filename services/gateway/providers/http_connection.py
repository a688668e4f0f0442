"""One HTTP/1.1 connection to a provider: one request after the other, each answer read as it arrives.

What the bytes mean is for llhttp, the parser of Node.js, to say (through httptools). Reading stops while nobody takes
what has arrived, so a slow reader fills no memory.
Source: RFC 9112, "HTTP/1.1".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

HEAD_MAX_BYTES = 64 * 1024
"""Most that may arrive without any of it being body: a head, or what follows the body."""

_UNREAD_MAX_BYTES = 256 * 1024
_NO_CONTENT = frozenset({204, 304})


class ConnectionBroken(Exception):
    """The connection broke after the request may have left and before an answer began."""


class AnswerCut(Exception):
    """The connection broke inside the body: the answer is incomplete."""


class HttpConnection(asyncio.Protocol):
    """Made by the event loop. `ask` sends a request and waits for the head of its answer, `read` gives the body.

    Attributes:
        status: of the answer; 0 before its head has come.
        headers: of the answer, by their names in lower case; several of one name are joined by commas.
        complete: whether the body has come to its end, read or not.
        idle_since_s: for the pool.
    """

    def __init__(self, on_lost: Callable[[HttpConnection], None]) -> None:
        """`on_lost` is told when the connection has ended."""
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.complete = True
        self.idle_since_s = 0.0
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._bytes_without_body = 0
        self._pieces: list[bytes] = []
        self._unread_bytes = 0
        self._paused = False
        self._keeps_alive = True
        self._ends_with_connection = False
        self._lost = ""
        self._news: asyncio.Future[None] | None = None

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent: the last answer has ended, and the peer keeps the connection."""
        return self.open and self.complete and self._keeps_alive and not self._lost

    @property
    def open(self) -> bool:
        """Whether there still is a socket."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def transport(self) -> asyncio.Transport:
        """The bytes' way. Raises ConnectionBroken where there is none any more."""
        if self._transport is None:
            raise ConnectionBroken(self._lost)
        return self._transport

    async def ask(self, request: bytes) -> None:
        """Send a request; returns when the head of the answer is there. Raises ConnectionBroken."""
        self.status = 0
        self.headers = {}
        self.complete = False
        self._bytes_without_body = 0
        self._pieces.clear()
        self._unread_bytes = 0
        self._ends_with_connection = False
        self.transport.write(request)
        while not self.status:
            if self._lost:
                raise ConnectionBroken(self._lost)
            await self._something()

    async def read(self) -> bytes:
        """What has arrived of the body, at least one byte; empty at its end. Raises AnswerCut."""
        while not self._pieces:
            if self.complete:
                return b""
            if self._lost:
                raise AnswerCut(self._lost)
            await self._something()
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._unread_bytes = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    def abort(self) -> None:
        """Close the socket at once. Whoever waits for an answer learns it."""
        if self._transport is not None:
            self._transport.abort()

    def _something(self) -> asyncio.Future[None]:
        """Done when more has arrived, or the connection has ended."""
        self._news = asyncio.get_running_loop().create_future()
        return self._news

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _break(self, why: str) -> None:
        self._lost = self._lost or why
        self.abort()
        self._tell()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # uvloop's transports do not say by their classes what they are.
        self._transport = cast("asyncio.Transport", transport)
        parser = self._parser = httptools.HttpResponseParser(self)
        # As browsers and other clients do: servers exist that end lines with LF alone.
        parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self.complete or self._parser is None:
            self._break("the provider sent more than it was asked for")
            return
        self._bytes_without_body += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break(f"the provider does not speak HTTP: {error}")
            return
        if self._bytes_without_body > HEAD_MAX_BYTES:
            self._break(f"the provider's headers are larger than {HEAD_MAX_BYTES} bytes")
        elif self._unread_bytes > _UNREAD_MAX_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._tell()

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        if self.status and self._ends_with_connection and error is None and not self._lost:
            self.complete = True
        self._lost = self._lost or str(error or "") or "the provider closed the connection"
        self._transport = None
        # The parser knows this object: together they would wait for the garbage collector.
        self._parser = None
        self._tell()
        self._on_lost(self)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """An answer begins."""
        if self.complete:
            raise ConnectionBroken("the provider sent more than it was asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of the answer, or of a trailer."""
        name = name.lower()
        before = self.headers.get(name)
        self.headers[name] = value if before is None else before + b", " + value

    def on_headers_complete(self) -> None:
        """The head is there."""
        if self._parser is None:
            return
        status = self._parser.get_status_code()
        if status < 200:
            # An interim answer; the final one follows.
            self.headers = {}
            return
        self.status = status
        self._keeps_alive = self._parser.should_keep_alive()
        framed = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        self._ends_with_connection = not framed and status not in _NO_CONTENT

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._bytes_without_body = 0
        self._pieces.append(body)
        self._unread_bytes += len(body)

    def on_message_complete(self) -> None:
        """The answer has ended."""
        if self.status:
            self.complete = True
