"""Counts RPCs by method and code, and measures their time."""

from __future__ import annotations

from time import monotonic

from services.runtime import telemetry
from services.runtime.context import Call
from services.runtime.interceptors.outcome import outcome_of
from services.runtime.interceptors.stage import Stage
from services.runtime.methods import Method


class MetricsStage(Stage):
    """`rpcs{service,method,code}` and `rpc_ms{service,method}`."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._counters: dict[tuple[Method, str], telemetry.Counter] = {}
        self._times: dict[Method, telemetry.Histogram] = {}

    def leave(self, call: Call) -> None:
        """Count the call under its outcome and record its duration."""
        method = call.method
        code, _ = outcome_of(call)
        counter = self._counters.get((method, code))
        if counter is None:
            counter = telemetry.counter("rpcs", service=self._service, method=method.name, code=code)
            self._counters[method, code] = counter
        counter.add()
        times = self._times.get(method)
        if times is None:
            times = self._times[method] = telemetry.histogram("rpc_ms", service=self._service, method=method.name)
        times.record((monotonic() - call.started_s) * 1_000)
