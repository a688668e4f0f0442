"""What was spent: pages of groups with the totals of their window, in one snapshot."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import pairwise
from typing import Final, TypeVar

from sqlalchemy import Connection, bindparam, select

from services.cost.spend import Dimension, Order, SpendFilter, SpendQuery, SpendRow, SpendSummary, Sums, sum_of
from services.cost.store.block_reader import BlockReader
from services.cost.store.spend_sql import Slot, SpendReader
from services.cost.store.tables import projects
from services.cost.windows import Window, slots_of, window_before, window_of
from services.runtime.database import Database
from services.runtime.errors import DeadlineExceeded, ResourceExhausted

T = TypeVar("T")

_MANY: Final = (Dimension.USER, Dimension.KEY, Dimension.RUN, Dimension.TAG)
"""Dimensions of so many values that a page by keys is full after a few of its first keys."""
_GROWTH: Final = 16
_HELD: Final = select(projects.c.held_nano_usd).where(projects.c.project_id == bindparam("project_id"))


class SpendStore:
    """Reads spend; each method sees one snapshot."""

    def __init__(self, database: Database, *, max_events: int, timeout_ms: int) -> None:
        """A mix that no view knows is summed from `max_events` events at most; a summary may take `timeout_ms`."""
        self._database = database
        self._max_events = max_events
        self._timeout_ms = timeout_ms

    async def summarize(self, project_id: str, query: SpendQuery) -> SpendSummary:
        """A page of groups, and the total of the window.

        Raises InvalidField for a wrong window, ResourceExhausted(LIMIT_REACHED) for what would take too long.
        """
        try:
            return await self._database.read(
                self._summarize, project_id, query.check(), timeout_s=self._timeout_ms / 1_000
            )
        except DeadlineExceeded as error:
            raise ResourceExhausted(
                "LIMIT_REACHED",
                f"The summary took longer than {self._timeout_ms} ms; shorten the window, filter it, or group by fewer "
                "dimensions (the limit is the setting LLMLAB_COST_SUMMARY_TIMEOUT_MS).",
            ) from error

    async def pages(self, project_id: str, query: SpendQuery) -> AsyncIterator[list[SpendRow]]:
        """Every group, page after page, each in a transaction of its own; the window is fixed by the first.

        Raises as `summarize`.
        """
        while True:
            summary = await self.summarize(project_id, query)
            if not query.group_by:
                yield [SpendRow((), (), summary.total)]
                return
            yield summary.rows
            if not summary.more:
                return
            query = replace(query, asked=query.asked.fixed(summary.window), after=summary.rows[-1].position)

    def _summarize(self, connection: Connection, project_id: str, query: SpendQuery) -> SpendSummary:
        now_us = self._database.now_us(connection)
        window = window_of(query.asked, now_us)
        before = window_before(query.asked, window) if query.compare else None
        reader = SpendReader(connection, project_id, query.spend_filter, now_us=now_us, max_events=self._max_events)
        slots = [Slot(one.start_us, one.end_us, index) for index, one in enumerate((window, before)) if one]
        blocks = BlockReader(connection, project_id, now_us=now_us)
        rows = _groups(reader, blocks, query, window, slots)
        totals = _totals_of(rows, query) or reader.totals(slots)
        return SpendSummary(
            rows=rows[: query.page_size],
            more=len(rows) > query.page_size,
            total=totals[0],
            before=totals[1] if before else None,
            held_nano_usd=connection.execute(_HELD, {"project_id": project_id}).scalar_one_or_none() or 0,
            window=window,
            window_before=before,
        )


def _totals_of(rows: list[SpendRow], query: SpendQuery) -> list[Sums] | None:
    """The totals of both windows where the rows are all groups, and every call is in one of them; else None."""
    if not query.group_by or Dimension.TAG in query.group_by or query.after or len(rows) > query.page_size:
        return None
    return [sum_of(row.sums for row in rows), sum_of(row.before for row in rows if row.before)]


def _groups(
    reader: SpendReader, blocks: BlockReader, query: SpendQuery, window: Window, slots: list[Slot]
) -> list[SpendRow]:
    """At most one group more than a page has."""
    wanted = query.page_size + 1
    if not query.group_by:
        return []
    names: dict[int, str] = {}
    if query.period:
        periods = slots_of(window, query.period, query.asked.zone)
        names = {period.starts_us: period.key for period in periods}
        slots = [Slot(period.starts_us, period.ends_us, period.starts_us) for period in periods]
    packed = blocks.groups(query, slots, names, wanted)
    if packed is not None:
        return packed
    if query.order is not Order.KEYS or len(query.group_by) == 1:
        return reader.groups(query, slots, names, wanted)
    # In the order of the keys a page is full after a few of the first ones: more and more are read until it is.
    if query.group_by[0].period:
        ahead = [slot for slot in slots if not query.after or slot.number >= int(query.after[0])]

        def read(piece: list[Slot], rest: int) -> list[SpendRow]:
            if len(piece) == 1 and len(query.group_by) > 2 and query.group_by[1] in _MANY:
                return _by_first_keys(reader, query, piece, names, rest, 1)
            return reader.groups(query, piece, names, rest)

        return _until_full(ahead, wanted, read)
    if any(one in _MANY for one in query.group_by) and query.group_by[0].columns:
        return _by_first_keys(reader, query, slots, names, wanted, 0)
    return reader.groups(query, slots, names, wanted)


def _by_first_keys(
    reader: SpendReader, query: SpendQuery, slots: list[Slot], names: dict[int, str], wanted: int, place: int
) -> list[SpendRow]:
    """At most so many groups in the order of their keys: those of the first values that the key at `place` has."""
    begun = query.after[:place] == tuple(slot.number for slot in slots[:place])
    from_key = str(query.after[place]) if query.after and begun else ""

    def read(piece: list[str], rest: int) -> list[SpendRow]:
        return reader.groups(query, slots, names, rest, (place, piece[0], piece[-1]))

    first = reader.first_keys(query, slots, place, from_key, wanted)
    rows = _until_full(first, wanted, read)
    # A value whose groups are on earlier pages, or that has nothing left in the window, fills no place on this one.
    while len(rows) < wanted and len(first) == wanted:
        _, *first = reader.first_keys(query, slots, place, first[-1], wanted + 1)
        rows += _until_full(first, wanted - len(rows), read)
    return rows


def _until_full(parts: list[T], wanted: int, read: Callable[[list[T], int], list[SpendRow]]) -> list[SpendRow]:
    """At most so many rows of `parts` in their order; `read` gives those of a piece, and not more than are missing.

    Often the first part alone has them all. Where it does not, each has few, and reading some more costs less than
    another statement.
    """
    rows: list[SpendRow] = []
    done = 0
    while len(rows) < wanted and done < len(parts):
        piece = parts[done : _GROWTH * done + 1]
        rows += read(piece, wanted - len(rows))
        done += len(piece)
    return rows


def spent_in(connection: Connection, project_id: str, spend_filter: SpendFilter, window: Window) -> int:
    """What the usage that fits a filter cost in a window, nano-USD; unpriced calls add nothing."""
    reader = SpendReader(connection, project_id, spend_filter)
    return reader.totals([Slot(window.start_us, window.end_us, 0)])[0].cost_nano_usd


def series_of(
    connection: Connection, project_id: str, spend_filter: SpendFilter, window: Window, step_us: int
) -> list[int]:
    """What `spent_in` gives, for each step of a window in their order, nano-USD.

    Steps are hours, days or other whole numbers of quarter-hours from the window's start; the last may be cut short.
    """
    borders = [*range(window.start_us, window.end_us, step_us), window.end_us]
    slots = [Slot(start_us, end_us, index) for index, (start_us, end_us) in enumerate(pairwise(borders))]
    reader = SpendReader(connection, project_id, spend_filter)
    return [sums.cost_nano_usd for sums in reader.totals(slots)]
