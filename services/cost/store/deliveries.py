"""Deliveries in the database: claimed by one replica at a time, concluded once."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, bindparam, select, update

from services.cost.alerting.deliveries import Delivery, DeliveryState, Outcome, Parcel, RetryLimits
from services.cost.store.alert_tables import PENDING, alerts, deliveries, webhooks
from services.cost.store.alerts import alert_of
from services.cost.store.webhook_rows import delivery_of, webhook_of
from services.runtime.database import Database
from services.runtime.errors import NotFound, WrongState

_KIND: Final = "delivery"
_LOST: Final = Outcome(error="the outcome of the last attempt is not known: the service that made it has ended")
_GONE: Final = Outcome(error="the alert is no longer kept")

# Built once: the first is asked several times a second.
_DUE: Final = select(deliveries.c.delivery_id).where(PENDING, deliveries.c.due_us <= bindparam("now_us")).limit(1)
_ONE: Final = select(deliveries).where(deliveries.c.delivery_id == bindparam("delivery_id"))
_ALERT: Final = select(alerts).where(
    alerts.c.project_id == bindparam("project_id"), alerts.c.sequence == bindparam("sequence")
)
_WEBHOOK: Final = select(webhooks).where(webhooks.c.webhook_id == bindparam("webhook_id"))


class DeliveryStore:
    """Deliveries of all projects for who makes them, and of one webhook for who looks at them."""

    def __init__(self, database: Database, limits: RetryLimits, *, lease_us: int) -> None:
        """A claim that is not concluded within `lease_us` is anybody's again."""
        self._database = database
        self._limits = limits
        self._lease_us = lease_us

    async def claim(self, busy: Collection[str], limit: int) -> list[Parcel]:
        """Claim at most `limit` due deliveries, one of each webhook and none of the `busy` ones.

        Looking costs a read; nothing is written where nothing is due.
        """
        if not await self._database.read(self._is_due):
            return []
        return await self._database.write(self._claim, tuple(busy), limit)

    def _is_due(self, connection: Connection) -> bool:
        return connection.execute(_DUE, {"now_us": self._database.now_us(connection)}).first() is not None

    def _claim(self, connection: Connection, busy: Sequence[str], limit: int) -> list[Parcel]:
        now_us = self._database.now_us(connection)
        parcels: dict[str, Parcel] = {}
        for row in connection.execute(_due_rows(now_us, busy, limit)).mappings().all():
            found = delivery_of(row)
            if self._limits.is_over(found.attempts, found.give_up_us, now_us):
                self._give_up(connection, found, found.last if found.last.error else _LOST)
            elif found.webhook_id not in parcels:
                parcel = self._take(connection, found, row["project_id"], now_us)
                if parcel is not None:
                    parcels[found.webhook_id] = parcel
        return list(parcels.values())

    def _take(self, connection: Connection, found: Delivery, project_id: str, now_us: int) -> Parcel | None:
        alert = (
            connection.execute(_ALERT, {"project_id": project_id, "sequence": found.alert_sequence})
            .mappings()
            .one_or_none()
        )
        if alert is None:
            self._give_up(connection, found, _GONE)
            return None
        webhook = connection.execute(_WEBHOOK, {"webhook_id": found.webhook_id}).mappings().one()
        claimed = replace(found, attempts=found.attempts + 1, due_us=now_us + self._lease_us)
        _set(connection, found.delivery_id, attempts=claimed.attempts, due_us=claimed.due_us)
        return Parcel(claimed, webhook_of(webhook), alert_of(alert))

    def _give_up(self, connection: Connection, found: Delivery, last: Outcome) -> None:
        _set(connection, found.delivery_id, state=DeliveryState.FAILED.value, last_error=last.error)

    async def conclude(self, delivery: Delivery, outcome: Outcome, pause_us: int) -> DeliveryState:
        """Put down what came of a claimed attempt; a failed one is followed by another after the pause, or by none.

        What a later claim has taken over stays with it, unless the receiver has the message: that is final.
        """
        return await self._database.write(self._conclude, delivery, outcome, pause_us)

    def _conclude(self, connection: Connection, delivery: Delivery, outcome: Outcome, pause_us: int) -> DeliveryState:
        now_us = self._database.now_us(connection)
        own: list[ColumnElement[bool]] = [
            deliveries.c.delivery_id == delivery.delivery_id,
            deliveries.c.state == DeliveryState.PENDING.value,
        ]
        state = DeliveryState.DELIVERED
        if not outcome.delivered:
            own.append(deliveries.c.attempts == delivery.attempts)
            over = self._limits.is_over(delivery.attempts, delivery.give_up_us, now_us + pause_us)
            state = DeliveryState.FAILED if over else DeliveryState.PENDING
        put = {
            "state": state.value,
            "due_us": now_us + pause_us,
            "last_http_status": outcome.http_status,
            "last_error": outcome.error,
        }
        if connection.execute(update(deliveries).where(*own).values(put)).rowcount:
            _note(connection, delivery.webhook_id, outcome, now_us)
        return state

    async def page(
        self,
        project_id: str,
        webhook_id: str,
        *,
        states: Sequence[DeliveryState],
        before_id: str,
        limit: int,
    ) -> list[Delivery]:
        """At most `limit` deliveries of a webhook, newest first, below the id named; NotFound for no such webhook."""
        return await self._database.read(self._page, project_id, webhook_id, states, before_id, limit)

    def _page(
        self,
        connection: Connection,
        project_id: str,
        webhook_id: str,
        states: Sequence[DeliveryState],
        before_id: str,
        limit: int,
    ) -> list[Delivery]:
        _check_webhook(connection, project_id, webhook_id)
        statement = select(deliveries).where(deliveries.c.webhook_id == webhook_id)
        if states:
            statement = statement.where(deliveries.c.state.in_([state.value for state in states]))
        if before_id:
            statement = statement.where(deliveries.c.delivery_id < before_id)
        rows = connection.execute(statement.order_by(deliveries.c.delivery_id.desc()).limit(limit)).mappings()
        return [delivery_of(row) for row in rows]

    async def redeliver(self, project_id: str, webhook_id: str, delivery_id: str) -> Delivery:
        """Take up a failed delivery again; a pending one stays as it is. WrongState for one that was delivered."""
        return await self._database.write(self._redeliver, project_id, webhook_id, delivery_id)

    def _redeliver(self, connection: Connection, project_id: str, webhook_id: str, delivery_id: str) -> Delivery:
        _check_webhook(connection, project_id, webhook_id)
        row = connection.execute(_ONE, {"delivery_id": delivery_id}).mappings().one_or_none()
        if row is None or row["webhook_id"] != webhook_id:
            raise NotFound(_KIND, delivery_id)
        found = delivery_of(row)
        if found.state is DeliveryState.DELIVERED:
            raise WrongState("WRONG_STATE", f"delivery {delivery_id} has reached its receiver; it is not sent again")
        if found.state is DeliveryState.PENDING:
            return found
        now_us = self._database.now_us(connection)
        again = replace(
            found,
            state=DeliveryState.PENDING,
            attempts=0,
            due_us=now_us,
            give_up_us=now_us + self._limits.window_us,
        )
        _set(
            connection,
            delivery_id,
            state=again.state.value,
            attempts=0,
            due_us=again.due_us,
            give_up_us=again.give_up_us,
        )
        return again


def _due_rows(now_us: int, busy: Sequence[str], limit: int) -> Select[RowMapping]:
    """Due deliveries of webhooks that are on, oldest first, which no other replica claims at this moment."""
    enabled = select(webhooks.c.webhook_id).where(webhooks.c.disabled.is_(False))
    statement = select(deliveries).where(PENDING, deliveries.c.due_us <= now_us, deliveries.c.webhook_id.in_(enabled))
    if busy:
        statement = statement.where(deliveries.c.webhook_id.not_in(busy))
    return statement.order_by(deliveries.c.due_us).limit(limit).with_for_update(skip_locked=True)


def _set(connection: Connection, delivery_id: str, **values: str | int) -> None:
    connection.execute(update(deliveries).where(deliveries.c.delivery_id == delivery_id).values(values))


def _note(connection: Connection, webhook_id: str, outcome: Outcome, now_us: int) -> None:
    """Keep the last outcome with the webhook."""
    values = {
        "last_attempt_us": now_us,
        "last_http_status": outcome.http_status,
        "last_error": outcome.error,
        "failures": 0 if outcome.delivered else webhooks.c.failures + 1,
    }
    if outcome.delivered:
        values["last_success_us"] = now_us
    connection.execute(update(webhooks).where(webhooks.c.webhook_id == webhook_id).values(values))


def _check_webhook(connection: Connection, project_id: str, webhook_id: str) -> None:
    own = (webhooks.c.webhook_id == webhook_id, webhooks.c.project_id == project_id)
    if connection.execute(select(webhooks.c.webhook_id).where(*own)).first() is None:
        raise NotFound("webhook", webhook_id)
