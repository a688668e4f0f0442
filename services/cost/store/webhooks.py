"""Webhooks in the database. Each method is one transaction."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection, RowMapping, case, delete, func, select, update

from services.cost.alerting.deliveries import DeliveryState
from services.cost.alerting.sealing import Sealer
from services.cost.alerting.webhooks import Webhook
from services.cost.store.alert_tables import deliveries, webhooks
from services.cost.store.projects import lock_project
from services.cost.store.tables import budgets
from services.cost.store.webhook_rows import row_of_choice, webhook_of
from services.runtime.database import Database
from services.runtime.errors import NotFound, ResourceExhausted, WrongState

_KIND: Final = "webhook"


class WebhookStore:
    """A project's webhooks with the status of their deliveries."""

    def __init__(self, database: Database, *, max_per_project: int, max_setting: str) -> None:
        """`max_setting` is the variable to name where a project has too many."""
        self._database = database
        self._max_per_project = max_per_project
        self._max_setting = max_setting

    async def create(self, webhook: Webhook) -> Webhook:
        """Add a webhook; `created_us` is set here.

        ResourceExhausted(LIMIT_REACHED) where the project has too many, NotFound for a budget that it does not have.
        """
        return await self._database.write(self._create, webhook)

    def _create(self, connection: Connection, webhook: Webhook) -> Webhook:
        # Alerts are raised under this lock too: from here on each one is seen by the webhook, none before.
        lock_project(connection, self._database, webhook.project_id)
        own = webhooks.c.project_id == webhook.project_id
        if connection.execute(select(func.count()).where(own)).scalar_one() >= self._max_per_project:
            raise ResourceExhausted(
                "LIMIT_REACHED",
                f"The project has {self._max_per_project} webhooks already; delete one, or raise {self._max_setting}.",
            )
        _check_budgets(connection, webhook.project_id, webhook.budget_ids)
        created = replace(webhook, created_us=self._database.now_us(connection))
        connection.execute(
            webhooks.insert(),
            {
                "webhook_id": created.webhook_id,
                "project_id": created.project_id,
                "sealed_secret": created.sealed_secret,
                "created_us": created.created_us,
                "last_attempt_us": 0,
                "last_success_us": 0,
                "last_http_status": 0,
                "last_error": "",
                "failures": 0,
                **row_of_choice(created),
            },
        )
        return created

    async def get(self, project_id: str, webhook_id: str) -> Webhook:
        """One webhook; NotFound for an unknown id and for another project's."""
        return await self._database.read(_get, project_id, webhook_id)

    async def page(self, project_id: str, *, after_id: str, limit: int) -> list[Webhook]:
        """At most `limit` webhooks in the order of their creation, after the one named."""
        return await self._database.read(_page, project_id, after_id, limit)

    async def update(self, project_id: str, webhook_id: str, change: Callable[[Webhook], Webhook]) -> Webhook:
        """Change what its owner chooses; `change` is pure. NotFound as in `get` and `create`."""
        return await self._database.write(self._update, project_id, webhook_id, change)

    def _update(
        self, connection: Connection, project_id: str, webhook_id: str, change: Callable[[Webhook], Webhook]
    ) -> Webhook:
        lock_project(connection, self._database, project_id)
        known = _get(connection, project_id, webhook_id)
        changed = change(known)
        # A budget that was deleted since may stay named.
        _check_budgets(connection, project_id, [one for one in changed.budget_ids if one not in known.budget_ids])
        connection.execute(update(webhooks).where(webhooks.c.webhook_id == webhook_id).values(row_of_choice(changed)))
        return changed

    async def delete(self, project_id: str, webhook_id: str) -> None:
        """Remove a webhook and its deliveries; NotFound as in `get`."""
        await self._database.write(self._delete, project_id, webhook_id)

    def _delete(self, connection: Connection, project_id: str, webhook_id: str) -> None:
        lock_project(connection, self._database, project_id)
        _get(connection, project_id, webhook_id)
        # In the order in which a conclusion locks them.
        connection.execute(delete(deliveries).where(deliveries.c.webhook_id == webhook_id))
        connection.execute(delete(webhooks).where(webhooks.c.webhook_id == webhook_id))

    async def reseal(self, sealer: Sealer, page: int) -> int:
        """Encrypt with the key in use what another known key encrypted, `page` at a time; says how many that were.

        What no known key opens stays as it is: its deliveries fail, and say why.
        """
        resealed, after_id = 0, ""
        while True:
            last_id, changed = await self._database.write(_reseal, sealer, after_id, page)
            resealed += changed
            if not last_id:
                return resealed
            after_id = last_id


def _reseal(connection: Connection, sealer: Sealer, after_id: str, limit: int) -> tuple[str, int]:
    """The last webhook of the page after `after_id`, "" where there is none, and how many secrets were changed."""
    statement = select(webhooks.c.webhook_id, webhooks.c.sealed_secret).where(webhooks.c.webhook_id > after_id)
    last_id, changed = "", 0
    for last_id, sealed in connection.execute(statement.order_by(webhooks.c.webhook_id).limit(limit)).all():
        try:
            resealed = sealer.reseal(bytes(sealed), last_id)
        except WrongState:
            continue
        if resealed is not None:
            connection.execute(update(webhooks).where(webhooks.c.webhook_id == last_id).values(sealed_secret=resealed))
            changed += 1
    return last_id, changed


def _get(connection: Connection, project_id: str, webhook_id: str) -> Webhook:
    own = (webhooks.c.webhook_id == webhook_id, webhooks.c.project_id == project_id)
    row = connection.execute(select(webhooks).where(*own)).mappings().one_or_none()
    if row is None:
        raise NotFound(_KIND, webhook_id)
    return _with_counts(connection, [row])[0]


def _page(connection: Connection, project_id: str, after_id: str, limit: int) -> list[Webhook]:
    after = (webhooks.c.project_id == project_id, webhooks.c.webhook_id > after_id)
    statement = select(webhooks).where(*after).order_by(webhooks.c.webhook_id).limit(limit)
    return _with_counts(connection, connection.execute(statement).mappings().all())


def _with_counts(connection: Connection, rows: Sequence[RowMapping]) -> list[Webhook]:
    pending, failed = (
        func.sum(case((deliveries.c.state == state.value, 1), else_=0)).label(state.value)
        for state in (DeliveryState.PENDING, DeliveryState.FAILED)
    )
    ids = [row["webhook_id"] for row in rows]
    unfinished = deliveries.c.state != DeliveryState.DELIVERED.value
    statement = (
        select(deliveries.c.webhook_id, pending, failed)
        .where(deliveries.c.webhook_id.in_(ids), unfinished)
        .group_by(deliveries.c.webhook_id)
    )
    counts = {row.webhook_id: row for row in connection.execute(statement)}
    return [
        webhook_of(row, pending=int(found.pending), failed=int(found.failed))
        if (found := counts.get(row["webhook_id"]))
        else webhook_of(row)
        for row in rows
    ]


def _check_budgets(connection: Connection, project_id: str, budget_ids: Sequence[str]) -> None:
    own = (budgets.c.project_id == project_id, budgets.c.budget_id.in_(budget_ids))
    known = set(connection.execute(select(budgets.c.budget_id).where(*own)).scalars()) if budget_ids else set()
    for budget_id in budget_ids:
        if budget_id not in known:
            raise NotFound("budget", budget_id)
