"""Spans over OpenTelemetry's API; loaded only where traces are on."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Literal

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace.propagation import set_span_in_context

Kind = Literal["internal", "client", "server"]
Attribute = str | bool | int | float | Sequence[str]

_KINDS: dict[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "client": SpanKind.CLIENT,
    "server": SpanKind.SERVER,
}
_RECORDED = TraceFlags(TraceFlags.SAMPLED)
_ROOT = Context()


class Span:
    """Something that takes time. Attributes hold ids, names and figures: no texts, no credentials, no messages."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: OtelSpan) -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-01"
        """The context of this span, for what is done below it elsewhere."""

    def set(self, attributes: Mapping[str, Attribute]) -> None:
        """Add attributes."""
        self._span.set_attributes(attributes)

    def fail(self, reason: str) -> None:
        """It ends badly, for this reason: a name from a fixed set, not a message."""
        self._span.set_attribute("error.type", reason)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:
        """It is over."""
        self._span.end()


class Tracer:
    """Begins the spans of one service."""

    def __init__(self, provider: TracerProvider, *, ratio: float, texts: bool) -> None:
        """`ratio` of the traces that begin here are recorded; with `texts` spans hold prompts and answers."""
        self._tracer = provider.get_tracer("llmlab")
        self._ratio = ratio
        self.texts = texts

    def chooses(self) -> bool:
        """Whether a trace that nobody has decided about is recorded."""
        return random.random() < self._ratio  # noqa: S311 (a sample)

    def begin(
        self, name: str, parent: str = "", *, kind: Kind = "internal", attributes: Mapping[str, Attribute] | None = None
    ) -> Span:
        """Begin a span below `parent`, a recorded trace context, or a new trace where it is empty."""
        context = _context(parent) if parent else _ROOT
        return Span(self._tracer.start_span(name, context, kind=_KINDS[kind], attributes=attributes))


def _context(traceparent: str) -> Context:
    parent = SpanContext(int(traceparent[3:35], 16), int(traceparent[36:52], 16), True, _RECORDED)
    return set_span_in_context(NonRecordingSpan(parent), _ROOT)
