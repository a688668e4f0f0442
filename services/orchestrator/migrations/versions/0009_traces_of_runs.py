"""Runs keep the trace context of the call that started them."""

from alembic import op
from sqlalchemy import Column, Text

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Runs on record have none."""
    op.add_column("runs", Column("traceparent", Text, nullable=False, server_default=""))
