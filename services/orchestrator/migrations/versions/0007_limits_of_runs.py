"""Runs have a limit of money, a switch for circuit breakers and a priority."""

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, Integer, false

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Runs on record have none of them."""
    op.add_column("runs", Column("max_cost_nano_usd", BigInteger, nullable=False, server_default="0"))
    op.add_column("runs", Column("ignore_circuit_breaker", Boolean, nullable=False, server_default=false()))
    op.add_column("runs", Column("priority", Integer, nullable=False, server_default="0"))
