"""The port that Prometheus reads: GET /metrics, over plain HTTP, for a network that is one's own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic

from services.runtime import telemetry
from services.runtime.exposition import CONTENT_TYPE, exposition
from services.runtime.listening import listening_error
from services.runtime.settings import ServiceSettings

READERS_MAX = 8
"""Connections at once; more are closed unanswered."""
REQUEST_BYTES_MAX = 8_192
REQUEST_TIMEOUT_S = 5.0

_PAGE_BYTES = 4_096

_log = logging.getLogger(__name__)


@asynccontextmanager
async def open_telemetry_port(settings: ServiceSettings) -> AsyncIterator[int | None]:
    """Answer during the context; yields the port, None where none is set. Raises SettingsError."""
    if settings.telemetry_port is None:
        yield None
        return
    async with AsyncExitStack() as stack:
        began_s = monotonic()
        stack.enter_context(telemetry.gauge("resident_memory_bytes", resident_bytes, service=settings.service))
        stack.enter_context(telemetry.gauge("uptime_s", lambda: monotonic() - began_s, service=settings.service))
        readers = _Readers()
        try:
            server = await asyncio.start_server(
                readers.answer, settings.host.strip("[]"), settings.telemetry_port, limit=REQUEST_BYTES_MAX
            )
        except OSError:
            raise listening_error(settings, "telemetry_port") from None
        await stack.enter_async_context(server)
        yield server.sockets[0].getsockname()[1]


def resident_bytes() -> float:
    """Memory of this process, its workers apart."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES


class _Readers:
    def __init__(self) -> None:
        self._count = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request and its answer; then the connection is closed."""
        if self._count >= READERS_MAX:
            writer.close()
            return
        self._count += 1
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await _response(head))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError) as error:
            _log.debug("a reader of telemetry went away: %s", error)
        finally:
            self._count -= 1
            writer.close()


async def _response(head: bytes) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if method not in {b"GET", b"HEAD"}:
        return _message("405 Method Not Allowed", "only GET\n")
    if path != b"/metrics":
        return _message("404 Not Found", "see /metrics\n")
    if method == b"HEAD":
        return _message("200 OK", "")
    return _message("200 OK", await asyncio.to_thread(exposition, telemetry.series()))


def _message(status: str, text: str) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
