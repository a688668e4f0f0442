"""Runs can be retried: which of their cells are claimed anew."""

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, false

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """No run that is on record has been retried."""
    for name in ("retry_next", "retry_end"):
        op.add_column("run_progress", Column(name, BigInteger, nullable=False, server_default="0"))
    op.add_column("run_progress", Column("retry_unknown", Boolean, nullable=False, server_default=false()))
