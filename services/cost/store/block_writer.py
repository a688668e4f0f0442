"""Packs the events of hours that are over into blocks, and these into wider ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Row, bindparam, delete, func, select, text, update

from services.cost.rollups import BLOCK_GRAINS, HOUR_US, PACKED_COLUMNS, PACKED_VIEWS, VIEWS, Grain
from services.cost.store.rollups import FOLD_TIMEOUT_S
from services.cost.store.tables import (
    SUMMED,
    projects,
    spend_blocks,
    spend_late_hours,
    spend_progress,
    spend_views,
)
from services.runtime.database import Database
from services.runtime.dialects import BINARY_ROWS, follow_indexes

if TYPE_CHECKING:
    from services.cost.blocks import Block

PACKED_EVENTS_MIN: Final = 100_000
"""Events from which on a project's are packed: fewer are added up row by row soon enough."""
HOURS_MAX: Final = 24
"""Hours with usage that one transaction packs at most; the first late ones."""
HOUR_EVENTS_MAX: Final = 10_000_000
"""Calls of an hour that are packed: more would not be read within a transaction's time. It is never packed, nor is what
follows it; the views are read row by row then."""
GROUPS_MAX: Final = 200_000
"""Groups of a block: one that would have more, and all that would be made of it, are kept without content."""
_EVENTS_AT_ONCE: Final = 20_000
_FINEST: Final = BLOCK_GRAINS[-1]
_PROGRESS: Final = (
    select(spend_progress)
    .where(spend_progress.c.project_id == bindparam("project_id"))
    .with_for_update(skip_locked=True)
)
_LATE: Final = (
    select(spend_late_hours.c.hour_us)
    .where(spend_late_hours.c.project_id == bindparam("project_id"))
    .order_by(spend_late_hours.c.hour_us)
    .limit(HOURS_MAX)
)
_HAS_LATE: Final = select(spend_late_hours.c.hour_us).where(spend_late_hours.c.project_id == projects.c.project_id)
_UNPACKED: Final = (
    select(projects.c.project_id)
    .join(spend_progress, projects.c.project_id == spend_progress.c.project_id)
    .where(
        projects.c.event_sequence >= bindparam("min_events"),
        (spend_progress.c.packed_us < spend_progress.c.closed_us) | _HAS_LATE.exists(),
    )
    .limit(bindparam("max_projects"))
)
_TOTAL: Final = spend_views[VIEWS[0].name].c
_HOUR: Final = _TOTAL.bucket_us - _TOTAL.bucket_us % HOUR_US
_HOURS: Final = (
    select(_HOUR.label("hour_us"), func.sum(_TOTAL.calls).label("calls"))
    .where(
        _TOTAL.project_id == bindparam("project_id"),
        _TOTAL.grain == VIEWS[0].grains[-1].value,
        _TOTAL.bucket_us >= bindparam("from_us"),
        _TOTAL.bucket_us < bindparam("before_us"),
    )
    .group_by(_HOUR)
    .order_by(_HOUR)
    .limit(HOURS_MAX + 1)
)
_EVENTS: Final = text(
    f"SELECT {', '.join((*PACKED_COLUMNS, *SUMMED))} FROM usage_events WHERE project_id = :project_id"  # noqa: S608 - our own names
    # A sum, so that nobody takes the index of sequences.
    " AND occurred_us >= :from_us AND occurred_us < :before_us AND sequence + 0 <= :folded"
)
_IN_VIEW: Final = (
    spend_blocks.c.project_id == bindparam("project_id"),
    spend_blocks.c.view == bindparam("view"),
    spend_blocks.c.grain == bindparam("grain"),
    spend_blocks.c.bucket_us >= bindparam("from_us"),
    spend_blocks.c.bucket_us < bindparam("before_us"),
)
_BEGINNINGS: Final = select(spend_blocks.c.bucket_us).where(*_IN_VIEW)
_READ: Final = select(spend_blocks.c.names, spend_blocks.c.content).where(*_IN_VIEW)
_ANEW: Final = "(project_id, view, grain, bucket_us) DO UPDATE SET names = excluded.names, content = excluded.content"
_ADVANCE: Final = (
    update(spend_progress)
    .where(spend_progress.c.project_id == bindparam("of_project"))
    .values(packed_us=bindparam("upto"))
)


class Packer:
    """Packs what is folded. Several replicas may do so: one at a time has a project."""

    def __init__(self, database: Database, *, min_events: int = PACKED_EVENTS_MIN) -> None:
        """Projects with fewer events than `min_events` are left alone."""
        self._database = database
        self._min_events = min_events

    async def unpacked(self, limit: int) -> list[str]:
        """At most `limit` projects with hours to pack."""
        return await self._database.read(self._unpacked, limit)

    async def pack(self, project_id: str) -> int:
        """Pack the next hours of a project; returns how many. 0 where there are none, or somebody else is at it."""
        return await self._database.write(self._pack, project_id, timeout_s=FOLD_TIMEOUT_S)

    def _unpacked(self, connection: Connection, limit: int) -> list[str]:
        named = {"min_events": self._min_events, "max_projects": limit}
        return list(connection.execute(_UNPACKED, named).scalars())

    def _pack(self, connection: Connection, project_id: str) -> int:
        progress = connection.execute(_PROGRESS, {"project_id": project_id}).one_or_none()
        if progress is None:
            return 0
        follow_indexes(connection)
        packing = _Packing(connection, self._database, project_id, progress)
        hours = packing.late_hours()
        upto_us = progress.packed_us
        if not hours:
            hours, upto_us = packing.next_hours()
        packing.pack(hours, upto_us)
        return len(hours)


class _Packing:
    """One transaction's work on a project."""

    def __init__(self, connection: Connection, database: Database, project_id: str, progress: Row[Any]) -> None:
        self._connection = connection
        self._database = database
        self._named = {"project_id": project_id}
        self._folded: int = progress.folded_sequence
        self._packed_us: int = progress.packed_us
        self._closed_us: int = progress.closed_us

    def late_hours(self) -> list[int]:
        """Hours to pack again."""
        return list(self._connection.execute(_LATE, self._named).scalars())

    def next_hours(self) -> tuple[list[int], int]:
        """Hours with usage after those that are packed, and the time until which they are all that there are."""
        named = {**self._named, "from_us": self._packed_us, "before_us": self._closed_us}
        hours: list[int] = []
        for hour_us, calls in self._connection.execute(_HOURS, named):
            if calls > HOUR_EVENTS_MAX or len(hours) == HOURS_MAX:
                return hours, hour_us
            hours.append(hour_us)
        return hours, self._closed_us

    def pack(self, hours: list[int], upto_us: int) -> None:
        """Write the blocks of these hours, and all that are made of them and end by `upto_us`."""
        made = [(name, hour_us, block) for hour_us in hours for name, block in self._blocks_of_hour(hour_us).items()]
        self._write(_FINEST, made)
        touched: Iterable[int] = hours
        for wider, finer in reversed([*pairwise(BLOCK_GRAINS)]):
            touched = self._widen(wider, finer, touched, upto_us)
        late = spend_late_hours.c
        own = late.project_id == self._named["project_id"]
        self._connection.execute(delete(spend_late_hours).where(own, late.hour_us.in_(hours)))
        self._connection.execute(_ADVANCE, {"of_project": self._named["project_id"], "upto": upto_us})

    def _blocks_of_hour(self, hour_us: int) -> dict[str, Block | None]:
        # Here, because a service that packs nothing should not load NumPy.
        from services.cost.event_blocks import blocks_of

        named = {**self._named, "from_us": hour_us, "before_us": hour_us + HOUR_US, "folded": self._folded}
        rows = self._connection.execute(_EVENTS, named, execution_options={"yield_per": _EVENTS_AT_ONCE})
        found: dict[str, Block | None] = {}
        for piece in rows.partitions(_EVENTS_AT_ONCE):
            for name, block in blocks_of(piece, SUMMED.index("cost_nano_usd")).items():
                found[name] = _merged([found[name], block]) if name in found else block
        return found

    def _widen(self, wider: Grain, finer: Grain, touched: Iterable[int], upto_us: int) -> list[int]:
        """Make the blocks that hold `touched` finer ones, and those that have ended since; returns their beginnings."""
        width_us = wider.width_us
        end_us = upto_us - upto_us % width_us
        from_us = self._packed_us - self._packed_us % width_us
        named = {**self._named, "view": PACKED_VIEWS[0].name, "grain": finer.value, "from_us": from_us}
        ended = self._connection.execute(_BEGINNINGS, {**named, "before_us": end_us}).scalars()
        buckets = sorted({at_us - at_us % width_us for at_us in (*touched, *ended)})
        buckets = [bucket_us for bucket_us in buckets if bucket_us < end_us]
        made = [
            (view.name, bucket_us, _merged(self._read(view.name, finer, bucket_us, bucket_us + width_us)))
            for bucket_us in buckets
            for view in PACKED_VIEWS
        ]
        self._write(wider, made)
        return buckets

    def _read(self, view: str, grain: Grain, from_us: int, before_us: int) -> list[Block | None]:
        from services.cost.blocks import PackedBlock, unpacked_names

        named = {**self._named, "view": view, "grain": grain.value, "from_us": from_us, "before_us": before_us}
        return [
            PackedBlock(content).whole(unpacked_names(names)) if content else None
            for names, content in self._connection.execute(_READ, named, execution_options=BINARY_ROWS)
        ]

    def _write(self, grain: Grain, made: Iterable[tuple[str, int, Block | None]]) -> None:
        """Keep blocks, by view and beginning."""
        from services.cost.blocks import packed_names, packed_sums

        rows = [
            {
                **self._named,
                "view": view,
                "grain": grain.value,
                "bucket_us": bucket_us,
                "names": packed_names(block) if block else b"",
                "content": packed_sums(block) if block else b"",
            }
            for view, bucket_us, block in made
        ]
        self._database.insert_rows(self._connection, spend_blocks, rows, on_conflict=_ANEW)


def _merged(blocks: Sequence[Block | None]) -> Block | None:
    """The sum of blocks; None where they have too many groups."""
    from services.cost.blocks import merged

    whole = [block for block in blocks if block is not None]
    if len(whole) < len(blocks):
        return None
    block = merged(whole)
    return block if len(block.groups) <= GROUPS_MAX else None
