"""What was spent: pages of groups with the totals of their window, in one snapshot."""

from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from typing import Final

from sqlalchemy import Connection, bindparam, select

from services.cost.spend import Order, SpendFilter, SpendQuery, SpendRow, SpendSummary
from services.cost.store.spend_sql import Slot, SpendReader
from services.cost.store.tables import projects
from services.cost.windows import Window, slots_of, window_before, window_of
from services.runtime.database import Database
from services.runtime.errors import DeadlineExceeded, ResourceExhausted

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
        rows = _groups(reader, query, window, slots)
        totals = reader.totals(slots)
        return SpendSummary(
            rows=rows[: query.page_size],
            more=len(rows) > query.page_size,
            total=totals[0],
            before=totals[1] if before else None,
            held_nano_usd=connection.execute(_HELD, {"project_id": project_id}).scalar_one_or_none() or 0,
            window=window,
            window_before=before,
        )


def _groups(reader: SpendReader, query: SpendQuery, window: Window, slots: list[Slot]) -> list[SpendRow]:
    """At most one group more than a page has."""
    wanted = query.page_size + 1
    if not query.group_by:
        return []
    if query.period is None:
        return reader.groups(query, slots, {}, wanted)
    periods = slots_of(window, query.period, query.asked.zone)
    names = {period.starts_us: period.key for period in periods}
    slots = [Slot(period.starts_us, period.ends_us, period.starts_us) for period in periods]
    if query.order is not Order.KEYS or query.group_by[0].period is None or len(query.group_by) == 1:
        return reader.groups(query, slots, names, wanted)
    # In the order of the periods a page is full after a few of them: more and more are read until it is.
    if query.after:
        slots = [slot for slot in slots if slot.number >= int(query.after[0])]
    rows: list[SpendRow] = []
    read = 0
    while len(rows) < wanted and read < len(slots):
        more = slots[read : 2 * read + 1]
        rows += reader.groups(query, more, names, wanted - len(rows))
        read += len(more)
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
