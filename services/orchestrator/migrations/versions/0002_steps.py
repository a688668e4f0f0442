"""Steps of automations beside tokens."""

from alembic import op
from sqlalchemy import BigInteger, Column

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """What is on record had none."""
    for table in ("run_progress", "attempts", "results"):
        op.add_column(table, Column("steps", BigInteger, nullable=False, server_default="0"))
