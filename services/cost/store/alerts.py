"""Alerts in the database, to be listed, watched and pruned."""

from collections.abc import Sequence
from typing import Any, Final

import orjson
from sqlalchemy import Connection, bindparam, delete, func, select, tuple_
from sqlalchemy.engine import RowMapping

from services.cost.alerting.alerts import Alert, AlertDraft, AlertKind, AnomalyFacts, BudgetFacts, anomaly
from services.cost.store.alert_tables import alerts, deliveries
from services.cost.store.alert_writer import LAST_SEQUENCE, AlertKey, AlertWriter, alerts_topic
from services.cost.store.projects import lock_project
from services.runtime.database import Database
from services.runtime.feeds import Kept

_FIRST: Final = select(func.min(alerts.c.sequence)).where(alerts.c.project_id == bindparam("project_id"))
_AFTER: Final = (
    select(alerts)
    .where(alerts.c.project_id == bindparam("project_id"), alerts.c.sequence > bindparam("after"))
    .order_by(alerts.c.sequence)
    .limit(bindparam("max_alerts"))
)


class AlertStore:
    """A project's alerts; also the source of its feed, whose id is the project's."""

    def __init__(self, database: Database, writer: AlertWriter) -> None:
        self._database = database
        self._writer = writer

    async def page(
        self, project_id: str, *, kinds: Sequence[AlertKind], budget_id: str, before: int | None, limit: int
    ) -> list[Alert]:
        """At most `limit` alerts, newest first, below the sequence named. Empty filters take all."""
        return await self._database.read(self._page, project_id, kinds, budget_id, before, limit)

    def _page(
        self,
        connection: Connection,
        project_id: str,
        kinds: Sequence[AlertKind],
        budget_id: str,
        before: int | None,
        limit: int,
    ) -> list[Alert]:
        statement = select(alerts).where(alerts.c.project_id == project_id)
        if kinds:
            statement = statement.where(alerts.c.kind.in_([kind.value for kind in kinds]))
        if budget_id:
            of_budgets = (AlertKind.BUDGET_THRESHOLD.value, AlertKind.BUDGET_EXHAUSTED.value)
            statement = statement.where(alerts.c.subject == budget_id, alerts.c.kind.in_(of_budgets))
        if before is not None:
            statement = statement.where(alerts.c.sequence < before)
        rows = connection.execute(statement.order_by(alerts.c.sequence.desc()).limit(limit)).mappings()
        return [alert_of(row) for row in rows]

    async def raise_anomaly(self, project_id: str, series: str, facts: AnomalyFacts) -> None:
        """Tell that spending left its band; the same series and time is told once."""
        keys = await self._database.write(self._raise, project_id, anomaly(series, facts))
        self._writer.committed(keys)

    def _raise(self, connection: Connection, project_id: str, draft: AlertDraft) -> list[AlertKey]:
        lock_project(connection, self._database, project_id)
        return self._writer.raise_new(connection, project_id, [draft], self._database.now_us(connection))

    async def prune(self, age_us: int, limit: int) -> int:
        """Remove at most `limit` alerts, and as many deliveries, that are older; returns how many rows went."""
        return await self._database.write(self._prune, age_us, limit)

    def _prune(self, connection: Connection, age_us: int, limit: int) -> int:
        until_us = self._database.now_us(connection) - age_us
        old = (
            select(alerts.c.project_id, alerts.c.sequence)
            .where(alerts.c.created_us < until_us)
            .order_by(alerts.c.created_us)
            .limit(limit)
        )
        gone = connection.execute(delete(alerts).where(tuple_(alerts.c.project_id, alerts.c.sequence).in_(old)))
        finished = (
            select(deliveries.c.delivery_id)
            .where(deliveries.c.created_us < until_us)
            .order_by(deliveries.c.created_us)
            .limit(limit)
        )
        delivered = connection.execute(delete(deliveries).where(deliveries.c.delivery_id.in_(finished)))
        return gone.rowcount + delivered.rowcount

    def topic(self, feed_id: str) -> str:
        """The topic of hints that a project has new alerts."""
        return alerts_topic(feed_id)

    async def kept(self, feed_id: str) -> Kept:
        """The sequences of the project's alerts."""
        return await self._database.read(_kept, feed_id)

    async def read_events(self, feed_id: str, after: int, limit: int) -> list[Alert]:
        """At most `limit` alerts of the project after a sequence, in their order."""
        return await self._database.read(_read_after, feed_id, after, limit)

    def is_last(self, event: Alert) -> bool:
        """A project has always another alert to come."""
        return False


def alert_of(row: RowMapping) -> Alert:
    """A row of `alerts`."""
    kind = AlertKind(row["kind"])
    known: dict[str, Any] = orjson.loads(row["facts"])
    facts: BudgetFacts | AnomalyFacts | None = None
    if kind in (AlertKind.BUDGET_THRESHOLD, AlertKind.BUDGET_EXHAUSTED):
        facts = BudgetFacts(**known)
    elif kind is AlertKind.ANOMALY:
        facts = AnomalyFacts(**known)
    what = AlertDraft(kind, row["subject"], row["period"], row["threshold_percent"], facts)
    return Alert(row["alert_id"], row["sequence"], row["created_us"], what)


def _kept(connection: Connection, project_id: str) -> Kept:
    named = {"project_id": project_id}
    last = connection.execute(LAST_SEQUENCE, named).scalar_one_or_none() or 0
    first = connection.execute(_FIRST, named).scalar_one_or_none() or last + 1
    return Kept(first, last)


def _read_after(connection: Connection, project_id: str, after: int, limit: int) -> list[Alert]:
    rows = connection.execute(_AFTER, {"project_id": project_id, "after": after, "max_alerts": limit}).mappings()
    return [alert_of(row) for row in rows]
