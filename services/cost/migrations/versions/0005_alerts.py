"""Alerts, webhooks, and the deliveries of the ones to the others."""

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, LargeBinary, SmallInteger, Text, text

revision = "0005"
down_revision = "0004"

_PENDING = text("state = 'pending'")


def upgrade() -> None:
    """Creates the tables of services/cost/store/alert_tables.py."""
    op.create_table("alert_counters", _key("project_id"), *_ints("last_sequence"))
    op.create_table(
        "alerts",
        _key("project_id"),
        Column("sequence", BigInteger, primary_key=True, autoincrement=False),
        *_texts("alert_id", "kind", "subject", "period"),
        Column("threshold_percent", SmallInteger, nullable=False),
        *_texts("facts"),
        *_ints("created_us"),
        sqlite_with_rowid=False,
    )
    unique = ["project_id", "kind", "subject", "period", "threshold_percent"]
    op.create_index("alerts_once", "alerts", unique, unique=True)
    op.create_index("alerts_by_time", "alerts", ["created_us"])
    op.create_table(
        "webhooks",
        _key("webhook_id"),
        *_texts("project_id", "url"),
        Column("sealed_secret", LargeBinary, nullable=False),
        *_texts("kinds", "budget_ids"),
        Column("disabled", Boolean, nullable=False),
        *_ints("created_us", "last_attempt_us", "last_success_us", "last_http_status"),
        *_texts("last_error"),
        *_ints("failures"),
    )
    op.create_index("webhooks_by_project", "webhooks", ["project_id", "webhook_id"])
    op.create_table(
        "deliveries",
        _key("delivery_id"),
        *_texts("webhook_id", "project_id"),
        *_ints("alert_sequence"),
        *_texts("alert_id", "state"),
        *_ints("attempts", "created_us", "due_us", "give_up_us", "last_http_status"),
        *_texts("last_error"),
    )
    op.create_index("deliveries_by_webhook", "deliveries", ["webhook_id", "state", "delivery_id"])
    op.create_index("due_deliveries", "deliveries", ["due_us"], sqlite_where=_PENDING, postgresql_where=_PENDING)
    op.create_index("deliveries_by_time", "deliveries", ["created_us"])


def _key(name: str) -> Column[Any]:
    return Column(name, Text, primary_key=True)


def _texts(*names: str) -> list[Column[Any]]:
    return [Column(name, Text, nullable=False) for name in names]


def _ints(*names: str) -> list[Column[Any]]:
    return [Column(name, BigInteger, nullable=False) for name in names]
