"""Axes of the charts: where a value is along an axis, in percent, and which values are written beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Room at both ends of an axis, percent: labels and marks stand there.
_LOW_END = 8.0
_HIGH_END = 96.0
_TICKS_MAX = 6
_LOGARITHMIC_FROM = 8.0


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis from `low` to `high`, logarithmic where it spans orders of magnitude."""

    low: float
    high: float
    logarithmic: bool

    @classmethod
    def around(cls, values: Sequence[float], *, may_be_logarithmic: bool = True) -> Axis:
        """An axis with room for these values, of which there is at least one."""
        low, high = min(values), max(values)
        if may_be_logarithmic and low > 0 and high / low > _LOGARITHMIC_FROM:
            return cls(low / 1.15, high * 1.15, logarithmic=True)
        margin = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
        return cls(max(0.0, low - margin) if low >= 0 else low - margin, high + margin, logarithmic=False)

    def share(self, value: float) -> float:
        """How far a value is along the axis, 0 - 1."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def percent(self, value: float) -> float:
        """Where a value is across the chart, percent of its width."""
        return round(_LOW_END + self.share(value) * (_HIGH_END - _LOW_END), 2)

    def ticks(self) -> list[float]:
        """Round values along the axis, at most six."""
        candidates = self._decades() if self.logarithmic else self._steps()
        every = math.ceil(len(candidates) / _TICKS_MAX)
        return candidates[::every] if every else []

    def _decades(self) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        found: list[float] = []
        for digits in ((1, 2, 5), (1, 3), (1,)):
            found = [
                digit * 10.0**power
                for power in range(first, last + 1)
                for digit in digits
                if self.low <= digit * 10.0**power <= self.high
            ]
            if len(found) <= _TICKS_MAX:
                break
        return found

    def _steps(self) -> list[float]:
        span = self.high - self.low
        power = 10.0 ** math.floor(math.log10(span / _TICKS_MAX))
        step = next(each * power for each in (1, 2, 5, 10) if span / (each * power) <= _TICKS_MAX)
        first = math.ceil(self.low / step)
        return [number * step for number in range(first, math.floor(self.high / step) + 1)]
