"""Traces: which contexts are recorded, what is loaded, what becomes of spans under load and at the end."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import NoReturn

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from llmlab.tracing.provider import SpanQueue
from services.runtime import telemetry
from services.runtime.logs import configure_logging
from services.runtime.settings import ServiceSettings, SettingsError
from services.runtime.spans import Tracer
from services.runtime.tracing import (
    NOT_RECORDED,
    current_traceparent,
    is_recorded,
    is_trace_context,
    open_tracing,
    under,
)
from tests.support.spans import spans_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("traceparent", "context", "recorded"),
    [
        (f"00-{TRACE}-{SPAN}-01", True, True),
        (f"00-{TRACE}-{SPAN}-00", True, False),
        (f"00-{TRACE}-{SPAN}-03", True, True),
        (f"cc-{TRACE}-{SPAN}-01", True, True),
        (NOT_RECORDED, True, False),
        (f"ff-{TRACE}-{SPAN}-01", False, False),
        (f"00-{'0' * 32}-{SPAN}-01", False, False),
        (f"00-{TRACE}-{'0' * 16}-01", False, False),
        (f"00-{TRACE.upper()}-{SPAN}-01", False, False),
        (f"00-{TRACE}-{SPAN}-01\n", False, False),
        ("", False, False),
        ("00-4bf92f35-00f067aa-01", False, False),
    ],
)
def test_a_trace_context_is_what_w3c_says(traceparent: str, context: bool, recorded: bool) -> None:
    assert (is_trace_context(traceparent), is_recorded(traceparent)) == (context, recorded)


def test_without_a_setting_nothing_is_loaded_and_nothing_recorded() -> None:
    code = """
import sys
import llmlab.cli.commands, llmlab.cli.tracing
from services.cost import wiring as cost
from services.gateway import wiring as gateway
from services.identity import wiring as identity
from services.metrics import wiring as metrics
from services.orchestrator import wiring as orchestrator
from services.runtime.settings import ServiceSettings
from services.runtime.tracing import open_tracing
with open_tracing(ServiceSettings()) as tracer:
    assert tracer is None
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


@pytest.fixture
def tracer_file(tmp_path: Path) -> Path:
    return tmp_path / "new" / "spans.jsonl"


def settings(file: Path, **more: object) -> ServiceSettings:
    return ServiceSettings.model_validate({"trace_file": file, "log_format": "json", **more})


def _log_below(tracer: Tracer) -> NoReturn:
    with under(tracer.begin("inner", current_traceparent())):
        logging.getLogger("services").warning("here")
    raise SettingsError("no")


def test_spans_lie_below_each_other_and_their_ids_are_in_the_log(tracer_file: Path) -> None:
    stream = StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        with open_tracing(settings(tracer_file)) as tracer:
            assert tracer is not None
            configure_logging(settings(tracer_file), stream)
            outer = tracer.begin("outer", f"00-{TRACE}-{SPAN}-01", kind="server", attributes={"llmlab.cell": 7})
            with pytest.raises(SettingsError), under(outer):
                _log_below(tracer)
            assert current_traceparent() == ""
            logging.getLogger("services").warning("there")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    below, above = spans_of(tracer_file)
    assert (above["trace_id"], above["parent_span_id"], above["service"]) == (TRACE, SPAN, "llmlab-runtime")
    assert (above["kind"], above["status"]) == ("SERVER", "ERROR")
    assert above["attributes"] == {"llmlab.cell": 7, "error.type": "SettingsError"}
    assert (below["trace_id"], below["parent_span_id"], below["status"]) == (TRACE, above["span_id"], "UNSET")
    here, there = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (here["trace_id"], here["span_id"]) == (TRACE, below["span_id"])
    assert "trace_id" not in there
    assert tracer_file.stat().st_mode & 0o777 == 0o600


def test_a_long_text_is_cut(tracer_file: Path) -> None:
    with open_tracing(settings(tracer_file)) as tracer:
        assert tracer is not None
        tracer.begin("long", attributes={"text": "x" * 100_000}).end()
    (span,) = spans_of(tracer_file)
    assert span["parent_span_id"] == ""
    assert span["attributes"] == {"text": "x" * 8_192}


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"TRACE_FILE: .*file/spans cannot be written"):  # noqa: SIM117
        with open_tracing(settings(tmp_path / "file" / "spans")):
            pass


@pytest.mark.parametrize(("ratio", "chosen"), [(0.0, {False}), (1.0, {True}), (0.5, {False, True})])
def test_a_share_of_undecided_traces_is_recorded(tracer_file: Path, ratio: float, chosen: set[bool]) -> None:
    with open_tracing(settings(tracer_file, trace_ratio=ratio)) as tracer:
        assert tracer is not None
        assert {tracer.chooses() for _ in range(200)} == chosen


class Stuck(SpanExporter):
    """Exports nothing until it is released, and then says how it went."""

    def __init__(self, result: SpanExportResult = SpanExportResult.SUCCESS) -> None:
        self.released = threading.Event()
        self.entered = threading.Event()
        self.taken: list[str] = []
        self._result = result

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.released.wait(10)
        self.taken += [span.name for span in spans]
        return self._result


class Queued:
    """A queue before an exporter, and what it has dropped."""

    def __init__(self, exporter: SpanExporter, spans_max: int) -> None:
        self.dropped = telemetry.Counter()
        self.queue = SpanQueue([exporter], spans_max, self.dropped.add, every_s=0.01)

    def end(self, *names: str) -> None:
        for name in names:
            self.queue.on_end(ReadableSpan(name))


def test_what_does_not_fit_is_dropped_and_counted() -> None:
    exporter = Stuck()
    queued = Queued(exporter, 2)
    queued.end("a")
    assert exporter.entered.wait(10), "one is on its way"
    queued.end("b", "c", "d", "e")
    assert queued.dropped.value == 2
    exporter.released.set()
    queued.queue.close(10)
    assert exporter.taken == ["a", "b", "c"]
    queued.end("late")
    assert queued.dropped.value == 3


def test_the_end_does_not_wait_for_a_collector_that_hangs() -> None:
    exporter = Stuck()
    queued = Queued(exporter, 10)
    queued.end("a")
    assert exporter.entered.wait(10)
    queued.end("b", "c")
    queued.queue.close(0.01)
    assert queued.dropped.value == 2, "the one under way may still arrive"
    exporter.released.set()


def test_what_a_collector_refuses_is_counted() -> None:
    exporter = Stuck(SpanExportResult.FAILURE)
    exporter.released.set()
    queued = Queued(exporter, 10)
    queued.end("a", "b")
    queued.queue.close(10)
    assert queued.dropped.value == 2


def test_a_tracer_is_what_an_endpoint_gives_too(tmp_path: Path) -> None:
    """Nobody listens there: the spans are dropped, counted, and the end comes."""
    counter = telemetry.counter("spans_dropped", service="runtime")
    before = counter.value
    with open_tracing(ServiceSettings(trace_endpoint="http://127.0.0.1:9", trace_flush_s=0.2)) as tracer:
        assert isinstance(tracer, Tracer)
        tracer.begin("lost").end()
    assert counter.value >= before
