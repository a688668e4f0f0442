"""Raising alerts in the transaction of what raises them, each once, in the order of the commits."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final

import orjson
from sqlalchemy import Connection, bindparam, func, select

from services.cost.alerting.alerts import Alert, AlertDraft, AlertKind, AlertLimits
from services.cost.alerting.deliveries import DeliveryState
from services.cost.store.alert_tables import alert_counters, alerts, deliveries, webhooks
from services.cost.store.webhook_rows import webhook_of
from services.runtime import telemetry
from services.runtime.database import Database
from services.runtime.hints import Hints
from services.runtime.ids import new_id

KNOWN_MAX: Final = 20_000
"""Alerts that a process remembers to be on record; it asks the database again about what it has forgotten."""
DELIVERIES_TOPIC: Final = "deliveries"
"""There is something to deliver."""

AlertKey = tuple[str, AlertKind, str, str, int]
"""Project, kind, subject, period, threshold: what there is one alert of at most."""

# Built once: building a statement costs more than running it.
LAST_SEQUENCE: Final = select(alert_counters.c.last_sequence).where(
    alert_counters.c.project_id == bindparam("project_id")
)
_PUT_LAST: Final = "(project_id) DO UPDATE SET last_sequence = excluded.last_sequence"
_EXISTS: Final = select(alerts.c.sequence).where(
    alerts.c.project_id == bindparam("project_id"),
    alerts.c.kind == bindparam("kind"),
    alerts.c.subject == bindparam("subject"),
    alerts.c.period == bindparam("period"),
    alerts.c.threshold_percent == bindparam("threshold_percent"),
)
_UNPRICED_OF_DAY: Final = select(func.count()).where(
    alerts.c.project_id == bindparam("project_id"),
    alerts.c.kind == AlertKind.UNPRICED_MODEL.value,
    alerts.c.period == bindparam("period"),
)
_WEBHOOKS: Final = select(webhooks).where(
    webhooks.c.project_id == bindparam("project_id"), webhooks.c.disabled == bindparam("disabled")
)


class AlertWriter:
    """Raises alerts inside of a transaction that has locked their project."""

    def __init__(self, database: Database, hints: Hints, limits: AlertLimits) -> None:
        self._database = database
        self._hints = hints
        self._limits = limits
        self._known: set[AlertKey] = set()
        for kind in AlertKind:  # as 0, before the first one
            telemetry.counter("alerts", kind=kind.value)

    def raise_new(
        self, connection: Connection, project_id: str, drafts: Iterable[AlertDraft], now_us: int
    ) -> list[AlertKey]:
        """Put on record what is not there yet; returns what `committed` wants to hear after the commit.

        A draft that this process knows to be on record costs a look-up in memory, none costs nothing.
        """
        fresh = {key: draft for draft in drafts if (key := _key(project_id, draft)) not in self._known}
        if not fresh:
            return []
        wanted = [draft for key, draft in fresh.items() if self._is_new(connection, key)]
        if wanted:
            self._insert(connection, project_id, wanted, now_us)
        return list(fresh)

    def committed(self, keys: Sequence[AlertKey]) -> None:
        """Remember what is on record now, and wake watchers and webhooks."""
        if not keys:
            return
        if len(self._known) + len(keys) > KNOWN_MAX:
            self._known.clear()
        self._known.update(keys)
        for key in keys:
            telemetry.counter("alerts", kind=key[1].value).add()
        for project_id in {key[0] for key in keys}:
            self._hints.publish(alerts_topic(project_id))
        self._hints.publish(DELIVERIES_TOPIC)

    def _is_new(self, connection: Connection, key: AlertKey) -> bool:
        project_id, kind, subject, period, threshold = key
        named = {"project_id": project_id, "period": period}
        found = connection.execute(
            _EXISTS, {**named, "kind": kind.value, "subject": subject, "threshold_percent": threshold}
        ).first()
        if found is not None:
            return False
        if kind is not AlertKind.UNPRICED_MODEL:
            return True
        return int(connection.execute(_UNPRICED_OF_DAY, named).scalar_one()) < self._limits.unpriced_per_day

    def _insert(self, connection: Connection, project_id: str, drafts: Sequence[AlertDraft], now_us: int) -> None:
        last = connection.execute(LAST_SEQUENCE, {"project_id": project_id}).scalar_one_or_none() or 0
        raised = [Alert(new_id("alr"), last + number, now_us, draft) for number, draft in enumerate(drafts, start=1)]
        rows = [_row(project_id, alert) for alert in raised]
        # The unique index refuses what slipped through `_is_new`: better no commit than a second alert.
        self._database.insert_rows(connection, alerts, rows)
        counter = {"project_id": project_id, "last_sequence": last + len(raised)}
        self._database.insert_rows(connection, alert_counters, [counter], on_conflict=_PUT_LAST)
        self._address(connection, project_id, raised, now_us)

    def _address(self, connection: Connection, project_id: str, raised: Sequence[Alert], now_us: int) -> None:
        """Make a delivery of each alert for each webhook that wants it."""
        own = connection.execute(_WEBHOOKS, {"project_id": project_id, "disabled": False}).mappings()
        receivers = [webhook_of(row) for row in own]
        rows = [
            {
                "delivery_id": new_id("dlv"),
                "webhook_id": webhook.webhook_id,
                "project_id": project_id,
                "alert_sequence": alert.sequence,
                "alert_id": alert.alert_id,
                "state": DeliveryState.PENDING.value,
                "attempts": 0,
                "created_us": now_us,
                "due_us": now_us,
                "give_up_us": now_us + self._limits.delivery_window_us,
                "last_http_status": 0,
                "last_error": "",
            }
            for alert in raised
            for webhook in receivers
            if webhook.wants(alert)
        ]
        self._database.insert_rows(connection, deliveries, rows)


def alerts_topic(project_id: str) -> str:
    """The topic of hints that a project has new alerts."""
    return f"alerts:{project_id}"


def _key(project_id: str, draft: AlertDraft) -> AlertKey:
    return project_id, draft.kind, draft.subject, draft.period, draft.threshold_percent


def _row(project_id: str, alert: Alert) -> dict[str, Any]:
    what = alert.what
    return {
        "project_id": project_id,
        "sequence": alert.sequence,
        "alert_id": alert.alert_id,
        "kind": what.kind.value,
        "subject": what.subject,
        "period": what.period,
        "threshold_percent": what.threshold_percent,
        "facts": orjson.dumps({} if what.facts is None else asdict(what.facts)).decode(),
        "created_us": alert.created_us,
    }
