"""The score of the Numenta Anomaly Benchmark (Lavin and Ahmad 2015), standard profile, for any labelled series.

A window of a tenth of the series, divided by its anomalies, is centred on each of them. The first alarm in a window
counts between 1 (at its beginning) and 0 (at its end), a missed window -1, any other alarm up to -0.11, less when it
follows a window closely. The sum is put on a scale on which no alarm at all is 0 and a perfect detector is 100.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

FALSE_ALARM: Final = 0.11
WINDOW_SHARE: Final = 0.1
PROBATION_SHARE: Final = 0.15
PROBATION_MAX_ROWS: Final = 750


@dataclass(frozen=True, slots=True)
class Scored:
    """A detector's scores of one series and where its anomalies are."""

    scores: NDArray[np.float64]
    anomalies: tuple[int, ...]


def windows_of(rows: int, anomalies: Sequence[int]) -> list[tuple[int, int]]:
    """First and last row of each window; windows that overlap are one."""
    if not anomalies:
        return []
    half = int(rows * WINDOW_SHARE / len(anomalies) / 2)
    windows: list[tuple[int, int]] = []
    for row in sorted(anomalies):
        first, last = max(0, row - half), min(rows - 1, row + half)
        if windows and first <= windows[-1][1]:
            windows[-1] = (windows[-1][0], last)
        else:
            windows.append((first, last))
    return windows


def weights_of(rows: int, windows: Sequence[tuple[int, int]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What an alarm at each row counts, and the window that the row is in (-1: none)."""
    weights = np.full(rows, -FALSE_ALARM)
    inside = np.full(rows, -1, dtype=np.int64)
    for number, (first, last) in enumerate(windows):
        width = last - first + 1
        for row in range(first, last + 1):
            weights[row] = _sigmoid(-(last - row + 1) / width) / _sigmoid(-1.0)
            inside[row] = number
        end = windows[number + 1][0] if number + 1 < len(windows) else rows
        for row in range(last + 1, end):
            weights[row] = _sigmoid((row - last) / max(1, width - 1)) * FALSE_ALARM
    return weights, inside


def _sigmoid(position: float) -> float:
    return -1.0 if position > 3 else 2 / (1 + math.exp(5 * position)) - 1


def sweep(corpus: Iterable[Scored]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Thresholds in falling order, and the score (0 - 100) of the corpus with each of them."""
    steps: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    windows_total = 0
    for series in corpus:
        rows = len(series.scores)
        windows = windows_of(rows, series.anomalies)
        windows_total += len(windows)
        weights, inside = weights_of(rows, windows)
        begin = min(int(PROBATION_SHARE * rows), PROBATION_MAX_ROWS)
        scores = series.scores[begin:]
        outside = inside[begin:] < 0
        steps.append((scores[outside], weights[begin:][outside]))
        for number in range(len(windows)):
            rows_in = inside[begin:] == number
            steps.append(_window_steps(scores[rows_in], weights[begin:][rows_in]))
    thresholds = np.concatenate([scores for scores, _ in steps])
    gains = np.concatenate([gain for _, gain in steps])
    order = np.argsort(-thresholds, kind="stable")
    thresholds, totals = thresholds[order], np.cumsum(gains[order])
    last_of_value = np.append(thresholds[:-1] != thresholds[1:], [True])
    return thresholds[last_of_value], 100 * totals[last_of_value] / (2 * max(1, windows_total))


def _window_steps(
    scores: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A window counts its earliest alarm: as the threshold falls, the row that counts moves to the left."""
    if not len(scores):
        return scores, weights
    record = np.maximum.accumulate(np.concatenate([[-np.inf], scores[:-1]]))
    first = scores > record
    # Records rise from left to right; the threshold meets the rightmost one first, which also undoes the miss (-1).
    thresholds, counted = scores[first][::-1], weights[first][::-1]
    return thresholds, np.diff(counted, prepend=-1.0)


def score_at(corpus: Iterable[Scored], threshold: float) -> float:
    """The score (0 - 100) of a corpus with a threshold that was chosen elsewhere."""
    thresholds, totals = sweep(corpus)
    reached = int(np.searchsorted(-thresholds, -threshold, side="right"))
    return float(totals[reached - 1]) if reached else 0.0


def best_threshold(corpus: Iterable[Scored]) -> tuple[float, float]:
    """The threshold that scores highest on a corpus, and that score."""
    thresholds, totals = sweep(corpus)
    best = int(np.argmax(totals))
    return float(thresholds[best]), float(totals[best])
