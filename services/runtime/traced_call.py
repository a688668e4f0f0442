"""One RPC of a stub whose calls carry the trace of what they are made for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from services.runtime.tracing import NOT_RECORDED, TRACEPARENT_HEADER, current_traceparent

if TYPE_CHECKING:
    from services.runtime.spans import Span, Tracer


class TracedCall:
    """Stands before a stub's call: under a recorded span the call gets one of its own, below it."""

    __slots__ = ("_call", "_ending", "_method", "_tracer")

    def __init__(self, call: Any, method: str, tracer: Tracer) -> None:
        self._call = call
        self._method = method[1:]
        self._tracer = tracer
        self._ending: set[asyncio.Task[None]] = set()

    def __call__(self, request: Any = None, *, metadata: Sequence[tuple[str, str]] | None = None, **more: Any) -> Any:
        above = current_traceparent()
        if not above:
            return self._call(request, metadata=(*(metadata or ()), (TRACEPARENT_HEADER, NOT_RECORDED)), **more)
        attributes = {"rpc.system.name": "grpc", "rpc.method": self._method}
        span = self._tracer.begin(self._method, above, kind="client", attributes=attributes)
        rpc = self._call(request, metadata=(*(metadata or ()), (TRACEPARENT_HEADER, span.traceparent)), **more)
        rpc.add_done_callback(lambda _: self._end_soon(span, rpc))
        return rpc

    def _end_soon(self, span: Span, rpc: Any) -> None:
        task = asyncio.get_running_loop().create_task(_end(span, rpc))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


async def _end(span: Span, rpc: Any) -> None:
    """End the span of an RPC that is over: its code is there, gRPC only gives it to a coroutine."""
    code = (await rpc.code()).name
    span.set({"rpc.response.status_code": code})
    if code != "OK":
        span.fail(code)
    span.end()
