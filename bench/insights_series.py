"""Simulated seasons with known anomalies: what servers, markets, roads and crowds look like when they are measured.

Each family draws a series from a seed. The shapes, lengths and sampling intervals are those of the public Numenta
Anomaly Benchmark (cloud metrics, advertising, traffic, tweets, temperatures, artificial patterns); no value of it is
used. Harmless surprises (heavy tails, single bursts, missing rows) are in most families and are not labelled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
MINUTE_S: Final = 60
HOUR_S: Final = 3_600
DAY_S: Final = 86_400
START_S: Final = 1_396_310_400


@dataclass(frozen=True, slots=True)
class Season:
    """One simulated series."""

    family: str
    timestamps_s: NDArray[np.int64]
    values: Values
    anomalies: tuple[int, ...]
    """The rows at which labelled anomalies begin."""


Draw = tuple[int, Values, list[int]]
"""Sampling interval in seconds, values, rows of anomalies."""


def season_of(family: str, seed: int) -> Season:
    """Draw one series of a family; the same seed gives the same series."""
    rng = np.random.default_rng([seed, sorted(FAMILIES).index(family)])
    interval_s, values, anomalies = FAMILIES[family](rng)
    timestamps_s = START_S + interval_s * np.arange(len(values), dtype=np.int64)
    if rng.random() < 0.3:
        return _with_gap(family, timestamps_s, values, anomalies, rng)
    return Season(family, timestamps_s, values, tuple(anomalies))


def _with_gap(
    family: str, timestamps_s: NDArray[np.int64], values: Values, anomalies: list[int], rng: np.random.Generator
) -> Season:
    """Rows are missing at random, and once for some hours."""
    keep = rng.random(len(values)) > 0.005
    hole = int(rng.integers(len(values) // 5, len(values) - 50))
    keep[hole : hole + int(rng.integers(5, 40))] = False
    keep[anomalies] = True
    moved = tuple(int(keep[:row].sum()) for row in anomalies)
    return Season(family, timestamps_s[keep], values[keep], moved)


def _rows_of(rng: np.random.Generator, rows: int, count: int) -> list[int]:
    """Where anomalies begin: after a fifth of the series, not closer than a twelfth of it."""
    chosen: list[int] = []
    for _ in range(200):
        row = int(rng.integers(int(rows * 0.2), int(rows * 0.96)))
        if all(abs(row - other) > rows // 12 for other in chosen):
            chosen.append(row)
        if len(chosen) == count:
            break
    return sorted(chosen)


def _red(rng: np.random.Generator, rows: int, memory: float) -> Values:
    """Noise of unit variance in which each value remembers the one before."""
    shocks = rng.standard_normal(rows) * np.sqrt(1 - memory**2)
    noise = np.empty(rows)
    level = rng.standard_normal()
    for row in range(rows):
        level = memory * level + shocks[row]
        noise[row] = level
    return noise


def _day(rows: int, interval_s: int, rng: np.random.Generator, *, weekend: float = 1.0) -> Values:
    """A daily pattern between 0 and 1 with two peaks, lower at weekends."""
    second = np.arange(rows) * interval_s
    phase = 2 * np.pi * (second / DAY_S - rng.uniform(0.2, 0.4))
    pattern = 0.5 + 0.35 * np.sin(phase) + 0.15 * np.sin(2 * phase + rng.uniform(0, 3))
    weekday = (second // DAY_S + 1) % 7
    return np.clip(pattern, 0, None) * np.where(weekday >= 5, weekend, 1.0)


def _steady(rng: np.random.Generator) -> Draw:
    """A processor's load: a level with noise and harmless blips; spikes or a new level are anomalies."""
    rows = 4_032
    noise = rng.uniform(0.02, 0.15)
    values = rng.uniform(2, 60) * (1 + noise * _red(rng, rows, rng.uniform(0, 0.7)))
    level = float(np.median(values))
    blips = rng.random(rows) < rng.uniform(0, 0.004)
    values[blips] += level * noise * rng.uniform(3, 8, int(blips.sum()))
    anomalies = _rows_of(rng, rows, int(rng.integers(1, 3)))
    for row in anomalies:
        if rng.random() < 0.5:
            values[row:] += level * noise * rng.choice([-1, 1]) * rng.uniform(3, 8)
        else:
            values[row : row + int(rng.integers(1, 12))] += level * noise * rng.uniform(8, 25)
    return 5 * MINUTE_S, np.clip(values, 0, None), anomalies


def _near_constant(rng: np.random.Generator) -> Draw:
    """An idle machine: almost a constant in few distinct values, rare spikes; the large ones are labelled."""
    rows = 4_032
    values = rng.choice([0.066, 0.068, 0.132, 0.134, 0.2], rows, p=[0.3, 0.2, 0.3, 0.15, 0.05])
    for row in _rows_of(rng, rows, 4):
        values[row : row + int(rng.integers(1, 4))] += rng.uniform(0.1, 0.6)
    anomalies = _rows_of(rng, rows, int(rng.integers(1, 3)))
    for row in anomalies:
        values[row : row + int(rng.integers(1, 30))] += rng.uniform(1.0, 2.5)
    return 5 * MINUTE_S, values, anomalies


def _bursts(rng: np.random.Generator) -> Draw:
    """Disk and network: near zero with heavy-tailed bursts at irregular times; larger or denser ones are labelled."""
    rows = int(rng.integers(4_000, 4_800))
    values = rng.lognormal(0, 0.3, rows) * 1e4
    busy = rng.random(rows) < rng.uniform(0.01, 0.08)
    values[busy] += rng.pareto(2.5, int(busy.sum())) * 1e6 + 2e5
    anomalies = _rows_of(rng, rows, int(rng.integers(1, 4)))
    for row in anomalies:
        width = int(rng.integers(2, 40))
        dense = rng.random(min(width, rows - row)) < 0.7
        values[row : row + width] += dense * rng.uniform(1e6, 1.2e7)
    return 5 * MINUTE_S, values, anomalies


def _periodic_jobs(rng: np.random.Generator) -> Draw:
    """A machine with a job every hour or so; a change of its rhythm or height is the anomaly."""
    rows = int(rng.choice([4_032, 18_050]))
    period = int(rng.integers(6, 40))
    values = rng.uniform(10, 30) + rng.normal(0, 1.5, rows)
    height = rng.uniform(15, 45)
    values[np.arange(rows) % period < max(1, period // 6)] += height
    anomalies = _rows_of(rng, rows, 1)
    row = anomalies[0]
    width = int(rng.integers(rows // 40, rows // 12))
    inside = np.arange(row, min(rows, row + width))
    kind = rng.integers(3)
    if kind == 0:
        values[inside] += height * rng.uniform(0.7, 1.4)
    elif kind == 1:
        values[inside] = values[inside].min() + rng.normal(0, 1.5, len(inside))
    else:
        values[inside[(inside % max(2, period // 3)) == 0]] += height
    return 5 * MINUTE_S, values, anomalies


def _requests(rng: np.random.Generator) -> Draw:
    """Sparse counts of requests with a daily rhythm; surges and silences are anomalies."""
    rows = 4_032
    mean = rng.uniform(3, 80)
    rate = mean * (0.2 + 1.6 * _day(rows, 5 * MINUTE_S, rng))
    anomalies = _rows_of(rng, rows, int(rng.integers(1, 3)))
    for row in anomalies:
        width = int(rng.integers(3, 80))
        rate[row : row + width] = rate[row : row + width] * rng.uniform(2.5, 5) if rng.random() < 0.7 else 0.0
    return 5 * MINUTE_S, rng.negative_binomial(4, 4 / (4 + rate)).astype(np.float64), anomalies


def _capacity(rng: np.random.Generator) -> Draw:
    """A group of servers: whole numbers in long steps; zero, or a jump, is the anomaly."""
    rows = int(rng.integers(4_000, 4_800))
    values = np.empty(rows)
    level, row = float(rng.integers(20, 40)), 0
    while row < rows:
        width = int(rng.integers(20, 300))
        values[row : row + width] = level
        level = max(15.0, level + float(rng.integers(-4, 5)))
        row += width
    values += rng.choice([0.0, 0.0, 1.0, -1.0], rows)
    anomalies = _rows_of(rng, rows, int(rng.integers(1, 4)))
    for row in anomalies:
        values[row : row + int(rng.integers(5, 120))] = 0.0 if rng.random() < 0.6 else values.max() * 1.6
    return 5 * MINUTE_S, values, anomalies


def _prices(rng: np.random.Generator) -> Draw:
    """Hourly prices of advertising: noisy, heavy-tailed, weakly daily; labelled are the extreme ones."""
    rows = int(rng.integers(1_530, 1_650))
    spread = rng.uniform(0.25, 0.6)
    values = rng.uniform(0.1, 2) * (0.6 + 0.8 * _day(rows, HOUR_S, rng)) * np.exp(spread * _red(rng, rows, 0.3))
    anomalies = _rows_of(rng, rows, int(rng.integers(1, 4)))
    for row in anomalies:
        values[row : row + int(rng.integers(1, 5))] *= rng.uniform(3, 9)
    return HOUR_S, values, anomalies


def _traffic(rng: np.random.Generator) -> Draw:
    """Road speed or occupancy: days, rush hours, weekends; a jam at the wrong time is the anomaly."""
    rows = int(rng.integers(1_130, 2_500))
    interval_s = int(rng.choice([5, 10, 15])) * MINUTE_S
    values = 80 - 25 * _day(rows, interval_s, rng, weekend=0.5) + 4 * _red(rng, rows, 0.5)
    for row in _rows_of(rng, rows, 3):
        values[row : row + int(rng.integers(1, 4))] -= rng.uniform(5, 15)
    anomalies = _rows_of(rng, rows, int(rng.integers(1, 4)))
    for row in anomalies:
        values[row : row + int(rng.integers(3, 30))] -= rng.uniform(20, 45)
    return interval_s, np.clip(values, 2, None), anomalies


def _travel_time(rng: np.random.Generator) -> Draw:
    """Travel time: skewed with many short spikes; labelled are the long or extreme ones."""
    rows = int(rng.integers(2_100, 2_500))
    values = 120 + 200 * _day(rows, 10 * MINUTE_S, rng) ** 2 + 30 * np.exp(0.7 * rng.standard_normal(rows))
    jams = rng.random(rows) < 0.015
    values[jams] += rng.exponential(250, int(jams.sum()))
    anomalies = _rows_of(rng, rows, int(rng.integers(1, 4)))
    for row in anomalies:
        values[row : row + int(rng.integers(1, 14))] += rng.uniform(900, 3_000)
    return 10 * MINUTE_S, values, anomalies


def _crowd(rng: np.random.Generator) -> Draw:
    """Mentions of a name: counts with days, weekends and heavy tails; the few largest surges are labelled."""
    rows = 15_850
    interval_s = 5 * MINUTE_S
    rate = rng.lognormal(2, 1) * (0.25 + 1.5 * _day(rows, interval_s, rng, weekend=rng.uniform(0.5, 1)))
    rate *= np.exp(0.25 * _red(rng, rows, 0.97))
    for row in rng.integers(0, rows, 50):
        width = int(rng.integers(2, 12))
        rate[row : row + width] *= 1 + rng.exponential(1.5)
    anomalies = _rows_of(rng, rows, int(rng.integers(2, 5)))
    for row in anomalies:
        width = min(int(rng.integers(4, 60)), rows - row)
        surge = rng.uniform(6, 30) * np.exp(-np.arange(width) / (width / 2))
        rate[row : row + width] *= 1 + surge
    return interval_s, rng.negative_binomial(3, 3 / (3 + rate)).astype(np.float64), anomalies


def _rides(rng: np.random.Generator) -> Draw:
    """Rides in a city, half-hourly: days and weeks; holidays, storms and marathons are anomalies."""
    rows = 10_320
    values = 2_000 + 24_000 * _day(rows, 30 * MINUTE_S, rng, weekend=rng.uniform(0.7, 0.95))
    values *= 1 + 0.05 * _red(rng, rows, 0.9)
    anomalies = _rows_of(rng, rows, 5)
    for row in anomalies:
        width = int(rng.integers(20, 70))
        values[row : row + width] *= rng.choice([0.35, 0.6, 1.4])
    return 30 * MINUTE_S, values, anomalies


def _machine(rng: np.random.Generator) -> Draw:
    """The temperature of a machine: wanders, dips; a deep dip, or a slow drift before a failure, is labelled."""
    rows = 22_695
    values = 85 + 6 * _red(rng, rows, 0.998) + 1.5 * _red(rng, rows, 0.8)
    anomalies = _rows_of(rng, rows, 4)
    for row in anomalies:
        width = int(rng.integers(30, 400))
        depth = rng.uniform(20, 70) * np.minimum(1, np.arange(width) / rng.uniform(1, width))
        values[row : row + width] -= depth[: rows - row]
    return 5 * MINUTE_S, values, anomalies


def _office(rng: np.random.Generator) -> Draw:
    """The temperature of an office, hourly: a weak day, slow weather; failures of its regulation are labelled."""
    rows = 7_267
    values = 71 + 3 * _red(rng, rows, 0.99) + 2 * _day(rows, HOUR_S, rng) + 0.4 * rng.standard_normal(rows)
    anomalies = _rows_of(rng, rows, 2)
    for row in anomalies:
        values[row : row + int(rng.integers(20, 120))] += rng.choice([-1, 1]) * rng.uniform(4, 9)
    return HOUR_S, values, anomalies


def _latency(rng: np.random.Generator) -> Draw:
    """Latency of requests: a narrow band, then errors of seconds or a wider band."""
    rows = 4_032
    values = 45 + 1.5 * rng.standard_normal(rows) + rng.exponential(0.8, rows)
    anomalies = _rows_of(rng, rows, 3)
    for row in anomalies:
        if rng.random() < 0.5:
            values[row : row + int(rng.integers(1, 20))] += rng.uniform(8, 40)
        else:
            width = int(rng.integers(60, 200))
            values[row : row + width] += rng.normal(0, 5, width)[: rows - row]
    return 5 * MINUTE_S, values, anomalies


def _keys(rng: np.random.Generator) -> Draw:
    """How long somebody holds keys: nearly nothing at night, irregular by day; another hand is the anomaly."""
    rows = int(rng.choice([1_882, 5_315]))
    awake = _day(rows, 5 * MINUTE_S, rng) > 0.45
    active = awake & (rng.random(rows) < 0.5)
    values = np.where(active, rng.gamma(2, 0.05, rows), 0.0)
    anomalies = _rows_of(rng, rows, 2)
    for row in anomalies:
        width = int(rng.integers(8, 60))
        values[row : row + width] = rng.gamma(3, 0.12, width)[: rows - row]
    return 5 * MINUTE_S, values, anomalies


def _pattern(rng: np.random.Generator) -> Draw:
    """An artificial day (a plateau by day); a day that is flat, higher, lower or missing is the anomaly."""
    rows = 4_032
    hour = np.arange(rows) * 5 / 60 % 24
    plateau = (hour >= 9) & (hour < 18)
    low, high = 20.0, 80.0
    noise = rng.choice([0.0, 1.0, 8.0])
    values = np.where(plateau, high, low) + noise * rng.random(rows)
    day = int(rng.integers(7, 13))
    begin = day * 288 + 9 * 12
    inside = slice(begin, begin + 9 * 12)
    kind = rng.integers(4)
    if kind == 0:
        values[inside] = low + noise * rng.random(9 * 12)
    elif kind == 1:
        values[inside] += 60
    elif kind == 2:
        values[inside] -= 40
    else:
        begin = day * 288
        values[begin : begin + 60] = high + noise * rng.random(60)
    return 5 * MINUTE_S, values, [begin]


def _density(rng: np.random.Generator) -> Draw:
    """Artificial spikes whose density or height grows at some point."""
    rows = 4_032
    period = int(rng.integers(20, 80))
    values = np.where(np.arange(rows) % period == 0, 20.0, 0.0) + rng.choice([0, 0.1, 1.0]) * rng.random(rows)
    row = int(rng.integers(rows // 2, int(rows * 0.85)))
    if rng.random() < 0.5:
        values[row::2] += np.where(rng.random(len(values[row::2])) < 0.3, 20.0, 0.0)
    else:
        values[row : row + rows // 12] += np.where(np.arange(rows // 12)[: rows - row] % period == 0, 25.0, 0.0)
    return 5 * MINUTE_S, values, [row]


def _flat(rng: np.random.Generator) -> Draw:
    """Nothing happens: a constant, noise, or the same day again and again. Nothing is labelled."""
    rows = 4_032
    hour = np.arange(rows) * 5 / 60 % 24
    kind = rng.integers(5)
    if kind == 0:
        return 5 * MINUTE_S, np.full(rows, 45.0), []
    if kind == 1:
        return 5 * MINUTE_S, rng.uniform(10, 90, rows), []
    day = np.where((hour >= 9) & (hour < 18), 80.0, 20.0)
    return 5 * MINUTE_S, day + (kind - 2) * 4 * rng.random(rows), []


FAMILIES: Final[dict[str, Callable[[np.random.Generator], Draw]]] = {
    "bursts": _bursts,
    "capacity": _capacity,
    "crowd": _crowd,
    "density": _density,
    "flat": _flat,
    "keys": _keys,
    "latency": _latency,
    "machine": _machine,
    "near_constant": _near_constant,
    "office": _office,
    "pattern": _pattern,
    "periodic_jobs": _periodic_jobs,
    "prices": _prices,
    "requests": _requests,
    "rides": _rides,
    "steady": _steady,
    "traffic": _traffic,
    "travel_time": _travel_time,
}
# How many series of each family the public benchmark has, roughly.
MIX: Final = {
    "bursts": 5, "capacity": 1, "crowd": 10, "density": 2, "flat": 5, "keys": 2, "latency": 2, "machine": 1,
    "near_constant": 4, "office": 1, "pattern": 4, "periodic_jobs": 2, "prices": 6, "requests": 2, "rides": 1,
    "steady": 5, "traffic": 4, "travel_time": 3,
}  # fmt: skip
