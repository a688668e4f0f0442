"""Series in CSV files: the columns `timestamp` and `value`, in any order, among any others."""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

COLUMNS: Final = ("timestamp", "value")
CLOCK_CHANGE_MAX_S: Final = 3_600
"""Local times repeat an hour when clocks are turned back; such rows are in order all the same."""
VALUE_MAX: Final = 1e150
"""Larger values have differences and sums that are no numbers any more."""


class BadSeries(ValueError):
    """A file that is no series; the message says where and what is wrong."""


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """One row of a series."""

    text: str
    """The timestamp as it was written."""
    at_s: float
    """The time in seconds since the epoch; text without an offset is taken for UTC."""
    value: float


def read_series(path: Path) -> list[SeriesRow]:
    """All rows of a file, in order. Raises BadSeries for the first thing that is wrong."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(_rows(csv.reader(lines)))
    except OSError as error:
        raise BadSeries(f"it cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise BadSeries("it is not UTF-8 text") from None
    except csv.Error as error:
        raise BadSeries(f"it is not CSV: {error}") from None
    if not rows:
        raise BadSeries("it has no rows below its header")
    return rows


def _rows(lines: Iterator[list[str]]) -> Iterator[SeriesRow]:
    header = [name.strip().lower() for name in next(lines, [])]
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise BadSeries(f"its first line has to name the columns timestamp and value; missing: {', '.join(missing)}")
    at, of = (header.index(name) for name in COLUMNS)
    latest_s = -math.inf
    for number, fields in enumerate(lines, start=2):
        if not fields:
            continue
        row = _row(number, fields, at, of)
        if row.at_s < latest_s - CLOCK_CHANGE_MAX_S:
            raise BadSeries(f"line {number}: {row.text} is before the rows above it; sort the rows by their time")
        latest_s = max(latest_s, row.at_s)
        yield row


def _row(number: int, fields: Sequence[str], at: int, of: int) -> SeriesRow:
    if len(fields) <= max(at, of):
        raise BadSeries(f"line {number}: it has {len(fields)} columns, too few for timestamp and value")
    text, written = fields[at].strip(), fields[of].strip()
    at_s = _seconds_of(text)
    if at_s is None:
        raise BadSeries(f"line {number}: {text!r} is no time; write 2026-11-21 13:05:00 or seconds since 1970")
    try:
        value = float(written)
    except ValueError:
        raise BadSeries(f"line {number}: the value {written!r} is not a number") from None
    if not abs(value) <= VALUE_MAX:
        raise BadSeries(f"line {number}: the value {written!r} is not a finite number up to {VALUE_MAX:g}")
    return SeriesRow(text, at_s, value)


def _seconds_of(text: str) -> float | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        try:
            seconds = float(text)
        except ValueError:
            return None
        return seconds if math.isfinite(seconds) else None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
