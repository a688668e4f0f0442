"""Runs may keep to a fixed concurrency; what providers let the others have under way is kept for whoever watches."""

from alembic import op
from sqlalchemy import Boolean, Column, Integer, Text, false

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Runs on record are not fixed."""
    op.add_column("runs", Column("fixed_concurrency", Boolean, nullable=False, server_default=false()))
    op.create_table(
        "call_limits",
        Column("run_id", Text, primary_key=True, nullable=False),
        Column("model", Integer, primary_key=True, nullable=False),
        Column("worker_id", Text, primary_key=True, nullable=False),
        Column("calls_max", Integer, nullable=False),
    )
