"""Figures of this process: counters, levels and histograms, for benches and tests (`snapshot()`) and for Prometheus.

_HOLDS = telemetry.counter("holds", outcome="refused")     # once, where the thing is wired
_HOLDS.add(1)                                              # on the hot path: one addition
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, TypeVar

_KeyT = TypeVar("_KeyT")
_ReadT = TypeVar("_ReadT")

MAX_SERIES = 10_000
"""Series (name and labels) a process keeps; later ones are dropped, so that a wild label cannot fill the memory."""

BUCKETS: tuple[float, ...] = tuple(0.01 * float(2**power) for power in range(24))
"""Upper bounds of histogram buckets: 0.01, 0.02 ... about 84,000; in milliseconds from 10 us to 84 s."""


class Counter:
    """A sum that grows, or, made by `level`, a figure that goes up and down."""

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


Labels = tuple[tuple[str, str], ...]
"""Name and value of each label, by name."""
_Key = tuple[str, Labels]
_counters: dict[_Key, Counter] = {}
_levels: dict[_Key, Counter] = {}
_gauges: dict[_Key, Callable[[], float]] = {}
_families: dict[str, Callable[[], Mapping[Labels, float]]] = {}
_histograms: dict[_Key, Histogram] = {}


class _Switch:
    on = True


def enable(*, on: bool) -> None:
    """Switch recording on or off for the series that are made from now on."""
    _Switch.on = on


def counter(name: str, **labels: str) -> Counter:
    """The counter of this name and these labels; always the same object. Ask once, keep it."""
    return _kept(_counters, (name, tuple(sorted(labels.items()))))


def level(name: str, **labels: str) -> Counter:
    """A figure that goes up and down by `add`; otherwise as a counter."""
    return _kept(_levels, (name, tuple(sorted(labels.items()))))


def _kept(series: dict[_Key, Counter], key: _Key) -> Counter:
    found = series.get(key)
    if found is not None:
        return found
    made = Counter()
    if _Switch.on and len(series) < MAX_SERIES:
        series[key] = made
    return made


def gauge(name: str, read: Callable[[], float], **labels: str) -> AbstractContextManager[None]:
    """A figure that is asked for when somebody looks, during the context; it costs nothing between."""
    return _asked(_gauges, (name, tuple(sorted(labels.items()))), read)


def gauges(name: str, read: Callable[[], Mapping[Labels, float]]) -> AbstractContextManager[None]:
    """As `gauge`, for figures whose labels come and go; who reads bounds how many they are."""
    return _asked(_families, name, read)


@contextmanager
def _asked(readers: dict[_KeyT, _ReadT], key: _KeyT, read: _ReadT) -> Iterator[None]:
    if _Switch.on:
        readers[key] = read
    try:
        yield
    finally:
        if readers.get(key) is read:
            del readers[key]


def _read_gauges() -> dict[_Key, float]:
    found = {key: read() for key, read in _gauges.items()}
    return found | {(name, labels): value for name, read in _families.items() for labels, value in read().items()}


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
    figures: dict[str, Any] = {_series(*key): found.value for key, found in (*_counters.items(), *_levels.items())}
    figures |= {_series(*key): value for key, value in _read_gauges().items()}
    for key, found in _histograms.items():
        figures[_series(*key)] = {
            "count": found.count,
            "sum": found.total,
            "max": found.maximum,
            "p50": found.quantile(0.5),
            "p99": found.quantile(0.99),
        }
    return figures


class Series(NamedTuple):
    """All series at one moment, each by name and labels."""

    counters: dict[_Key, float]
    levels: dict[_Key, float]
    """With the gauges."""
    histograms: dict[_Key, Histogram]
    """They go on counting."""


def series() -> Series:
    """All series of this process; quick, for the event loop's thread, which makes them."""
    counters = {key: found.value for key, found in _counters.items()}
    levels = {key: found.value for key, found in _levels.items()}
    return Series(counters, levels | _read_gauges(), dict(_histograms))


def reset() -> None:
    """Forget all series. Objects that are kept elsewhere go on counting, unseen: for benches and tests."""
    _counters.clear()
    _levels.clear()
    _histograms.clear()


def _series(name: str, labels: Labels) -> str:
    return name + "{" + ",".join(f"{key}={value}" for key, value in labels) + "}" if labels else name
