"""Usage events in the database: the one way in, and how they are found again."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, bindparam, func, literal, select, tuple_

from services.cost.events import EventPage, EventQuery, UsageEvent
from services.cost.rollups import TAG, TAIL_EVENTS_MAX
from services.cost.spend import SpendFilter
from services.cost.store.event_sums import tag_entry
from services.cost.store.rollups import fold_events
from services.cost.store.rows import event_of
from services.cost.store.tables import spend_progress, usage_events
from services.runtime.database import Database
from services.runtime.errors import NotFound
from services.runtime.exchange import Exchange

LOOK_EVERY: Final = 4_096
"""Events between two looks at the tail."""

_FOLDED: Final = select(spend_progress.c.folded_sequence).where(spend_progress.c.project_id == bindparam("project_id"))
_EVENT: Final = select(usage_events).where(
    usage_events.c.project_id == bindparam("project_id"),
    usage_events.c.source == bindparam("source"),
    usage_events.c.event_id == bindparam("event_id"),
    usage_events.c.calls == 1,
)


def append_events(
    exchange: Exchange, database: Database, project_id: str, last: int, rows: Sequence[dict[str, Any]]
) -> None:
    """Add rows of `usage_events`, without their sequence, to a project that the transaction has locked.

    `last` is the project's `event_sequence` with these rows counted, and on record already.
    """
    first = last - len(rows) + 1
    for sequence, row in enumerate(rows, first):
        row["sequence"] = sequence
    exchange.insert_rows(usage_events, rows)
    if first // LOOK_EVERY != (last + 1) // LOOK_EVERY:
        connection = exchange.connection
        folded = connection.execute(_FOLDED, {"project_id": project_id}).scalar_one_or_none() or 0
        if last - folded > TAIL_EVENTS_MAX:
            fold_events(connection, database, project_id, TAIL_EVENTS_MAX // 2)


class EventStore:
    """Reads usage events; each method is one snapshot."""

    def __init__(self, database: Database, *, max_scanned: int) -> None:
        """A page looks at `max_scanned` events at most."""
        self._database = database
        self._max_scanned = max_scanned

    async def get(self, project_id: str, source: str, event_id: str) -> UsageEvent:
        """One event; NotFound for an unknown id and for another project's."""
        return await self._database.read(self._get, project_id, source, event_id)

    def _get(self, connection: Connection, project_id: str, source: str, event_id: str) -> UsageEvent:
        named = {"project_id": project_id, "source": source, "event_id": event_id}
        row = connection.execute(_EVENT, named).mappings().one_or_none()
        if row is None:
            raise NotFound("usage event", f"{source}/{event_id}")
        return event_of(row)

    async def page(self, project_id: str, query: EventQuery) -> EventPage:
        """Events by the time at which they occurred, the latest first."""
        return await self._database.read(self._page, project_id, query)

    def _page(self, connection: Connection, project_id: str, query: EventQuery) -> EventPage:
        place = [usage_events.c.occurred_us, usage_events.c.source, usage_events.c.event_id]
        latest_first = [column.desc() for column in place]
        within = [usage_events.c.project_id == project_id]
        if query.start_us is not None:
            within.append(usage_events.c.occurred_us >= query.start_us)
        if query.end_us is not None:
            within.append(usage_events.c.occurred_us < query.end_us)
        if query.after:
            within.append(tuple_(*place) < tuple_(*[literal(value) for value in query.after]))
        # The filter is tried on a bounded number of events, so that one which hardly any event fits costs no more.
        reach = select(*place).where(*within).order_by(*latest_first).offset(self._max_scanned - 1).limit(1)
        last = connection.execute(reach).one_or_none()
        if last is not None:
            within.append(tuple_(*place) >= tuple_(*[literal(value) for value in last]))
        wanted = [*within, usage_events.c.calls == 1, *matching(query.spend_filter)]
        if query.source:
            wanted.append(usage_events.c.source == query.source)
        statement = select(usage_events).where(*wanted).order_by(*latest_first).limit(query.page_size + 1)
        events = [event_of(row) for row in connection.execute(statement).mappings()]
        if len(events) > query.page_size:
            events = events[: query.page_size]
            return EventPage(events, (events[-1].occurred_us, events[-1].source, events[-1].event_id))
        return EventPage(events, tuple(last) if last is not None else ())


def matching(spend_filter: SpendFilter) -> list[ColumnElement[bool]]:
    """The conditions that events have to meet to fit a filter."""
    wanted = spend_filter.conditions()
    tag = wanted.pop(TAG, "")
    conditions = [usage_events.c[name] == value for name, value in wanted.items()]
    if tag:
        entries = literal(",") + func.substr(usage_events.c.tags, 2)
        conditions.append(func.replace(entries, tag_entry(tag), "") != entries)
    return conditions
