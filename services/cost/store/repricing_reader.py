"""The events that a repricing looks at, some of them at a time."""

from itertools import groupby
from typing import Final

from sqlalchemy import ColumnElement, Connection, bindparam, func, literal, select, tuple_
from sqlalchemy.sql.elements import Tuple

from services.cost.events import REPRICING_SOURCE, UsageEvent
from services.cost.ledger import EventKey
from services.cost.pricing.catalogue import PriceSource
from services.cost.pricing.repricing import (
    Examined,
    Look,
    Place,
    RepricingFilter,
    adjustment_of,
    place_of,
    standing_of,
)
from services.cost.store.rows import event_of
from services.cost.store.tables import adjustments, usage_events
from services.runtime.database import Database

SCANNED_PER_EVENT: Final = 20
"""Events that are looked at for each that may be priced: what a filter leaves out is cheap, but not for nothing."""

_PLACE: Final = (usage_events.c.occurred_us, usage_events.c.source, usage_events.c.event_id)


class RepricingReader:
    """Finds events and prices them anew. What it reads at a time is bounded: it works under the project's lock."""

    def __init__(self, database: Database) -> None:
        self._adjusted = (
            select(adjustments.c.event_id, func.sum(adjustments.c.nano_usd), func.sum(adjustments.c.unpriced_calls))
            .where(
                adjustments.c.project_id == bindparam("project_id"),
                adjustments.c.source == bindparam("source"),
                database.among(adjustments.c.event_id, "event_ids"),
            )
            .group_by(adjustments.c.event_id)
        )

    def look(
        self,
        connection: Connection,
        project_id: str,
        wanted: RepricingFilter,
        prices: PriceSource,
        after: Place,
        limit: int,
    ) -> Look:
        """The next events after a place that fit a filter, at most `limit`, and what other prices make of them."""
        within = [
            usage_events.c.project_id == project_id,
            usage_events.c.occurred_us >= wanted.start_us,
            usage_events.c.occurred_us < wanted.end_us,
            tuple_(*_PLACE) > _literals(after),
        ]
        border = select(*_PLACE).where(*within).order_by(*_PLACE).offset(limit * SCANNED_PER_EVENT - 1).limit(1)
        reached = connection.execute(border).one_or_none()
        if reached is not None:
            within.append(tuple_(*_PLACE) <= _literals(tuple(reached)))
        statement = select(usage_events).where(*within, *_fitting(wanted)).order_by(*_PLACE).limit(limit)
        events = [event_of(row) for row in connection.execute(statement).mappings()]
        adjusted = self._adjustments(connection, project_id, events)
        examined = []
        for event in events:
            now = standing_of(event, adjusted)
            examined.append(Examined(event, now, adjustment_of(event, now, prices)))
        if len(events) == limit:
            return Look(examined, place_of(events[-1]), more=True)
        return Look(examined, after if reached is None else tuple(reached), more=reached is not None)

    def _adjustments(
        self, connection: Connection, project_id: str, events: list[UsageEvent]
    ) -> dict[EventKey, tuple[int, int]]:
        """The sums of what events were adjusted by: money, and unpriced calls."""
        found: dict[EventKey, tuple[int, int]] = {}
        for source, group in groupby(
            sorted((event.source, event.event_id) for event in events), key=lambda key: key[0]
        ):
            named = {"project_id": project_id, "source": source, "event_ids": [event_id for _, event_id in group]}
            for event_id, nano_usd, unpriced_calls in connection.execute(self._adjusted, named):
                found[source, event_id] = (int(nano_usd), int(unpriced_calls))
        return found


def _fitting(wanted: RepricingFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [usage_events.c.source != REPRICING_SOURCE]
    if wanted.provider:
        conditions.append(usage_events.c.provider == wanted.provider)
    if wanted.model:
        conditions.append(usage_events.c.model == wanted.model)
    return conditions


def _literals(place: Place) -> Tuple:
    return tuple_(*[literal(value) for value in place])
