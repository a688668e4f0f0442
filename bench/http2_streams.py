"""Readers of gRPC server streams that cost next to nothing: just enough HTTP/2 to see when each message arrives.

A grpc.aio client takes about as long for a message as the gateway does: a few hundred of its streams would measure
the client. Source: RFC 9113, "HTTP/2"; the gRPC protocol over HTTP/2 (PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self, cast

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_INITIAL_WINDOW_SIZE = 4
_WINDOW_MAX = 2**31 - 1
_WINDOW_AT_FIRST = 65_535
_FRAME_HEAD = 9
_MESSAGE_HEAD = 5


@dataclass(slots=True, eq=False)
class Stream:
    """One stream: when each message came, by `time.monotonic`, and the message."""

    ended: asyncio.Future[None]
    messages: list[tuple[float, bytes]] = field(default_factory=list)
    rest: bytes = b""

    def take(self, data: bytes, now_s: float) -> None:
        """The next bytes of its body."""
        self.rest += data
        while len(self.rest) >= _MESSAGE_HEAD:
            end = _MESSAGE_HEAD + struct.unpack_from(">I", self.rest, 1)[0]
            if len(self.rest) < end:
                return
            self.messages.append((now_s, self.rest[_MESSAGE_HEAD:end]))
            self.rest = self.rest[end:]


class Http2Streams(asyncio.Protocol):
    """One connection with any number of streams; windows are as large as they can be."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, Stream] = {}
        self._next_id = 1
        self._rest = b""

    @classmethod
    async def connect(cls, address: str) -> Self:
        """To "host:port", without TLS."""
        host, _, port = address.rpartition(":")
        _, streams = await asyncio.get_running_loop().create_connection(cls, host, int(port))
        return streams

    def begin(self, path: str, metadata: Iterable[tuple[str, str]], message: bytes) -> Stream:
        """Call an RPC with one message. The answer's messages are in the stream when it has `ended`."""
        stream = Stream(asyncio.get_running_loop().create_future())
        number = self._next_id
        self._next_id += 2
        self._streams[number] = stream
        headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "bench")]
        headers += [("te", "trailers"), ("content-type", "application/grpc"), *metadata]
        block = b"".join([b"\0" + _text(name) + _text(value) for name, value in headers])
        body = b"\0" + struct.pack(">I", len(message)) + message
        self._write(_frame(_HEADERS, _END_HEADERS, number, block) + _frame(_DATA, _END_STREAM, number, body))
        return stream

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        settings = struct.pack(">HI", _INITIAL_WINDOW_SIZE, _WINDOW_MAX)
        window = struct.pack(">I", _WINDOW_MAX - _WINDOW_AT_FIRST)
        self._write(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW_UPDATE, 0, 0, window))

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._transport = None
        for stream in self._streams.values():
            stream.ended.set_exception(error or ConnectionError("the connection has ended"))
        self._streams.clear()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        now_s = time.monotonic()
        data = self._rest + data
        at = 0
        while at + _FRAME_HEAD <= len(data):
            end = at + _FRAME_HEAD + int.from_bytes(data[at : at + 3], "big")
            if end > len(data):
                break
            number = int.from_bytes(data[at + 5 : at + 9], "big")
            self._frame(data[at + 3], data[at + 4], number, data[at + _FRAME_HEAD : end], now_s)
            at = end
        self._rest = data[at:]

    def _frame(self, kind: int, flags: int, number: int, payload: bytes, now_s: float) -> None:
        stream = self._streams.get(number)
        if kind == _DATA and stream is not None:
            stream.take(payload, now_s)
        elif kind == _SETTINGS and not flags & _ACK:
            self._write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._write(_frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY:
            self.close()
        broken = kind == _RST_STREAM
        if stream is not None and (broken or (kind in (_DATA, _HEADERS) and flags & _END_STREAM)):
            del self._streams[number]
            if broken:
                stream.ended.set_exception(ConnectionError("the stream was reset"))
            else:
                stream.ended.set_result(None)

    def _write(self, data: bytes) -> None:
        if self._transport is None:
            raise ConnectionError("the connection has ended")
        self._transport.write(data)


def _frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + number.to_bytes(4, "big") + payload


def _text(text: str) -> bytes:
    """A literal of HPACK (RFC 7541, section 5.2), not Huffman coded."""
    data = text.encode()
    if len(data) < 127:
        return bytes((len(data),)) + data
    rest = len(data) - 127
    length = bytearray((127,))
    while rest >= 128:
        length.append(rest % 128 + 128)
        rest //= 128
    return bytes((*length, rest)) + data
