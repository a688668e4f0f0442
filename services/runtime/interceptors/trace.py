"""The span of a served RPC: below its caller's, or the first of a trace that this service begins."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from services.runtime.context import Call
from services.runtime.interceptors.outcome import outcome_of
from services.runtime.interceptors.stage import Stage
from services.runtime.tracing import TRACEPARENT_HEADER, bind_traceparent, is_recorded, is_trace_context

if TYPE_CHECKING:
    from services.runtime.spans import Tracer

# What OpenTelemetry counts as a failure of a server; all other codes are answers.
_FAILURES = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


class TraceStage(Stage):
    """Begins a span for each RPC that is to be recorded, and makes it the one that the handler works under.

    The caller's `traceparent` decides; without one the tracer's share of calls is recorded.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def enter(self, call: Call) -> Awaitable[None] | None:
        """Begin the span."""
        if call.method.infrastructure:
            return None
        parent = call.metadata.get(TRACEPARENT_HEADER, "")
        if not (isinstance(parent, str) and is_trace_context(parent)):
            if not self._tracer.chooses():
                return None
            parent = ""
        elif not is_recorded(parent):
            return None
        method = call.method.path[1:]
        attributes = {"rpc.system.name": "grpc", "rpc.method": method, "llmlab.request.id": call.request_id}
        call.span = self._tracer.begin(method, parent, kind="server", attributes=attributes)
        bind_traceparent(call.span.traceparent)
        return None

    def leave(self, call: Call) -> None:
        """End the span with the RPC's code, and the reason of an error."""
        if call.span is None:
            return
        code, reason = outcome_of(call)
        call.span.set({"rpc.response.status_code": code})
        if code in _FAILURES:
            call.span.fail(reason or code)
        call.span.end()
