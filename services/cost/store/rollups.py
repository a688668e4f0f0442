"""Folding usage events into the views, set-based: one statement for any number of events."""

from functools import cache
from itertools import pairwise
from typing import Final

from sqlalchemy import Connection, TextClause, bindparam, func, select, text, update

from services.cost.rollups import HOUR_US, TAG, VIEWS, Grain, View, closing_time
from services.cost.store.event_sums import events_by, rows_of_tags, tag_sets
from services.cost.store.tables import SPLIT, SUMMED, projects, spend_progress, spend_views
from services.runtime.database import Database
from services.runtime.dialects import sort_in_memory

_TOTAL: Final = spend_views["total"]
_PROGRESS: Final = select(
    spend_progress.c.folded_sequence, spend_progress.c.closed_us, spend_progress.c.packed_us
).where(spend_progress.c.project_id == bindparam("project_id"))
_TAKE_FREE_LOCK: Final = _PROGRESS.with_for_update(skip_locked=True)
_LAST: Final = select(projects.c.event_sequence).where(projects.c.project_id == bindparam("project_id"))
_ADVANCE: Final = (
    update(spend_progress)
    .where(spend_progress.c.project_id == bindparam("of_project"))
    .values(folded_sequence=bindparam("upto"), closed_us=bindparam("closed"))
)
_NOTE_LATE_HOURS: Final = text(
    f"INSERT INTO spend_late_hours SELECT DISTINCT CAST(:project_id AS text), occurred_us - occurred_us % {HOUR_US}"  # noqa: S608
    " FROM usage_events WHERE project_id = :project_id AND sequence > :folded AND sequence <= :upto"
    " AND occurred_us < :packed_us ON CONFLICT DO NOTHING"
)
_LATEST: Final = select(func.max(_TOTAL.c.bucket_us)).where(
    _TOTAL.c.project_id == bindparam("project_id"), _TOTAL.c.grain == VIEWS[0].grains[-1].value
)
_BEHIND: Final = (
    select(projects.c.project_id)
    .outerjoin_from(projects, spend_progress, projects.c.project_id == spend_progress.c.project_id)
    .where(
        projects.c.event_sequence > 0,
        (spend_progress.c.folded_sequence.is_(None)) | (spend_progress.c.folded_sequence < projects.c.event_sequence),
    )
    .limit(bindparam("max_projects"))
)


FOLD_TIMEOUT_S: Final = 120.0
"""How long one transaction of the roller may take: nobody waits for it, and what it did not finish is begun anew."""
ONE_WRITER_EVENTS_MAX: Final = 10_000
"""Events that one transaction folds on SQLite, where every other write waits for it."""


class Folder:
    """Takes the views of projects up to their last events. Several replicas may do so: one at a time has a project."""

    def __init__(self, database: Database, *, max_events: int) -> None:
        """At most `max_events` are folded in one transaction."""
        self._database = database
        self._max_events = min(max_events, ONE_WRITER_EVENTS_MAX) if database.dialect == "sqlite" else max_events

    async def behind(self, limit: int) -> list[str]:
        """At most `limit` projects with events that are not folded yet."""
        return await self._database.read(_projects_behind, limit)

    async def fold(self, project_id: str) -> int:
        """Fold the next events of a project; returns how many. 0 where there are none, or somebody else is at it."""
        return await self._database.write(self._fold, project_id, timeout_s=FOLD_TIMEOUT_S)

    def _fold(self, connection: Connection, project_id: str) -> int:
        return fold_events(connection, self._database, project_id, self._max_events)


def fold_events(connection: Connection, database: Database, project_id: str, max_events: int) -> int:
    """Add the next events of a project, at most so many, to every view; returns how many.

    Every event up to the project's counter is committed, or of this transaction: the counter is committed with them,
    under the project's lock. A project that somebody else is folding is left to him: whoever adds events holds the
    project's lock, for which holds and settlements wait.
    """
    named = {"project_id": project_id}
    progress = connection.execute(_TAKE_FREE_LOCK, named).one_or_none()
    if progress is None:
        first = {**named, "folded_sequence": 0, "closed_us": 0}
        inserted = connection.execute(
            database.upsert(spend_progress).on_conflict_do_nothing(),
            first,
            execution_options={"preserve_rowcount": True},
        )
        if inserted.rowcount == 0:
            return 0
        folded = closed_us = packed_us = 0
    else:
        folded, closed_us, packed_us = progress
    last = connection.execute(_LAST, named).scalar_one()
    upto = min(last, folded + max_events)
    if upto == folded:
        return 0
    span = {**named, "folded": folded, "upto": upto, **_limits(closed_us)}
    sort_in_memory(connection)
    sets = tag_sets(connection, "events")
    for view in VIEWS:
        connection.execute(_fold_into(view, sets), span)
    if packed_us:
        connection.execute(_NOTE_LATE_HOURS, {**span, "packed_us": packed_us})
    closed_us = _close(connection, project_id, closed_us, database.now_us(connection))
    connection.execute(_ADVANCE, {"of_project": project_id, "upto": upto, "closed": closed_us})
    return int(upto - folded)


def _projects_behind(connection: Connection, limit: int) -> list[str]:
    return list(connection.execute(_BEHIND, {"max_projects": limit}).scalars())


def _close(connection: Connection, project_id: str, closed_us: int, now_us: int) -> int:
    """Make the buckets of wider grains that are over by now; returns the time until which there are all of them."""
    latest_us = connection.execute(_LATEST, {"project_id": project_id}).scalar_one()
    closing_us = closing_time(latest_us, now_us)
    if closing_us <= closed_us:
        return closed_us
    before, after = _limits(closed_us), _limits(closing_us)
    for view in VIEWS:
        for wider, finer in reversed(list(pairwise(view.grains))):
            name = _limit_of(wider)
            if before[name] < after[name]:
                named = {"project_id": project_id, "from_us": before[name], "before_us": after[name]}
                connection.execute(_widen(view, wider, finer), named)
    return closing_us


def _limits(closed_us: int) -> dict[str, int]:
    """For each grain the border until which there are buckets, where it is not the finest."""
    return {_limit_of(grain): closed_us - closed_us % grain.width_us for grain in Grain}


def _limit_of(grain: Grain) -> str:
    return f"until_{grain.value}"


@cache
def _fold_into(view: View, sets: str) -> TextClause:
    """The statement that adds the events after :folded, up to :upto, to the finest grain of a view.

    Those that come so late that there are buckets of wider grains for them are added to these too. `sets` is the query
    for the sets of tags of `events`.
    """
    summed, columns, sums = _summed(view), _columns(view), _sums(view)
    *wider, finest = view.grains
    new = "project_id = :project_id AND sequence > :folded AND sequence <= :upto"
    events = events_by({"at_us": _bucket("occurred_us", finest)}, view.columns, new)
    tables = [f"events AS MATERIALIZED ({events})"]
    source = "events"
    if TAG in view.columns:
        source = "finest"
        tables.append(f"sets AS MATERIALIZED ({sets})")
        tables.append(
            f"finest AS MATERIALIZED (SELECT at_us{columns}, {sums}"  # noqa: S608 - our own names
            f" FROM ({rows_of_tags('events', 'sets', ('at_us',), view.columns)}) AS tagged"
            f" GROUP BY at_us{columns})"
        )
    groups = [f"SELECT '{finest.value}' AS grain, at_us AS bucket{columns}, {summed} FROM {source}"]  # noqa: S608
    groups += [
        f"SELECT '{grain.value}', {_bucket('at_us', grain)} AS bucket{columns}, {sums}"  # noqa: S608 - our own names
        f" FROM {source} WHERE at_us < :{_limit_of(grain)} GROUP BY bucket{columns}"
        for grain in wider
    ]
    added = ", ".join(f"{name} = {view.table}.{name} + excluded.{name}" for name in summed.split(", "))
    return text(
        f"WITH {', '.join(tables)}, grains AS ({' UNION ALL '.join(groups)})"  # noqa: S608 - our own names
        f" INSERT INTO {view.table} (project_id, grain, bucket_us{columns}, {summed})"
        f" SELECT CAST(:project_id AS text), grain, bucket{columns}, {summed} FROM grains WHERE true"
        # In the order of the key, so that rows that are read together lie together.
        f" ORDER BY grain, bucket{columns}"
        f" ON CONFLICT (project_id, grain, bucket_us{columns}) DO UPDATE SET {added}"
    )


@cache
def _widen(view: View, wider: Grain, finer: Grain) -> TextClause:
    """The statement that makes the buckets of a grain, from :from_us to :before_us, of those of the next finer one."""
    columns = _columns(view)
    return text(
        f"INSERT INTO {view.table} (project_id, grain, bucket_us{columns}, {_summed(view)})"  # noqa: S608 - our own names
        f" SELECT CAST(:project_id AS text), '{wider.value}', {_bucket('bucket_us', wider)} AS wide{columns},"
        f" {_sums(view)} FROM {view.table} WHERE project_id = :project_id AND grain = '{finer.value}'"
        f" AND bucket_us >= :from_us AND bucket_us < :before_us GROUP BY wide{columns} ORDER BY wide{columns}"
    )


def _columns(view: View) -> str:
    """Its columns, to be written behind others."""
    return "".join(f", {name}" for name in view.columns)


def _summed(view: View) -> str:
    """The columns that it sums."""
    return ", ".join((*SUMMED, SPLIT) if TAG in view.columns else SUMMED)


def _sums(view: View) -> str:
    """The sums of rows that are sums themselves."""
    return ", ".join(f"CAST(sum({name}) AS bigint) AS {name}" for name in _summed(view).split(", "))


def _bucket(column: str, grain: Grain) -> str:
    return f"({column} - {column} % {grain.width_us})"
