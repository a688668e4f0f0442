"""OpenTelemetry's provider of spans, with a queue of its own: bounded, counted, and emptied in bounded time."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import format_span_id, format_trace_id

from llmlab import __version__
from llmlab.tracing.targets import SpanTargets, TracingError

BATCH_SPANS = 512
EXPORT_EVERY_S = 1.0
ATTRIBUTE_CHARACTERS_MAX = 8_192

_log = logging.getLogger(__name__)


@contextmanager
def open_provider(targets: SpanTargets, dropped: Callable[[int], None]) -> Iterator[TracerProvider]:
    """A provider that exports every span that it is asked for; who asks has sampled.

    `dropped` hears how many spans were lost, from any thread. At the end what waits is exported, for `flush_s` at
    most. Raises TracingError.
    """
    queue = SpanQueue(_exporters(targets), targets.queue_max, dropped)
    provider = TracerProvider(
        sampler=ALWAYS_ON,
        resource=Resource.create({"service.name": targets.service, "service.version": __version__}),
        shutdown_on_exit=False,
        span_limits=SpanLimits(max_span_attribute_length=ATTRIBUTE_CHARACTERS_MAX),
    )
    provider.add_span_processor(queue)
    try:
        yield provider
    finally:
        queue.close(targets.flush_s)


def _exporters(targets: SpanTargets) -> list[SpanExporter]:
    exporters: list[SpanExporter] = []
    if targets.file is not None:
        exporters.append(FileExporter(targets.file))
    if targets.endpoint:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        # The exporter tries again for as long as its timeout, in the queue's thread; the queue drops meanwhile.
        exporters.append(OTLPSpanExporter(endpoint=targets.endpoint, timeout=max(1, int(targets.flush_s))))
    return exporters


class SpanQueue(SpanProcessor):
    """Ended spans on their way to the exporters, which a thread feeds.

    The SDK's own queue neither counts what it drops nor ends in the time that a stopping process has.
    """

    def __init__(
        self,
        exporters: Sequence[SpanExporter],
        spans_max: int,
        dropped: Callable[[int], None],
        every_s: float = EXPORT_EVERY_S,
    ) -> None:
        """`spans_max` wait; what waits is exported every `every_s`, and sooner where there is much of it."""
        self._every_s = every_s
        self._exporters = exporters
        self._spans_max = spans_max
        self._dropped = dropped
        self._spans: deque[ReadableSpan] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="span-export", daemon=True)
        self._thread.start()

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span, or drop it where too many wait or the end has come."""
        if self._closing or len(self._spans) >= self._spans_max:
            self._dropped(1)
            return
        self._spans.append(span)
        if len(self._spans) >= BATCH_SPANS:
            self._wake.set()

    def close(self, timeout_s: float) -> None:
        """Export what waits, within `timeout_s`; drop the rest."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout_s)
        left = len(self._spans)
        self._spans.clear()
        if left:
            self._dropped(left)
            _log.warning("%d spans were not exported in time", left)
        for exporter in self._exporters:
            exporter.shutdown()

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(self._every_s)
            self._wake.clear()
            self._export_all()
        self._export_all()

    def _export_all(self) -> None:
        while self._spans:
            batch = [self._spans.popleft() for _ in range(min(len(self._spans), BATCH_SPANS))]
            exported = [self._exported(exporter, batch) for exporter in self._exporters]
            if not all(exported):
                self._dropped(len(batch))

    @staticmethod
    def _exported(exporter: SpanExporter, batch: Sequence[ReadableSpan]) -> bool:
        try:
            return exporter.export(batch) is SpanExportResult.SUCCESS
        except Exception:  # noqa: BLE001 (whatever an exporter meets, the next batch may succeed)
            _log.exception("spans could not be exported")
            return False


class FileExporter(SpanExporter):
    """Appends spans to a file that its owner alone can read, one JSON object a line.

    A batch is one write to the end of the file, so that the lines of several processes do not mix.
    """

    def __init__(self, path: Path) -> None:
        """Raises TracingError where the file cannot be written."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise TracingError(f"{path} cannot be written: {error.strerror}") from error

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write a batch."""
        text = "".join(json.dumps(span_fields(span), ensure_ascii=False) + "\n" for span in spans)
        data = memoryview(text.encode())
        while data:
            data = data[os.write(self._file, data) :]
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Close the file."""
        os.close(self._file)


def span_fields(span: ReadableSpan) -> dict[str, Any]:
    """A span as plain values: ids in hexadecimal, times in microseconds UTC; an empty parent is a trace's root."""
    context, parent = span.context, span.parent
    if context is None or span.start_time is None:
        raise ValueError("only a span that was begun can be written")
    return {
        "trace_id": format_trace_id(context.trace_id),
        "span_id": format_span_id(context.span_id),
        "parent_span_id": format_span_id(parent.span_id) if parent is not None else "",
        "service": span.resource.attributes.get("service.name", ""),
        "name": span.name,
        "kind": span.kind.name,
        "start_us": span.start_time // 1_000,
        "end_us": (span.end_time or time.time_ns()) // 1_000,
        "status": span.status.status_code.name,
        "attributes": dict(span.attributes or {}),
    }
