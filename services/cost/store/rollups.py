"""Folding usage events into the views, set-based: one statement for any number of events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from sqlalchemy import Connection, TextClause, bindparam, select, text, update

from services.cost.rollups import TAG, VIEWS, Grain, View
from services.cost.store.rows import NO_ENTRIES
from services.cost.store.tables import SPLIT, SUMMED, projects, spend_progress
from services.runtime.database import Database
from services.runtime.dialects import json_entries

_LOCK: Final = select(spend_progress.c.folded_sequence).where(spend_progress.c.project_id == bindparam("project_id"))
_TAKE_FREE_LOCK: Final = _LOCK.with_for_update(skip_locked=True)
_LAST: Final = select(projects.c.event_sequence).where(projects.c.project_id == bindparam("project_id"))
_ADVANCE: Final = (
    update(spend_progress)
    .where(spend_progress.c.project_id == bindparam("of_project"))
    .values(folded_sequence=bindparam("upto"))
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


@dataclass(frozen=True, slots=True)
class TagEntries:
    """The tags of `events` as a source of rows, in the words of the database."""

    all: str
    """The source, called `entry`."""
    others: str
    """The same once more, called `other`."""


class Folder:
    """Takes the views of projects up to their last events. Several replicas may do so: one at a time has a project."""

    def __init__(self, database: Database, *, max_events: int) -> None:
        """At most `max_events` are folded in one transaction."""
        self._database = database
        self._max_events = max_events

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
    folded = connection.execute(_TAKE_FREE_LOCK, named).scalar_one_or_none()
    if folded is None:
        first = {**named, "folded_sequence": 0}
        inserted = connection.execute(
            database.upsert(spend_progress).on_conflict_do_nothing(),
            first,
            execution_options={"preserve_rowcount": True},
        )
        if inserted.rowcount == 0:
            return 0
        folded = 0
    last = connection.execute(_LAST, named).scalar_one()
    upto = min(last, folded + max_events)
    if upto == folded:
        return 0
    span = {**named, "folded": folded, "upto": upto}
    for view in VIEWS:
        connection.execute(_fold_into(view, tag_entries(connection)), span)
    connection.execute(_ADVANCE, {"of_project": project_id, "upto": upto})
    return int(upto - folded)


def _projects_behind(connection: Connection, limit: int) -> list[str]:
    return list(connection.execute(_BEHIND, {"max_projects": limit}).scalars())


@cache
def _fold_into(view: View, entries: TagEntries) -> TextClause:
    """The statement that adds the events after :folded, up to :upto, to all grains of a view.

    Events are grouped by the finest grain, and the wider ones are made of its groups.
    """
    summed = (*SUMMED, SPLIT) if TAG in view.columns else SUMMED
    columns = "".join(f", {name}" for name in view.columns)
    sums = ", ".join(f"CAST(sum({name}) AS bigint) AS {name}" for name in summed)
    new = "project_id = :project_id AND sequence > :folded AND sequence <= :upto"
    events = events_by({"at_us": _bucket("occurred_us", view.grains[-1])}, view.columns, new)
    tables = [f"events AS MATERIALIZED ({events})"]
    if TAG in view.columns:
        tables.append(
            f"finest AS MATERIALIZED (SELECT at_us{columns}, {sums}"  # noqa: S608 - our own names
            f" FROM ({rows_of_tags('events', ('at_us',), view.columns, entries)}) AS tagged"
            f" GROUP BY at_us{columns})"
        )
    source = "finest" if TAG in view.columns else "events"
    *wider, finest = view.grains
    groups = [f"SELECT '{finest.value}' AS grain, at_us AS bucket{columns}, {', '.join(summed)} FROM {source}"]  # noqa: S608
    groups += [
        f"SELECT '{grain.value}', {_bucket('at_us', grain)} AS bucket{columns}, {sums}"  # noqa: S608 - our own names
        f" FROM {source} GROUP BY bucket{columns}"
        for grain in wider
    ]
    grains = " UNION ALL ".join(groups)
    added = ", ".join(f"{name} = {view.table}.{name} + excluded.{name}" for name in summed)
    return text(
        f"WITH {', '.join(tables)}, grains AS ({grains})"  # noqa: S608 - our own names
        f" INSERT INTO {view.table} (project_id, grain, bucket_us{columns}, {', '.join(summed)})"
        f" SELECT CAST(:project_id AS text), grain, bucket{columns}, {', '.join(summed)} FROM grains WHERE true"
        f" ON CONFLICT (project_id, grain, bucket_us{columns}) DO UPDATE SET {added}"
    )


def _bucket(column: str, grain: Grain) -> str:
    return f"({column} - {column} % {grain.width_us})"


def tag_entries(connection: Connection) -> TagEntries:
    """For `rows_of_tags`."""
    return TagEntries(*(json_entries(connection, "events.tags", name) for name in ("entry", "other")))


def events_by(
    keys: Mapping[str, str], columns: Sequence[str], condition: str, *, source: str = "usage_events AS events"
) -> str:
    """A query that sums the events that fit a condition by `keys` (expressions by their names) and `columns`.

    With a tag among the columns the events are summed by all of their tags together, for `rows_of_tags`. So the texts
    of tags are taken apart once for each group and not for each event.
    """
    plain = [f"events.{name}" for name in columns if name != TAG]
    sums = [f"CAST(sum(events.{name}) AS bigint) AS {name}" for name in SUMMED]
    if TAG in columns:
        plain.append("events.tags")
        parts = "(CASE WHEN events.tag_count > 1 THEN events.tag_count ELSE 1 END)"
        sums.append(f"CAST(sum(events.cost_nano_usd / {parts}) AS bigint) AS share")
        sums.append(f"CAST(sum(events.cost_nano_usd % {parts}) AS bigint) AS rest")
    named = [f"{expression} AS {name}" for name, expression in keys.items()]
    return (
        f"SELECT {', '.join([*named, *plain, *sums])} FROM {source} WHERE {condition}"  # noqa: S608 - our own names
        f" GROUP BY {', '.join([*keys.values(), *plain])}"
    )


def rows_of_tags(table: str, keys: Sequence[str], columns: Sequence[str], entries: TagEntries) -> str:
    """A query for a row of each tag of what `events_by` summed; the empty tag for events without tags.

    An equal share of the cost is each tag's, and what the division leaves the first one's.
    """
    kept = ", ".join([*keys, *(name for name in columns if name != TAG), *SUMMED])
    first = f"entry.key = (SELECT min(other.key) FROM {entries.others})"  # noqa: S608 - our own names
    return (
        f"SELECT {kept}, '' AS {TAG}, share + rest AS {SPLIT} FROM {table} AS events"  # noqa: S608 - our own names
        f" WHERE tags = '{NO_ENTRIES}'"
        f" UNION ALL SELECT {kept}, entry.key || '=' || entry.value AS {TAG},"
        f" share + CASE WHEN {first} THEN rest ELSE 0 END AS {SPLIT}"
        f" FROM {table} AS events CROSS JOIN {entries.all} WHERE tags <> '{NO_ENTRIES}'"
    )
