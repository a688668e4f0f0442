"""Traces of this process: off unless a setting names where spans go. Nothing of OpenTelemetry is loaded before.

A trace context travels as W3C's `traceparent`: between processes in the metadata of an RPC, and for each item of a
batch in the item's own field, because one RPC carries items of many traces. Who decides whether a trace is recorded is
who began it; everything below follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from llmlab.tracing import SpanTargets, TracingError
from services.runtime import telemetry
from services.runtime.settings import ServiceSettings, SettingsError

if TYPE_CHECKING:
    from services.runtime.spans import Span, Tracer

TRACEPARENT_HEADER = "traceparent"

NOT_RECORDED = f"00-{'1' * 32}-{'1' * 16}-00"
"""Sent along where nothing is recorded, so that a peer does not begin a trace of its own in the middle."""

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")

_CONTEXT: ContextVar[str] = ContextVar("llmlab_trace_context", default="")


@contextmanager
def open_tracing(settings: ServiceSettings) -> Iterator[Tracer | None]:
    """What begins this service's spans; None where the settings name nowhere to send them. Raises SettingsError."""
    dropped = telemetry.counter("spans_dropped", service=settings.service)
    if not settings.trace_endpoint and settings.trace_file is None:
        yield None
        return
    field = "trace_endpoint" if settings.trace_endpoint else "trace_file"
    try:
        from llmlab.tracing.provider import open_provider
        from services.runtime.spans import Tracer
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"{settings.variable(field)}: {error.name} is missing; install it with: pip install 'llmlab[tracing]'"
        ) from error
    targets = SpanTargets(
        service=f"llmlab-{settings.service}",
        endpoint=settings.trace_endpoint,
        file=settings.trace_file.expanduser() if settings.trace_file else None,
        queue_max=settings.trace_queue_max,
        flush_s=settings.trace_flush_s,
    )
    try:
        with open_provider(targets, dropped.add) as provider:
            yield Tracer(provider, ratio=settings.trace_ratio, texts=settings.trace_texts)
    except TracingError as error:
        raise SettingsError(f"{settings.variable('trace_file')}: {error}") from error


def is_recorded(traceparent: str) -> bool:
    """Whether this is a trace context, and of a trace that is recorded."""
    found = _TRACEPARENT.fullmatch(traceparent)
    return found is not None and bool(int(found[1], 16) & 1)


def is_trace_context(traceparent: str) -> bool:
    """Whether this is a trace context at all."""
    return _TRACEPARENT.fullmatch(traceparent) is not None


def current_traceparent() -> str:
    """The context of the span that this task works under; empty where nothing is recorded."""
    return _CONTEXT.get()


def bind_traceparent(traceparent: str) -> None:
    """Let this task, and the tasks that it starts, work under a recorded context, for good."""
    _CONTEXT.set(traceparent)


@contextmanager
def continued(traceparent: str) -> Iterator[None]:
    """Work under a context that was kept, whose span may be over; empty for none."""
    token = _CONTEXT.set(traceparent)
    try:
        yield
    finally:
        _CONTEXT.reset(token)


@contextmanager
def under(span: Span) -> Iterator[None]:
    """Work under `span`, and end it: as failed where the block raises."""
    try:
        with continued(span.traceparent):
            yield
    except BaseException as error:
        span.fail(getattr(error, "reason", "") or type(error).__name__)
        raise
    finally:
        span.end()
