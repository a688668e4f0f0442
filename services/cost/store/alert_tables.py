"""The tables of alerts and webhooks; conventions as in services/cost/store/tables.py.

Whoever raises alerts of a project has locked its row in `projects`, so sequences are given in the order of the commits.
"""

from typing import Final

from sqlalchemy import Column, Index, LargeBinary, SmallInteger, Table, text

from services.cost.alerting.deliveries import DeliveryState
from services.cost.store.columns import flag, integer, words
from services.cost.store.tables import metadata

alert_counters: Final = Table("alert_counters", metadata, words("project_id", key=True), integer("last_sequence"))
"""The latest sequence of a project; it outlives the alerts."""

alerts: Final = Table(
    "alerts",
    metadata,
    words("project_id", key=True),
    integer("sequence", key=True),
    words("alert_id"),
    words("kind"),
    words("subject"),
    words("period"),
    Column("threshold_percent", SmallInteger, nullable=False),
    words("facts"),
    integer("created_us"),
    Index("alerts_once", "project_id", "kind", "subject", "period", "threshold_percent", unique=True),
    Index("alerts_by_time", "created_us"),
    sqlite_with_rowid=False,
)
"""What was told. Facts are a JSON object."""

webhooks: Final = Table(
    "webhooks",
    metadata,
    words("webhook_id", key=True),
    words("project_id"),
    words("url"),
    Column("sealed_secret", LargeBinary, nullable=False),
    words("kinds"),
    words("budget_ids"),
    flag("disabled"),
    integer("created_us"),
    integer("last_attempt_us"),
    integer("last_success_us"),
    integer("last_http_status"),
    words("last_error"),
    integer("failures"),
    Index("webhooks_by_project", "project_id", "webhook_id"),
)
"""Kinds and budget ids are separated by commas. A time of 0 means never. The secret is encrypted."""

PENDING: Final = text(f"state = '{DeliveryState.PENDING.value}'")
"""The condition of the partial index below; a query has to state it in these words to be served by the index."""

deliveries: Final = Table(
    "deliveries",
    metadata,
    words("delivery_id", key=True),
    words("webhook_id"),
    words("project_id"),
    integer("alert_sequence"),
    words("alert_id"),
    words("state"),
    integer("attempts"),
    integer("created_us"),
    integer("due_us"),
    integer("give_up_us"),
    integer("last_http_status"),
    words("last_error"),
    Index("deliveries_by_webhook", "webhook_id", "state", "delivery_id"),
    Index("due_deliveries", "due_us", sqlite_where=PENDING, postgresql_where=PENDING),
    Index("deliveries_by_time", "created_us"),
)
"""One alert on its way to one webhook. A claim moves `due_us` to the end of its lease and counts the attempt."""
