"""Numbered usage events with metadata, and the views that sum them; the views of the past are made by the service."""

from typing import Any, Final

from alembic import op
from sqlalchemy import BigInteger, Column, SmallInteger, Text

revision = "0007"
down_revision = "0006"

_SUMMED: Final = (
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
_VIEWS: Final = {
    "spend_total": (),
    "spend_by_model": ("provider", "model"),
    "spend_by_tag": ("tag",),
    "spend_by_key": ("key_id",),
    "spend_by_run": ("run_id", "provider", "model"),
    "spend_by_user": ("user_id",),
    "spend_by_tag_model": ("tag", "provider", "model"),
    "spend_by_key_model": ("key_id", "provider", "model"),
    "spend_by_user_model": ("user_id", "provider", "model"),
    "spend_by_tag_user": ("tag", "user_id"),
}


def upgrade() -> None:
    """Number the events that are there, drop their old rollups, make the new ones."""
    op.add_column("projects", _number("event_sequence"))
    op.add_column("usage_events", Column("metadata", Text, nullable=False, server_default="{}"))
    op.add_column("usage_events", Column("tag_count", SmallInteger, nullable=False, server_default="0"))
    op.add_column("usage_events", Column("calls", SmallInteger, nullable=False, server_default="1"))
    op.add_column("usage_events", Column("unpriced_calls", SmallInteger, nullable=False, server_default="0"))
    op.add_column("usage_events", _number("sequence"))
    op.execute("UPDATE usage_events SET unpriced_calls = 1 WHERE NOT priced")
    op.execute(
        "UPDATE usage_events SET calls = 0, unpriced_calls = adjustments.unpriced_calls FROM adjustments"
        " WHERE usage_events.source = 'repricing' AND adjustments.project_id = usage_events.project_id"
        " AND adjustments.adjustment_id = usage_events.event_id"
    )
    keys = "json_object_keys(CAST(tags AS json))" if op.get_bind().dialect.name == "postgresql" else "json_each(tags)"
    op.execute(f"UPDATE usage_events SET tag_count = (SELECT count(*) FROM {keys}) WHERE tags <> '{{}}'")  # noqa: S608
    op.execute(
        "UPDATE usage_events SET sequence = numbered.number FROM ("
        "SELECT project_id, source, event_id,"
        " row_number() OVER (PARTITION BY project_id ORDER BY recorded_us) AS number"
        " FROM usage_events) AS numbered WHERE usage_events.project_id = numbered.project_id"
        " AND usage_events.source = numbered.source AND usage_events.event_id = numbered.event_id"
    )
    op.execute(
        "UPDATE projects SET event_sequence ="
        " (SELECT count(*) FROM usage_events WHERE usage_events.project_id = projects.project_id)"
    )
    op.create_index("usage_events_by_time", "usage_events", ["project_id", "occurred_us", "source", "event_id"])
    op.create_index("usage_events_by_sequence", "usage_events", ["project_id", "sequence"])
    op.drop_table("spend_by_model")
    op.drop_table("spend_by_tag")
    op.create_table("spend_progress", _key("project_id"), Column("folded_sequence", BigInteger, nullable=False))
    for table, columns in _VIEWS.items():
        _create_view(table, columns)


def _create_view(table: str, columns: tuple[str, ...]) -> None:
    summed = (*_SUMMED, "split_nano_usd") if "tag" in columns else _SUMMED
    op.create_table(
        table,
        _key("project_id"),
        _key("grain"),
        Column("bucket_us", BigInteger, primary_key=True, autoincrement=False),
        *[_key(name) for name in columns],
        *[Column(name, BigInteger, nullable=False) for name in summed],
        sqlite_with_rowid=False,
        postgresql_with={"fillfactor": "80"},
    )


def _key(name: str) -> Column[Any]:
    return Column(name, Text, primary_key=True)


def _number(name: str) -> Column[Any]:
    return Column(name, BigInteger, nullable=False, server_default="0")
