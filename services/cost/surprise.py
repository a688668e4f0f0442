"""How surprising a value is among those before it: a rank instead of a distribution.

The share of earlier values that were as large is the p-value of conformal prediction (Vovk et al. 2005): whatever the
values' distribution and unit, it is below 1 % for about one value in a hundred while nothing changes. One threshold
therefore fits series that have nothing in common.
"""

from bisect import bisect_left, insort
from collections import deque
from math import log2, log10
from typing import Final

HISTORY_MAX_ROWS: Final = 20_000
WARM_UP_ROWS: Final = 20
EXCESS_MAX_BITS: Final = 6.0


class History:
    """The last values of one kind, at most HISTORY_MAX_ROWS, in order of size."""

    __slots__ = ("_arrivals", "_sorted")

    def __init__(self) -> None:
        self._arrivals: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, value: float) -> None:
        """Remember a finite value; the oldest one is forgotten when there are too many."""
        insort(self._sorted, value)
        self._arrivals.append(value)
        if len(self._arrivals) > HISTORY_MAX_ROWS:
            del self._sorted[bisect_left(self._sorted, self._arrivals.popleft())]

    def quantile(self, share: float) -> float:
        """The value that a share (0 - 1) of the remembered ones does not exceed; 0 without any."""
        values = self._sorted
        return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0

    def surprise(self, value: float) -> float:
        """Decimal digits of the value's p-value, and beyond the largest so far the bits by which it exceeds it.

        The excess is measured in distances from median to maximum. 0 while there is too little history to judge.
        """
        values = self._sorted
        count = len(values)
        if count < WARM_UP_ROWS:
            return 0.0
        as_large = count - bisect_left(values, value)
        digits = log10((count + 1) / (as_large + 1))
        largest = values[-1]
        if value <= largest:
            return digits
        spread = largest - values[count // 2]
        return digits + (min(EXCESS_MAX_BITS, log2(1 + (value - largest) / spread)) if spread > 0 else EXCESS_MAX_BITS)
