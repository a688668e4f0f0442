"""An HTTP server on loopback that plays back scripted answers byte by byte, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass(frozen=True)
class Reply:
    """An answer. `pieces` are written one after the other, each in a segment of its own.

    `cut` breaks the connection after the last piece instead of ending the body; `hold` leaves the answer open until the
    client goes away.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: tuple[bytes, ...] = ()
    cut: bool = False
    hold: bool = False


@dataclass(frozen=True)
class Asked:
    """A request that arrived."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return orjson.loads(self.body)


class ReplayServer:
    """Answers every POST by `script(asked)`."""

    def __init__(self, script: Callable[[Asked], Reply]) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.base_url = ""
        self.client_left = asyncio.Event()
        self.answering = asyncio.Event()
        self.connections = 0

    async def serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: requests one after the other, as keep-alive has it."""
        self.connections += 1
        try:
            while (asked := await _read_request(reader)) is not None:
                self.asked.append(asked)
                reply = self.script(asked)
                self.answering.set()
                if not await self._answer(reply, reader, writer):
                    return
        except ConnectionError:
            self.client_left.set()
        finally:
            writer.close()

    async def _answer(self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection can go on."""
        headers = {"Transfer-Encoding": "chunked", **reply.headers}
        head = f"HTTP/1.1 {reply.status} Scripted\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n"
        writer.write(head.encode())
        for piece in reply.pieces:
            if piece:
                writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                await writer.drain()
                # Another turn of the loop, so that the client reads the pieces one by one where it can.
                await asyncio.sleep(0)
        if reply.hold:
            await reader.read()
            self.client_left.set()
            return False
        if reply.cut:
            writer.transport.abort()
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


@asynccontextmanager
async def replay_server(script: Callable[[Asked], Reply]) -> AsyncIterator[ReplayServer]:
    """The server, until the block ends."""
    replay = ReplayServer(script)
    server = await asyncio.start_server(replay.serve_connection, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    replay.base_url = f"http://127.0.0.1:{port}"
    try:
        yield replay
    finally:
        server.close()
        await server.wait_closed()


async def _read_request(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(path=first.split()[1], headers=headers, body=body)
