"""Repricings and their adjustments."""

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Column, Text

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Nothing was priced anew until now."""
    op.create_table(
        "repricings",
        _key("repricing_id"),
        *_texts("project_id", "request_id", "provider", "model", "state", "catalogue_version"),
        *_ints("start_us", "end_us", "prices_revision", "created_us", "adjustments", "reversed"),
        *_ints("calls", "changed_calls", "newly_priced_calls", "unpriced_calls", "old_nano_usd", "new_nano_usd"),
        *_texts("after_source", "after_event_id"),
        *_ints("after_us"),
    )
    op.create_index("repricings_by_project", "repricings", ["project_id", "repricing_id"])
    op.create_index("repricings_by_request", "repricings", ["project_id", "request_id"], unique=True)
    op.create_table(
        "adjustments",
        *[_key(name) for name in ("project_id", "source", "event_id", "adjustment_id")],
        *_texts("repricing_id"),
        *_ints("number", "nano_usd", "unpriced_calls", "charged_us"),
        *_texts("price_version"),
        sqlite_with_rowid=False,
    )
    op.create_index("adjustments_by_repricing", "adjustments", ["repricing_id", "number"])


def _key(name: str) -> Column[Any]:
    return Column(name, Text, primary_key=True)


def _texts(*names: str) -> list[Column[Any]]:
    return [Column(name, Text, nullable=False) for name in names]


def _ints(*names: str) -> list[Column[Any]]:
    return [Column(name, BigInteger, nullable=False) for name in names]
