"""Pages of groups out of blocks: for questions of which rows of a view would be read by the hundred thousand.

What there are no blocks of is added from rows and events: the quarter-hours at the borders of a window, the hours that
are not over, the tail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, bindparam, select, text

from services.cost.rollups import BLOCK_GRAINS, HOUR_US, TAG, Parts, View, block_parts_of, parts_of, view_of
from services.cost.spend import Order, SpendQuery, SpendRow, TagShare
from services.cost.store.event_sums import tag_entry
from services.cost.store.spend_sql import (
    COST,
    MONEY,
    SLOT,
    Slot,
    Sources,
    first_and_last,
    keys_of,
    signed_sums,
    spend_row,
    within,
)
from services.cost.store.tables import SPLIT, SUMMED, spend_late_hours, spend_progress
from services.runtime.dialects import BINARY_ROWS, each_found
from services.runtime.errors import ResourceExhausted

if TYPE_CHECKING:
    from services.cost.block_page import BlockPage, Layout, UsedBlock
    from services.cost.grid import Table

CELLS_MAX: Final = 4_000_000
"""Groups, of all periods, that are added up at once; more are read row by row."""
BYTES_MAX: Final = 64_000_000
"""The size of all blocks that a page is read from; where they are larger, rows are read."""
EVENTS_MAX: Final = 50_000
"""Events beside the blocks that are added up one by one; where there are more, rows are read."""
_PROGRESS: Final = select(spend_progress).where(spend_progress.c.project_id == bindparam("project_id"))
_LATE: Final = (
    select(spend_late_hours.c.hour_us)
    .where(
        spend_late_hours.c.project_id == bindparam("project_id"),
        spend_late_hours.c.hour_us >= bindparam("from_us"),
        spend_late_hours.c.hour_us < bindparam("before_us"),
    )
    .limit(1)
)
_Bucket = tuple[str, int]


@dataclass(slots=True)
class _Pieces:
    """What the slots of a question are put together from."""

    folded: int
    """The last event that is in blocks and rows."""
    uses: dict[_Bucket, list[tuple[int, int]]] = field(default_factory=dict)
    """The blocks by grain and beginning; the slots that they are added to, each by its place, with the sign."""
    rest: list[tuple[int, Parts]] = field(default_factory=list)
    """Rows and events, by the number of the slot."""


class BlockReader:
    """Answers what blocks answer sooner than rows, in one project within a transaction."""

    def __init__(self, connection: Connection, project_id: str, *, now_us: int) -> None:
        self._connection = connection
        self._project_id = project_id
        self._now_us = now_us

    def groups(
        self, query: SpendQuery, slots: Sequence[Slot], names: Mapping[int, str], limit: int
    ) -> list[SpendRow] | None:
        """At most `limit` groups in the order of the query, after its position; None where rows have to be read.

        `names` are the keys of periods by the numbers of their slots, where the query divides by periods.
        """
        columns = [column for one in query.group_by for column in one.columns]
        conditions = query.spend_filter.conditions()
        view = view_of({*columns, *conditions})
        # Rows of one user, or one model, are found by an index; blocks would be read for all of them.
        if view is None or not view.packed or not columns or conditions.keys() - {"provider"}:
            return None
        pieces = self._pieces(view, slots)
        if pieces is None:
            return None
        page = self._page(query, view, slots, pieces)
        if page is None or page.cells > CELLS_MAX:
            return None
        rows = page.rows(by_cost=query.order is Order.COST, after=query.after, limit=limit)
        keys = keys_of(query.group_by)
        return [spend_row(query, keys, row, names, self._project_id) for row in rows]

    def _page(self, query: SpendQuery, view: View, slots: Sequence[Slot], pieces: _Pieces) -> BlockPage | None:
        # Here, because a service of little usage should not load NumPy.
        from services.cost.block_page import BlockPage
        from services.cost.grid import parts_for

        keys = keys_of(query.group_by)
        parts = parts_for(view.columns, keys, query.spend_filter.conditions())
        blocks = self._blocks(view, pieces.uses) if parts is not None else None
        if parts is None or blocks is None:
            return None
        try:
            rest = self._rest(query, view, slots, pieces)
        except ResourceExhausted:
            return None
        return BlockPage(_layout(query, keys, slots), parts, blocks, rest)

    def _pieces(self, view: View, slots: Sequence[Slot]) -> _Pieces | None:
        progress = self._connection.execute(_PROGRESS, {"project_id": self._project_id}).one_or_none()
        if progress is None or progress.packed_us <= slots[0].start_us:
            return None
        from_us, before_us = min(slot.start_us for slot in slots), max(slot.end_us for slot in slots)
        named = {"project_id": self._project_id, "from_us": from_us - from_us % HOUR_US, "before_us": before_us}
        if self._connection.execute(_LATE, named).first() is not None:
            return None
        times = first_and_last(self._connection, self._project_id)
        found = _Pieces(progress.folded_sequence)
        for place, slot in enumerate(slots):
            start_us, end_us = within(slot, times, BLOCK_GRAINS)
            if start_us >= end_us:
                continue
            middle_us = min(max(start_us, progress.packed_us), end_us)
            packed = block_parts_of(start_us, middle_us, progress.packed_us)
            for bucket in packed.buckets:
                found.uses.setdefault((bucket.grain.value, bucket.start_us), []).append((bucket.sign, place))
            rest = Parts([], packed.spans)
            if middle_us < end_us:
                later = parts_of(middle_us, end_us, view.grains, closed_us=progress.closed_us, now_us=self._now_us)
                rest = Parts(later.buckets, [*packed.spans, *later.spans])
            found.rest.append((slot.number, rest))
        return found

    def _rest(self, query: SpendQuery, view: View, slots: Sequence[Slot], pieces: _Pieces) -> Table:
        """The sums that are not in blocks, by slot and group."""
        columns = [key for key in keys_of(query.group_by) if key != SLOT]
        conditions = query.spend_filter.conditions()
        cost = SPLIT if query.tag_share is TagShare.SPLIT else COST
        sources = Sources(self._connection, slots, columns, cost, tuple(conditions), "")
        sources.add_parts(view, pieces.rest)
        own = {"project_id": self._project_id, **conditions}
        sources.check(own, EVENTS_MAX)
        sources.add_tail()
        keys = ", ".join([SLOT, *columns])
        statement = f"SELECT {keys}, {signed_sums(SUMMED)} FROM ({sources.union()}) AS parts GROUP BY {keys}"  # noqa: S608
        bound = {**own, "tag_entry": tag_entry(conditions.get(TAG, "")), "folded": pieces.folded}
        found = self._connection.execute(text(sources.tables() + statement), bound)
        names = list(found.keys())
        rows = found.all()
        return dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(names, ())

    def _blocks(self, view: View, uses: Mapping[_Bucket, Sequence[tuple[int, int]]]) -> list[UsedBlock] | None:
        """The blocks that are used; None where they have too many groups, or are too many."""
        from services.cost.block_page import UsedBlock
        from services.cost.blocks import PackedBlock, unpacked_names

        if not uses:
            return []
        buckets = ", ".join(f"('{grain}', {start_us})" for grain, start_us in uses)
        condition = (
            f"block.project_id = :project_id AND block.view = '{view.name}' AND block.grain = buckets.grain"
            " AND block.bucket_us = buckets.start_us"
        )
        source = each_found(self._connection, "buckets", "spend_blocks", "block", condition)
        listed = f"WITH buckets(grain, start_us) AS (VALUES {buckets})"
        own = {"project_id": self._project_id}
        sizes = f"{listed} SELECT sum(length(block.content)), min(length(block.content)) FROM {source}"  # noqa: S608
        size, least = self._connection.execute(text(sizes), own).one()
        if size is None:
            return []
        if size > BYTES_MAX or not least:
            return None
        statement = f"{listed} SELECT block.grain, block.bucket_us, block.names, block.content FROM {source}"  # noqa: S608
        rows = self._connection.execute(text(statement), own, execution_options=BINARY_ROWS)
        names_of = cache(unpacked_names)
        return [
            UsedBlock(names_of(names), PackedBlock(content), uses[grain, start_us])
            for grain, start_us, names, content in rows
        ]


def _layout(query: SpendQuery, keys: Sequence[str], slots: Sequence[Slot]) -> Layout:
    from services.cost.block_page import Layout

    places = {name: place for place, name in enumerate((*SUMMED, SPLIT))}
    ranked = {name: places[name] for name in MONEY}
    if query.tag_share is TagShare.SPLIT:
        ranked[COST] = places[SPLIT]
    counted = {name: places[name] for name in SUMMED if name not in MONEY}
    return Layout(keys, SLOT, [slot.number for slot in slots], ranked, counted)
