"""Steps of automations beside tokens, and the service tier of holds and events."""

from alembic import op
from sqlalchemy import BigInteger, Column, Text

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """What is on record had no steps and was of the standard tier."""
    for table in ("usage_events", "spend_by_model", "spend_by_tag"):
        op.add_column(table, Column("steps", BigInteger, nullable=False, server_default="0"))
    for table in ("holds", "usage_events"):
        op.add_column(table, Column("service_tier", Text, nullable=False, server_default=""))
