"""Where the spans of a process go; nothing of OpenTelemetry is loaded before `llmlab.tracing.provider` is."""

from llmlab.tracing.targets import SpanTargets, TracingError

__all__ = ["SpanTargets", "TracingError"]
