"""What a series usually shows at this time of the day or of the week, learned row by row.

Three ways to expect a value compete: the recent level alone, the median of earlier days at this time, and the median of
earlier weeks at this time. The one that has been closest lately speaks. Gaps and irregular rows are no special case:
a slot is a piece of the day or of the week, and holds what fell into it.
"""

from collections import deque
from typing import Final

from services.cost.surprise import History

DAY_S: Final = 86_400.0
WEEK_S: Final = 7 * DAY_S
CYCLES_KEPT: Final = 8
CYCLES_NEEDED: Final = 2
SLOT_MIN_S: Final = 1_800.0
SLOT_MAX_ROWS: Final = 96
LEVEL_WEIGHT: Final = 0.05
ERROR_WEIGHT: Final = 0.01
LEARNED_MIN_ROWS: Final = 24
_INTERVAL_ROWS: Final = 64


def _median(values: deque[float]) -> float:
    return sorted(values)[len(values) // 2]


class SamplingInterval:
    """The usual time between rows: the median of the last ones."""

    __slots__ = ("_gaps_s", "_last_s", "_rows", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        """0 until two rows are known."""
        self._gaps_s: deque[float] = deque(maxlen=_INTERVAL_ROWS)
        self._last_s: float | None = None
        self._rows = 0

    def add(self, at_s: float) -> None:
        """Learn from the time of a row, seconds since the epoch."""
        if self._last_s is not None:
            self._gaps_s.append(at_s - self._last_s)
            self._rows += 1
            # Often at first, later once a window.
            if self._rows < 4 or self._rows % _INTERVAL_ROWS == 0:
                self.seconds = _median(self._gaps_s)
        self._last_s = at_s


class Cycle:
    """Medians by slot of a day or a week, and the slow level around them; a cycle of length 0 has the level only."""

    __slots__ = ("_begun_s", "_cycle_s", "_learned", "_median", "_slot", "_slots", "error", "errors", "level", "ready")

    def __init__(self, cycle_s: float) -> None:
        self.level = 0.0
        """Smoothed difference between values and their slot's median."""
        self.error = 0.0
        """Smoothed absolute difference between values and what was expected."""
        self.errors = History()
        """Those differences while this cycle spoke."""
        self.ready = False
        """Whether the slot at hand has been seen in enough cycles."""
        self._cycle_s = cycle_s
        self._begun_s: float | None = None
        self._slots: dict[int, deque[float]] = {}
        self._slot = -1
        self._median = 0.0
        self._learned = 0

    def enter(self, at_s: float, interval_s: float, typical: float) -> None:
        """Move to the slot of a time. `typical` is the median of everything, for a cycle that has no slots."""
        if not self._cycle_s:
            self._median, self.ready = typical, True
            return
        if self._begun_s is None:
            self._begun_s = at_s
        slot = int(at_s % self._cycle_s / max(interval_s, SLOT_MIN_S))
        if slot != self._slot:
            self._slot = slot
            kept = self._slots.get(slot)
            # Once for the whole visit: a slot is not its own expectation.
            self._median = _median(kept) if kept else typical
            self.ready = bool(kept) and at_s - self._begun_s >= CYCLES_NEEDED * self._cycle_s

    @property
    def speaks(self) -> bool:
        """Whether its error is known well enough to compare."""
        return self.ready and (not self._cycle_s or self._learned >= LEARNED_MIN_ROWS)

    def residual(self, value: float) -> float:
        """The difference from the slot's median; the level is still in it."""
        return value - self._median

    def expected(self) -> float:
        """The slot's median, moved by the level."""
        return self._median + self.level

    def learn(self, value: float, interval_s: float) -> None:
        """Take a value in, after it was judged."""
        if self._cycle_s:
            kept = self._slots.get(self._slot)
            if kept is None:
                rows = int(SLOT_MIN_S / max(interval_s, 1.0)) * CYCLES_KEPT
                kept = self._slots[self._slot] = deque(maxlen=min(SLOT_MAX_ROWS, max(rows, CYCLES_KEPT)))
            kept.append(value)
        if self.ready:
            self._learned += 1
            residual = value - self._median
            self.error += max(1 / self._learned, ERROR_WEIGHT) * (abs(residual - self.level) - self.error)
            self.level += max(1 / self._learned, LEVEL_WEIGHT) * (residual - self.level)


class Expectation:
    """The competition of the cycles."""

    __slots__ = ("_cycles", "_interval")

    def __init__(self) -> None:
        self._interval = SamplingInterval()
        self._cycles = [Cycle(0.0), Cycle(DAY_S), Cycle(WEEK_S)]

    def enter(self, at_s: float, typical: float) -> Cycle:
        """The cycle that speaks for a time."""
        self._interval.add(at_s)
        for cycle in self._cycles:
            cycle.enter(at_s, self._interval.seconds, typical)
        return min((cycle for cycle in self._cycles if cycle.speaks), key=lambda cycle: cycle.error)

    def learn(self, value: float) -> None:
        """Take the value of that time in."""
        for cycle in self._cycles:
            cycle.learn(value, self._interval.seconds)
