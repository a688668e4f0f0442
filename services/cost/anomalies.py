"""Which values of a series are out of the ordinary, judged as they come.

Four questions are asked of every row, each only of the rows before it:

- step: how far is it from the row before?
- season: how far is it from what this time of the day or week usually shows, moved by the recent level?
- value: how far is it from the median of everything?
- drift: how much has added up, in one direction, of the differences from the season (CUSUM, Page 1954)?

Each answer is ranked among its own earlier answers (`services.cost.surprise`), so scale and distribution do not matter.
The cubic mean of the four surprises leans towards the largest without being decided by one alone. An anomaly is
reported once: a row keeps its score only when it is more surprising than every row of the refractory time before it.

`python -m services.cost.anomalies FILE.csv` scores a file with the columns timestamp and value.
"""

import argparse
import csv
import math
import os
import sys
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.cost.seasons import Expectation
from services.cost.series_file import BadSeries, SeriesRow, read_series
from services.cost.surprise import History

SURPRISE_HALF: Final = 2.25
"""The surprise, in decimal digits, that scores 0.5; chosen on the tuning seeds of bench/insights.py."""
ANOMALY_SCORE: Final = 0.5
REFRACTORY_MIN_ROWS: Final = 50
REFRACTORY_SHARE: Final = 0.05
BAND_SHARE: Final = 0.995
CUSUM_SLACK: Final = 2.0
CUSUM_CLIP: Final = 4.0
CUSUM_RESTART: Final = 40.0
_SCALE_WEIGHT: Final = 0.002
_HELP: Final = (
    "Score each row of a series by the rows before it. The series is a CSV file with the columns timestamp (ISO 8601, "
    "UTC unless it says otherwise, or seconds since 1970) and value (a number of any unit), in the order of the times."
)
_HELP_OUTPUT: Final = (
    "Printed is CSV: timestamp, value, score (0 as ever; 0.5 or more is an anomaly), lower and upper (the expected "
    "band, in the unit of the values), anomaly (1 or 0). Example: python -m services.cost.anomalies hours.csv"
)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the rows before it say about one row."""

    score: float
    """0 (as ever) to 1; 0.5 or more is an anomaly. Low in the refractory time."""
    expected: float
    lower: float
    """The expected band, in the unit of the values: 99.5 % of the differences from what was expected so far."""
    upper: float

    @property
    def anomaly(self) -> bool:
        """Whether it is worth telling somebody."""
        return self.score >= ANOMALY_SCORE


class Drift:
    """A two-sided CUSUM of differences in units of their usual size; it starts again once it has shown a drift."""

    __slots__ = ("_down", "_rows", "_scale", "_up")

    def __init__(self) -> None:
        self._up = self._down = self._scale = 0.0
        self._rows = 0

    def add(self, residual: float) -> float:
        """How much has added up with this difference."""
        size = abs(residual)
        if not self._rows:
            self._scale = size
        self._rows += 1
        ratio = size / self._scale if self._scale > 0 else (CUSUM_CLIP if size else 0.0)
        step = math.copysign(min(CUSUM_CLIP, ratio), residual)
        self._up = max(0.0, self._up + step - CUSUM_SLACK)
        self._down = max(0.0, self._down - step - CUSUM_SLACK)
        self._scale += max(1 / self._rows, _SCALE_WEIGHT) * (size - self._scale)
        total = max(self._up, self._down)
        if total > CUSUM_RESTART:
            self._up = self._down = 0.0
        return total


class Refractory:
    """Lets through what is larger than everything in the last rows: at least 50, or a twentieth of all."""

    __slots__ = ("_peaks", "_rows")

    def __init__(self) -> None:
        self._rows = 0
        self._peaks: deque[tuple[int, float]] = deque()

    def passes(self, surprise: float) -> bool:
        """Whether this row may be reported."""
        peaks = self._peaks
        self._rows += 1
        begin = self._rows - max(REFRACTORY_MIN_ROWS, int(self._rows * REFRACTORY_SHARE))
        while peaks and peaks[0][0] < begin:
            peaks.popleft()
        passed = not peaks or surprise > peaks[0][1]
        while peaks and peaks[-1][1] <= surprise:
            peaks.pop()
        peaks.append((self._rows, surprise))
        return passed


class Detector:
    """Judges the rows of one series, in the order of their times; memory is bounded."""

    def __init__(self) -> None:
        self._expectation = Expectation()
        self._steps, self._distances, self._drifts, self._values = History(), History(), History(), History()
        self._drift = Drift()
        self._refractory = Refractory()
        self._last: float | None = None

    def judge(self, at_s: float, value: float) -> Judgement:
        """Judge a row by those before it, then learn from it. `at_s` is in seconds since the epoch, `value` finite."""
        typical = value if self._last is None else self._values.quantile(0.5)
        cycle = self._expectation.enter(at_s, typical)
        expected = cycle.expected()
        answers = (
            (self._steps, 0.0 if self._last is None else abs(value - self._last)),
            (cycle.errors, abs(value - expected)),
            (self._distances, abs(value - typical)),
            (self._drifts, self._drift.add(cycle.residual(value))),
        )
        half_band = cycle.errors.quantile(BAND_SHARE)
        surprise = 0.0
        for history, size in answers:
            surprise += history.surprise(size) ** 3
            history.add(size)
        surprise = math.cbrt(surprise / len(answers))
        self._values.add(value)
        self._expectation.learn(value)
        self._last = value
        score = surprise / (surprise + SURPRISE_HALF) if self._refractory.passes(surprise) else 0.0
        return Judgement(score, expected, expected - half_band, expected + half_band)


def main(arguments: list[str]) -> int:
    """Print a CSV row for every row of a file; 2 when the file is no series, SystemExit(2) for wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m services.cost.anomalies", description=_HELP, epilog=_HELP_OUTPUT)
    parser.add_argument("file", metavar="FILE.csv", type=Path, help="the series")
    file = parser.parse_args(arguments).file
    try:
        rows = read_series(file)
    except BadSeries as error:
        sys.stderr.write(f"{file}: {error}\n")
        return 2
    try:
        _write_judgements(rows)
    except BrokenPipeError:
        # Whoever reads has seen enough; nothing more is to be written, not even by the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _write_judgements(rows: Iterable[SeriesRow]) -> None:
    detector = Detector()
    output = csv.writer(sys.stdout, lineterminator="\n")
    output.writerow(("timestamp", "value", "score", "lower", "upper", "anomaly"))
    for row in rows:
        judged = detector.judge(row.at_s, row.value)
        band = f"{judged.lower:.10g}", f"{judged.upper:.10g}"
        output.writerow((row.text, repr(row.value), f"{judged.score:.6f}", *band, int(judged.anomaly)))
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
