"""The books of cost: budgets, holds, usage events, rollups."""

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, LargeBinary, SmallInteger, Text, text

from services.runtime.requests import request_ids_columns

revision = "0001"
down_revision = None

_HELD = text("state = 'held'")
_COUNTS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "input_audio_tokens",
    "output_tokens",
    "reasoning_tokens",
    "output_audio_tokens",
)


def upgrade() -> None:
    """Creates the tables of services/cost/store/tables.py."""
    op.create_table("request_ids", *request_ids_columns())
    op.create_index("request_ids_created_us", "request_ids", ["created_us"])
    op.create_table("projects", _key("project_id"), *_ints("held_nano_usd"))
    _create_budgets()
    _create_holds()
    _create_usage_events()
    _create_rollup("spend_by_model", "provider", "model")
    _create_rollup("spend_by_tag", "tag")


def _key(name: str) -> Column[Any]:
    return Column(name, Text, primary_key=True)


def _texts(*names: str) -> list[Column[Any]]:
    return [Column(name, Text, nullable=False) for name in names]


def _ints(*names: str) -> list[Column[Any]]:
    return [Column(name, BigInteger, nullable=False) for name in names]


def _flags(*names: str) -> list[Column[Any]]:
    return [Column(name, Boolean, nullable=False) for name in names]


def _create_budgets() -> None:
    op.create_table(
        "budgets",
        _key("budget_id"),
        *_texts("project_id", "name"),
        *_ints("limit_nano_usd"),
        *_texts("time_zone"),
        *_ints("created_us"),
    )
    op.create_index("budgets_by_project", "budgets", ["project_id", "budget_id"])
    op.create_table("balances", _key("budget_id"), _key("period"), *_ints("settled_nano_usd", "held_nano_usd"))


def _create_holds() -> None:
    op.create_table(
        "holds",
        _key("project_id"),
        _key("attempt_id"),
        *_texts("nonce", "state", "provider", "model", "user_id", "key_id", "run_id", "tags"),
        *_ints("held_nano_usd"),
        *_flags("priced"),
        *_texts("budget_ids"),
        *_ints("created_us", "expires_us"),
        sqlite_with_rowid=False,
    )
    op.create_index("live_holds_by_expiry", "holds", ["expires_us"], sqlite_where=_HELD, postgresql_where=_HELD)


def _create_usage_events() -> None:
    op.create_table(
        "usage_events",
        _key("project_id"),
        _key("source"),
        _key("event_id"),
        Column("digest", LargeBinary, nullable=False),
        *_texts("provider", "model", "provider_model", "user_id", "key_id", "run_id", "tags"),
        *_ints(*_COUNTS),
        Column("usage_source", SmallInteger, nullable=False),
        *_flags("succeeded", "priced"),
        *_ints("cost_nano_usd"),
        *_texts("cost_parts", "price_version"),
        *_ints("held_nano_usd", "occurred_us", "recorded_us"),
        sqlite_with_rowid=False,
    )


def _create_rollup(name: str, *dimensions: str) -> None:
    op.create_table(
        name,
        _key("project_id"),
        _key("grain"),
        Column("bucket_us", BigInteger, primary_key=True, autoincrement=False),
        *[_key(dimension) for dimension in dimensions],
        *_ints("calls", "unpriced_calls", "cost_nano_usd", *_COUNTS),
        sqlite_with_rowid=False,
    )
