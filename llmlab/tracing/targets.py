"""Where spans go, and how many wait there at most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self


class TracingError(Exception):
    """Spans cannot be exported as asked: a package is missing, or a file cannot be written. The message says what."""


@dataclass(frozen=True, slots=True)
class SpanTargets:
    """A collector, a file, or both.

    Attributes:
        service: Name of the process in traces, for example "llmlab-gateway".
        endpoint: OTLP over gRPC, for example "http://127.0.0.1:4317"; empty for none.
        file: Takes one JSON object per span and line, appended; None for none. Several processes may share it.
        queue_max: Spans that wait to be exported; what ends beyond it is dropped and counted.
        flush_s: How long a process that ends waits for its last spans to leave.
    """

    service: str
    endpoint: str = ""
    file: Path | None = None
    queue_max: int = 4_096
    flush_s: float = 2.0

    @classmethod
    def from_environment(cls, service: str, environ: Mapping[str, str]) -> Self | None:
        """Of LLMLAB_TRACE_ENDPOINT and LLMLAB_TRACE_FILE; None where neither is set."""
        endpoint, file = environ.get("LLMLAB_TRACE_ENDPOINT", ""), environ.get("LLMLAB_TRACE_FILE", "")
        if not (endpoint or file):
            return None
        return cls(service, endpoint, Path(file).expanduser() if file else None)
