"""What a period will have cost at its end: what is spent already, and a path for the rest with its interval.

The path repeats the last weeks: an hour costs what the same hour of the last four weeks cost, each week weighing half
of the one after it (a seasonal exponential smoothing). How wrong such paths are is measured, not assumed: the same path
is drawn from earlier hours of the history (rolling origins), and its error summed over as many hours as are left. Sums
over a horizon err more than independent hours would, and are therefore taken whole. The interval is the root mean
square of these errors times the quantile of Student's t with as many degrees of freedom as errors that do not overlap.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from services.runtime.errors import WrongState

WEEK_HOURS: Final = 168
HISTORY_MIN_HOURS: Final = 2 * WEEK_HOURS
HISTORY_MAX_HOURS: Final = 13 * WEEK_HOURS
ORIGIN_STEP_HOURS: Final = 12
ERROR_MIN_HOURS: Final = 24
WEEK_WEIGHTS: Final = (1.0, 0.5, 0.25, 0.125)
LEVEL_DEFAULT_PERCENT: Final = 80
METHOD: Final = "seasonal-smoothing"


@dataclass(frozen=True, slots=True)
class Forecast:
    """A period's total at its end, nano-USD."""

    point_nano_usd: int
    lower_nano_usd: int
    """Never below what is spent already."""
    upper_nano_usd: int
    level_percent: int
    """The share of periods, in percent, whose total is meant to lie between the two."""
    history_hours: int
    """The hours that it was made from."""
    origins: int
    """The earlier forecasts whose errors were measured."""


class Path:
    """Sums of what the hours after an origin would cost; history is nano-USD an hour, oldest first."""

    def __init__(self, history: Sequence[int]) -> None:
        self._sums = [0, *accumulate(history)]

    def actual(self, begin: int, end: int) -> int:
        """What hours of the history cost."""
        return self._sums[end] - self._sums[begin]

    def total(self, origin: int, hours: float) -> float:
        """What the `hours` after an origin would cost, judged by the weeks before it (at least one)."""
        weeks, rest = divmod(hours, WEEK_HOURS)
        total = weight_sum = 0.0
        for number, weight in enumerate(WEEK_WEIGHTS, start=1):
            begin = origin - number * WEEK_HOURS
            if begin < 0:
                break
            whole = int(rest)
            cost = weeks * self.actual(begin, begin + WEEK_HOURS) + self.actual(begin, begin + whole)
            cost += (rest - whole) * self.actual(begin + whole, begin + whole + 1) if rest > whole else 0
            total += weight * cost
            weight_sum += weight
        return total / weight_sum


def forecast(history: Sequence[int], *, spent: int, spent_now: int, hours_left: float, level_percent: int) -> Forecast:
    """The total at the period's end.

    `history` is what each whole hour up to the origin cost (nano-USD, oldest first, zeros before the first call left
    out), `spent` what the period had cost at the origin, `spent_now` what it has cost now, `hours_left` the time from
    the origin to the period's end. Raises WrongState (INSUFFICIENT_HISTORY) below two weeks of history.
    """
    history = history[-HISTORY_MAX_HOURS:]
    hours = len(history)
    if hours < HISTORY_MIN_HOURS:
        raise WrongState(
            "INSUFFICIENT_HISTORY",
            f"A forecast needs {HISTORY_MIN_HOURS} hours (two weeks) since the first spend; there are {hours}. "
            f"Ask again in {math.ceil((HISTORY_MIN_HOURS - hours) / 24)} days.",
            metadata={"history_hours": str(hours), "needed_hours": str(HISTORY_MIN_HOURS)},
        )
    path = Path(history)
    errors, measured_hours = _errors(path, hours, hours_left)
    independent = max(1.0, (hours - WEEK_HOURS) / measured_hours)
    spread = math.sqrt(sum(error * error for error in errors) / len(errors)) * max(1.0, hours_left / measured_hours)
    half = _student_quantile((1 + level_percent / 100) / 2, independent) * spread
    point = spent + path.total(hours, hours_left)
    return Forecast(
        point_nano_usd=max(spent_now, round(point)),
        lower_nano_usd=max(spent_now, round(point - half)),
        upper_nano_usd=max(spent_now, round(point + half)),
        level_percent=level_percent,
        history_hours=hours,
        origins=len(errors),
    )


def _errors(path: Path, hours: int, hours_left: float) -> tuple[list[float], int]:
    """Errors of the paths from earlier origins, and over how many hours each was summed.

    Where the history is short for the horizon, errors over half of it stand in; they grow in proportion at most.
    """
    measured_hours = max(ERROR_MIN_HOURS, min(math.ceil(hours_left), (hours - WEEK_HOURS) // 2))
    last_origin = hours - measured_hours
    origins = range(last_origin, WEEK_HOURS - 1, -ORIGIN_STEP_HOURS)
    return [
        path.actual(origin, origin + measured_hours) - path.total(origin, measured_hours) for origin in origins
    ], measured_hours


def _student_quantile(share: float, freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share))
