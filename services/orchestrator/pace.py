"""How fast a run goes now, when it will be done at that rate, and how long its answers took so far."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple, Protocol

from services.orchestrator.congestion import ModelCalls
from services.orchestrator.records import Statistics

RATE_RESULTS: Final = 500
"""The latest results that the rate is measured over: a pause before them does not count."""
QUANTILES: Final = (0.5, 0.95, 0.99)
_KEPT_RUNS: Final = 256
_GROWTH: Final = 1.02
"""Quantiles are asked for anew when a run has so many times as many answers: in all, that costs as much as some fifty
looks at the whole run, however long it is watched."""


class Pace(NamedTuple):
    """Results a second, microseconds until the end (None where nobody can say), and latencies by quantile."""

    results_per_s: float
    eta_us: int | None
    latency_us: tuple[tuple[float, int], ...]
    calls: tuple[ModelCalls, ...] = ()
    """What models take at once that have refused calls, all workers together."""


class Latest(NamedTuple):
    """The latest results: how many, and when the first and the last of them were committed."""

    results: int
    first_us: int
    last_us: int


class PaceLedger(Protocol):
    """Where results are counted."""

    async def latest_results(self, run_id: str, limit: int) -> Latest: ...
    async def latencies(self, run_id: str, ranks: list[int]) -> list[int]: ...
    async def call_limits(self, run_id: str) -> list[ModelCalls]: ...


class Paces:
    """The paces of runs that somebody watches."""

    def __init__(self, ledger: PaceLedger) -> None:
        self._ledger = ledger
        self._quantiles: OrderedDict[str, tuple[int, tuple[tuple[float, int], ...]]] = OrderedDict()

    async def of(self, run_id: str, statistics: Statistics) -> Pace:
        """The pace of a run that stands so."""
        latest = await self._ledger.latest_results(run_id, RATE_RESULTS)
        elapsed_us = latest.last_us - latest.first_us
        rate = (latest.results - 1) * 1e6 / elapsed_us if elapsed_us > 0 else 0.0
        ended = statistics.done + statistics.failed + statistics.unknown + statistics.cancelled
        left = statistics.cells_total - ended
        eta_us = round(left / rate * 1e6) if rate > 0 else None
        latencies = await self._latencies(run_id, statistics.done)
        return Pace(rate, eta_us, latencies, tuple(await self._ledger.call_limits(run_id)))

    async def _latencies(self, run_id: str, done: int) -> tuple[tuple[float, int], ...]:
        known = self._quantiles.get(run_id)
        if known and known[0] <= done < known[0] * _GROWTH:
            return known[1]
        if not done:
            return ()
        # Nearest rank: the smallest latency that so many answers do not exceed.
        ranks = [max(0, -(-int(quantile * 100) * done // 100) - 1) for quantile in QUANTILES]
        found = await self._ledger.latencies(run_id, ranks)
        quantiles = tuple(zip(QUANTILES, found, strict=False))
        self._quantiles[run_id] = (done, quantiles)
        self._quantiles.move_to_end(run_id)
        if len(self._quantiles) > _KEPT_RUNS:
            self._quantiles.popitem(last=False)
        return quantiles
