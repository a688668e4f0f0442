"""Which sums of usage events are kept, and how a window of time is put together from them.

A view sums the events by some of their dimensions, in buckets of several widths, its grains: a bucket begins at a whole
multiple of its width since 1970, UTC. Grains as fine as a quarter of an hour, because every time zone's offset is a
whole number of them.

The finest grain of a view has every event. A bucket of a wider grain is made of finer ones once it is over, so that the
events of an hour do not change the row of its day and of its eight days each time; an event that comes after that is
added to all of them.

A window is the difference of two boundaries. Each is rounded to the nearest bucket of the widest grain, and what that
adds or leaves out is corrected with the next finer grain: a day in Berlin is a day of UTC, plus the hour before it,
minus its own last hour. So a window needs few buckets, whatever the zone. Where a view has no grain that is fine enough
(it would have about as many rows as there are events), what remains is read from the events.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.cost.periods import FOREVER_US, QUARTER_US

HOUR_US: Final = 4 * QUARTER_US
TAIL_EVENTS_MAX: Final = 131_072
"""Events that may wait to be folded: who adds more folds half of them, so that a summary never reads more of them."""
CLOSING_DELAY_US: Final = HOUR_US
"""How long after its end a bucket of a wider grain is made: most late events have come by then."""
DAY_US: Final = 24 * HOUR_US


class Grain(StrEnum):
    """The width of a bucket; the values are stored."""

    THIRTY_TWO_DAYS = "32d"
    EIGHT_DAYS = "8d"
    DAY = "d"
    SIX_HOURS = "6h"
    HOUR = "h"
    QUARTER = "q"

    @property
    def width_us(self) -> int:
        """Microseconds."""
        return _WIDTHS_US[self]


_WIDTHS_US: Final = {
    Grain.THIRTY_TWO_DAYS: 32 * DAY_US,
    Grain.EIGHT_DAYS: 8 * DAY_US,
    Grain.DAY: DAY_US,
    Grain.SIX_HOURS: 6 * HOUR_US,
    Grain.HOUR: HOUR_US,
    Grain.QUARTER: QUARTER_US,
}
ALL_GRAINS: Final = tuple(Grain)
"""From the widest to the finest."""

TAG: Final = "tag"
"""The column of a tag, "key=value", in views; an event is in a row for each of its tags, without any in that of ""."""


@dataclass(frozen=True, slots=True)
class View:
    """Sums by some dimensions: `columns` names them as the events' columns do, with "tag" for one tag."""

    name: str
    columns: tuple[str, ...]
    grains: tuple[Grain, ...] = ALL_GRAINS
    turned: tuple[str, ...] = ()
    """Other columns than the first ones by which rows are found too; empty where these are all that filters."""
    packed: bool = False
    """Whether it is kept in blocks too, because it has so many groups."""

    @property
    def table(self) -> str:
        """The name of its table."""
        return f"spend_{self.name}"


_TO_HOURS: Final = ALL_GRAINS[:-1]
_TO_SIX_HOURS: Final = ALL_GRAINS[:-2]
_TO_DAYS: Final = ALL_GRAINS[:-3]
# In buckets that are finer than a view's, it would have about as many rows as there are events.
VIEWS: Final = (
    View("total", ()),
    View("by_model", ("provider", "model")),
    View("by_tag", (TAG,)),
    View("by_key", ("key_id",)),
    View("by_run", ("run_id", "provider", "model"), _TO_HOURS),
    View("by_user", ("user_id",), _TO_HOURS, packed=True),
    View("by_tag_model", (TAG, "provider", "model"), _TO_HOURS, packed=True),
    View("by_user_provider", ("provider", "user_id"), _TO_SIX_HOURS, ("user_id",), packed=True),
    View("by_key_model", ("key_id", "provider", "model"), _TO_SIX_HOURS, packed=True),
    View("by_tag_user", (TAG, "user_id"), _TO_SIX_HOURS, packed=True),
    View("by_user_model", ("provider", "model", "user_id"), _TO_DAYS, ("user_id",), packed=True),
)
"""The cheapest first."""
PACKED_VIEWS: Final = tuple([view for view in VIEWS if view.packed])
PACKED_COLUMNS: Final = ("provider", "model", "user_id", "key_id", "tags", "tag_count")
"""The columns of an event by which it finds its groups in these."""
BLOCK_GRAINS: Final = _TO_HOURS
"""The grains of blocks, whatever those of the rows: packed, a pair's hours take little room."""


def view_of(columns: Iterable[str]) -> View | None:
    """The cheapest view that knows all of the columns; None where there is none."""
    wanted = set(columns)
    return next((view for view in VIEWS if wanted <= set(view.columns)), None)


def closing_time(latest_us: int, now_us: int) -> int:
    """The time until which buckets of wider grains can be made; `latest_us` is the time of the latest event.

    Not the present alone: where events of long ago are being added, the buckets of their time are not over.
    """
    at_us = min(latest_us, now_us) - CLOSING_DELAY_US
    return max(0, at_us - at_us % HOUR_US)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket that is added to a sum (`sign` 1) or taken out of it (-1)."""

    grain: Grain
    start_us: int
    sign: int


@dataclass(frozen=True, slots=True)
class Span:
    """Events from `start_us` to before `end_us` that are added to a sum (`sign` 1) or taken out of it (-1)."""

    start_us: int
    end_us: int
    sign: int


@dataclass(slots=True)
class Parts:
    """What a window is the sum of."""

    buckets: list[Bucket]
    spans: list[Span]


def parts_of(start_us: int, end_us: int, grains: tuple[Grain, ...], *, closed_us: int, now_us: int) -> Parts:
    """Put a window together from buckets of these grains, widest first, and from spans of events where none fits.

    Of the wider grains there are the buckets that end by `closed_us`. Hardly an event occurs after `now_us`: a boundary
    in a bucket of the finest grain that is not over is rounded up, because next to nothing has to be taken out again.
    """
    parts = Parts([], [])
    limits = [closed_us - closed_us % grain.width_us for grain in grains[:-1]]
    _add(parts, start_us, end_us, [*zip(grains, [*limits, None], strict=True)], now_us, 1)
    return parts


def block_parts_of(start_us: int, end_us: int, packed_us: int) -> Parts:
    """Put a window that ends by `packed_us`, until when there are blocks, together from these and spans of events."""
    parts = Parts([], [])
    limits = [packed_us - packed_us % grain.width_us for grain in BLOCK_GRAINS]
    _add(parts, start_us, end_us, [*zip(BLOCK_GRAINS, limits, strict=True)], FOREVER_US, 1)
    return parts


def _add(
    parts: Parts, start_us: int, end_us: int, grains: Sequence[tuple[Grain, int | None]], now_us: int, sign: int
) -> None:
    """`grains` are those that are left, each with the border after which it has no buckets."""
    if start_us == end_us:
        return
    if start_us > end_us:
        _add(parts, end_us, start_us, grains, now_us, -sign)
        return
    for index, (grain, limit_us) in enumerate(grains):
        first_us, last_us = (_border(at_us, grain.width_us, limit_us, now_us) for at_us in (start_us, end_us))
        if first_us < last_us:
            parts.buckets += [Bucket(grain, at_us, sign) for at_us in range(first_us, last_us, grain.width_us)]
            _add(parts, start_us, first_us, grains[index + 1 :], now_us, sign)
            _add(parts, last_us, end_us, grains[index + 1 :], now_us, sign)
            return
    parts.spans.append(Span(start_us, end_us, sign))


def _border(at_us: int, width_us: int, limit_us: int | None, now_us: int) -> int:
    """The border of a bucket that is nearest."""
    below_us = at_us - at_us % width_us
    above_us = below_us + width_us
    nearest_us = above_us if at_us - below_us > above_us - at_us else below_us
    if limit_us is not None:
        return min(nearest_us, limit_us)
    return above_us if below_us < at_us and above_us > now_us else nearest_us
