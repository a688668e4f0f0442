"""Figures of this process: counters and histograms that benches, tests and exporters read with `snapshot()`.

_HOLDS = telemetry.counter("holds", outcome="refused")     # once, where the thing is wired
_HOLDS.add(1)                                              # on the hot path: one addition
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

MAX_SERIES = 10_000
"""Series (name and labels) a process keeps; later ones are dropped, so that a wild label cannot fill the memory."""

BUCKETS: tuple[float, ...] = tuple(0.01 * float(2**power) for power in range(24))
"""Upper bounds of histogram buckets: 0.01, 0.02 ... about 84,000; in milliseconds from 10 us to 84 s."""


class Counter:
    """A sum that grows, or a level that goes up and down."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def add(self, amount: float = 1) -> None:
        """Add `amount`."""
        self.value += amount


class Histogram:
    """How measured values are distributed, in buckets that double."""

    __slots__ = ("buckets", "count", "maximum", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.maximum = 0.0
        self.buckets = [0] * (len(BUCKETS) + 1)

    def record(self, value: float) -> None:
        """Add one measured value."""
        self.count += 1
        self.total += value
        self.maximum = max(self.maximum, value)
        self.buckets[bisect_left(BUCKETS, value)] += 1

    def quantile(self, share: float) -> float:
        """Upper bound of the bucket that holds this share of the values (0.99: p99); 0 where there are none."""
        rank = share * self.count
        seen = 0
        for bound, count in zip((*BUCKETS, self.maximum), self.buckets, strict=True):
            seen += count
            if seen and seen >= rank:
                return min(bound, self.maximum)
        return 0.0


_Labels = tuple[tuple[str, str], ...]
_counters: dict[tuple[str, _Labels], Counter] = {}
_histograms: dict[tuple[str, _Labels], Histogram] = {}


class _Switch:
    on = True


def enable(*, on: bool) -> None:
    """Switch recording on or off for the series that are made from now on."""
    _Switch.on = on


def counter(name: str, **labels: str) -> Counter:
    """The counter of this name and these labels; always the same object. Ask once, keep it."""
    key = (name, tuple(sorted(labels.items())))
    found = _counters.get(key)
    if found is not None:
        return found
    made = Counter()
    if _Switch.on and len(_counters) < MAX_SERIES:
        _counters[key] = made
    return made


def histogram(name: str, **labels: str) -> Histogram:
    """The histogram of this name and these labels; always the same object. Units belong into the name: `rpc_ms`."""
    key = (name, tuple(sorted(labels.items())))
    found = _histograms.get(key)
    if found is not None:
        return found
    made = Histogram()
    if _Switch.on and len(_histograms) < MAX_SERIES:
        _histograms[key] = made
    return made


def snapshot() -> dict[str, Any]:
    """All series as plain values: {"rpcs{code=OK,method=CostService/Hold}": 12, "rpc_ms{...}": {"count": ...}}."""
    figures: dict[str, Any] = {_series(*key): found.value for key, found in _counters.items()}
    for key, found in _histograms.items():
        figures[_series(*key)] = {
            "count": found.count,
            "sum": found.total,
            "max": found.maximum,
            "p50": found.quantile(0.5),
            "p99": found.quantile(0.99),
        }
    return figures


def reset() -> None:
    """Forget all series. Objects that are kept elsewhere go on counting, unseen: for benches and tests."""
    _counters.clear()
    _histograms.clear()


def _series(name: str, labels: _Labels) -> str:
    return name + "{" + ",".join(f"{key}={value}" for key, value in labels) + "}" if labels else name
