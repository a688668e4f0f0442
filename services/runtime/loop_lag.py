"""How late the event loop runs: a callback asks to run at a time, and the difference is the lag.

Whoever measures a latency in this process (TTFT above all) records `loop_lag_ms()` beside it: a late loop makes every
provider look slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.runtime import telemetry


class _Latest:
    """The lag of the latest probe of this process."""

    ms = 0.0


def loop_lag_ms() -> float:
    """The lag of the latest probe, in milliseconds; 0 before the first."""
    return _Latest.ms


@asynccontextmanager
async def watch_loop_lag(service: str, interval_s: float) -> AsyncIterator[None]:
    """Probe the running loop every `interval_s` during the context, into the histogram `loop_lag_ms{service}`."""
    probe = _Probe(telemetry.histogram("loop_lag_ms", service=service), interval_s)
    try:
        yield
    finally:
        probe.stop()


class _Probe:
    def __init__(self, lags: telemetry.Histogram, interval_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._lags = lags
        self._interval_s = interval_s
        self._due_s = self._loop.time() + interval_s
        self._timer = self._loop.call_at(self._due_s, self._tick)

    def stop(self) -> None:
        self._timer.cancel()

    def _tick(self) -> None:
        now_s = self._loop.time()
        _Latest.ms = max(0.0, now_s - self._due_s) * 1_000
        self._lags.record(_Latest.ms)
        self._due_s = now_s + self._interval_s
        self._timer = self._loop.call_at(self._due_s, self._tick)
