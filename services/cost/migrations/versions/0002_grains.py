"""Views in more grains, one by user and provider, and text in the order of its bytes. All usage is folded anew."""

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Column, Connection, Text, inspect, text
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

_SUMMED = (
    "calls",
    "unpriced_calls",
    "cost_nano_usd",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "input_audio_tokens",
    "output_tokens",
    "reasoning_tokens",
    "output_audio_tokens",
    "steps",
)
_VIEWS: dict[str, tuple[str, ...]] = {
    "spend_by_user_model": ("provider", "model", "user_id"),
    "spend_by_user_provider": ("provider", "user_id"),
}
_EMPTIED = (
    "spend_by_key",
    "spend_by_key_model",
    "spend_by_model",
    "spend_by_run",
    "spend_by_tag",
    "spend_by_tag_model",
    "spend_by_tag_user",
    "spend_by_user",
    "spend_progress",
    "spend_total",
)
_OTHERS = "request_ids"
_BYTEWISE = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Empties the views, which the roller then makes anew of the events."""
    for name in _EMPTIED:
        op.execute(f"DELETE FROM {name}")  # noqa: S608 - our own names
    op.drop_table("spend_by_user_model")
    if op.get_bind().dialect.name == "postgresql":
        _order_by_bytes(op.get_bind())
    for name, dimensions in _VIEWS.items():
        op.create_table(
            name,
            *_columns(_BYTEWISE, "project_id", "grain", primary_key=True),
            *_columns(BigInteger, "bucket_us", primary_key=True),
            *_columns(_BYTEWISE, *dimensions, primary_key=True),
            *_columns(BigInteger, *_SUMMED),
            sqlite_with_rowid=False,
            postgresql_with={"fillfactor": 80},
        )
    turned = ["project_id", "grain", "bucket_us", "user_id"]
    op.create_index("spend_by_user_model_turned", "spend_by_user_model", turned)
    op.create_index("usage_events_by_model", "usage_events", ["project_id", "model", "occurred_us"])


def _columns(kind: Any, *names: str, primary_key: bool = False) -> list[Column[Any]]:
    return [Column(name, kind, primary_key=primary_key, nullable=False) for name in names]


def _order_by_bytes(connection: Connection) -> None:
    inspector = inspect(connection)
    schema = connection.execute(text("SELECT current_schema()")).scalar_one()
    for table in inspector.get_table_names(schema):
        columns = inspector.get_columns(table, schema)
        names = [column["name"] for column in columns if isinstance(column["type"], Text)]
        if names and table != _OTHERS:
            changes = ", ".join(f'ALTER COLUMN {name} TYPE text COLLATE "C"' for name in names)
            connection.execute(text(f"ALTER TABLE {table} {changes}"))
