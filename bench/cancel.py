"""How fast a cancelled stream stops its provider, and how exactly it is settled.

    make -s bench NAME=cancel
    python -m bench.cancel [--calls 60]

The upstream is a bare server on loopback that streams a token every 20 ms and notes when its socket closes. The last
line of output is one JSON object; `bench/README.md` explains its keys.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvloop

from bench.environment import environment
from bench.gateway_lab import Lab, call, gateway_lab
from llmlab.api.cost.v1 import hold_pb2
from llmlab.api.gateway.v1 import gateway_pb2

TEXT = "word"
"""One token by the estimate of four bytes each."""
TOKEN_EVERY_S = 0.02
CANCEL_AFTER = 40
"""Tokens after which a caller leaves."""

CATALOGUE = """
providers:
  - {{name: bare, kind: openai, base_url: "http://127.0.0.1:{port}/v1", models: [{{name: m}}]}}
"""
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class BareUpstream:
    """Streams the same token for ever, in the format of chat completions; `sent` and `closed` by request, in order."""

    def __init__(self) -> None:
        self.requests = 0
        self.sent: list[int] = []
        self.closed: asyncio.Queue[float] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request, then waits for the socket to close."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
        self.requests += 1
        writer.write(_HEAD)
        left = asyncio.create_task(reader.read())
        sent = 0
        while not left.done():
            delta = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": TEXT}}]}
            data = f"data: {json.dumps(delta)}\n\n".encode()
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            sent += 1
            await asyncio.wait([left], timeout=TOKEN_EVERY_S)
        self.sent.append(sent)
        self.closed.put_nowait(time.perf_counter())
        writer.close()


@asynccontextmanager
async def upstream() -> AsyncIterator[tuple[BareUpstream, int]]:
    """The server and its port."""
    bare = BareUpstream()
    server = await asyncio.start_server(bare.serve, "127.0.0.1", 0)
    async with server:
        yield bare, server.sockets[0].getsockname()[1]


async def cancelled(lab: Lab, bare: BareUpstream, call_id: str) -> tuple[float, float]:
    """One cancelled call: milliseconds until the socket is closed; percent that its bill is off."""
    request = gateway_pb2.StreamCompleteRequest(call=call("bare/m", call_id))
    stream = lab.gateway.StreamComplete(request, metadata=lab.metadata, timeout=60)
    seen = 0
    async for message in stream:
        seen += sum(chunk.WhichOneof("event") == "text" for chunk in message.chunks)
        if seen >= CANCEL_AFTER:
            break
    began_s = time.perf_counter()
    stream.cancel()
    closed_s = await bare.closed.get()
    asked = hold_pb2.ResolveAttemptsRequest(attempt_ids=[f"{call_id}/1"])
    while True:
        (attempt,) = (await lab.holds.ResolveAttempts(asked, metadata=lab.metadata)).attempts
        if attempt.state == hold_pb2.ATTEMPT_STATE_SETTLED:
            break
        await asyncio.sleep(0.01)
    sent = bare.sent[-1]
    return (closed_s - began_s) * 1_000, 100 * abs(attempt.usage.output_tokens - sent) / sent


async def measure(calls: int) -> dict[str, Any]:
    """All figures."""
    async with upstream() as (bare, port), gateway_lab(CATALOGUE.format(port=port)) as lab:
        await cancelled(lab, bare, "warm-up")
        found = [await cancelled(lab, bare, f"cancel-{number}") for number in range(calls)]
        closing = sorted(ms for ms, _ in found)
        return {
            "calls": calls,
            "upstream_requests": bare.requests - 1,
            "cancel_to_closed_p50_ms": round(closing[len(closing) // 2], 2),
            "cancel_to_closed_p99_ms": round(closing[int(len(closing) * 0.99)], 2),
            "cancel_to_closed_max_ms": round(closing[-1], 2),
            "settled_off_percent_max": round(max(off for _, off in found), 2),
            "tokens_sent_min": min(bare.sent),
        }


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=60, help="streams to cancel")
    found = uvloop.run(measure(parser.parse_args().calls))
    print(json.dumps({"benchmark": "cancel", **environment(), **found}))


if __name__ == "__main__":
    main()
