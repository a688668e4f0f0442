"""Anomalies of spending, and how far each project has been searched."""

from alembic import op
from sqlalchemy import BigInteger, Column, Float, Text

revision = "0008"
down_revision = "0007"


def _integer(name: str, *, key: bool = False) -> Column[int]:
    return Column(name, BigInteger, primary_key=key, nullable=False, autoincrement=False)


def upgrade() -> None:
    """Searches begin with the hours that end from now on, and the two days before them."""
    op.create_table(
        "anomaly_searches",
        Column("project_id", Text, primary_key=True, nullable=False),
        _integer("judged_until_us"),
        _integer("last_sequence"),
    )
    op.create_index("anomaly_searches_by_time", "anomaly_searches", ["judged_until_us"])
    op.create_table(
        "anomalies",
        Column("project_id", Text, primary_key=True, nullable=False),
        _integer("sequence", key=True),
        Column("provider", Text, nullable=False),
        Column("model", Text, nullable=False),
        _integer("start_us"),
        _integer("observed_nano_usd"),
        _integer("expected_nano_usd"),
        _integer("lower_nano_usd"),
        _integer("upper_nano_usd"),
        Column("score", Float, nullable=False),
        _integer("created_us"),
        sqlite_with_rowid=False,
    )
    op.create_index("anomalies_once", "anomalies", ["project_id", "start_us", "provider", "model"], unique=True)
