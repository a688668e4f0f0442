"""A provider that costs next to nothing: raw asyncio that speaks just enough HTTP and server-sent events.

    python -m bench.gateway_upstream        prints its port

POST anything: the body's `max_tokens` says how many tokens are sent, `interval_ms` how far apart. Without an interval
all leave in one write.
"""

from __future__ import annotations

import asyncio
import re
from asyncio import StreamReader, StreamWriter

import orjson
import uvloop

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_CHUNK = b'data: {"id":"c1","object":"chat.completion.chunk","model":"bench","choices":[{"index":0,%s}]}\n\n'
_TOKEN = _CHUNK % b'"delta":{"content":" token"},"finish_reason":null'
_FINISH = _CHUNK % b'"delta":{},"finish_reason":"stop"'
_USAGE = (
    b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"bench","choices":[],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":%d,"total_tokens":%d}}\n\ndata: [DONE]\n\n'
)


async def answer(reader: StreamReader, writer: StreamWriter) -> None:
    """Serve one connection until it is closed."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = orjson.loads(await reader.readexactly(int(length[1]) if length else 0) or b"{}")
            await _stream(writer, int(body.get("max_tokens", 1)), float(body.get("interval_ms", 0)) / 1_000)
    except (asyncio.IncompleteReadError, ConnectionError, RuntimeError):
        pass  # the caller has left (uvloop raises RuntimeError where asyncio's own loop says nothing)
    finally:
        writer.close()


async def _stream(writer: StreamWriter, tokens: int, interval_s: float) -> None:
    end = _FINISH + _USAGE % (tokens, tokens + 10)
    if not interval_s:
        writer.write(_HEAD + _framed(_TOKEN * tokens + end) + b"0\r\n\r\n")
        await writer.drain()
        return
    writer.write(_HEAD)
    loop = asyncio.get_running_loop()
    due = loop.time()
    for _ in range(tokens):
        writer.write(_framed(_TOKEN))
        await writer.drain()
        due += interval_s
        await asyncio.sleep(due - loop.time())
    writer.write(_framed(end) + b"0\r\n\r\n")
    await writer.drain()


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def main() -> None:
    """Serve until the process is ended."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
