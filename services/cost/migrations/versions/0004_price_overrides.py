"""Prices that projects state for themselves."""

from alembic import op
from sqlalchemy import BigInteger, Column, Text

revision = "0004"
down_revision = "0003"

_TEXTS = ("project_id", "provider", "model", "service_tier", "tiers")


def upgrade() -> None:
    """No project has any yet."""
    op.add_column("projects", Column("prices_revision", BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "price_overrides",
        Column("override_id", Text, primary_key=True),
        *[Column(name, Text, nullable=False) for name in _TEXTS],
        *[Column(name, BigInteger, nullable=False) for name in ("request_nano_usd", "step_nano_usd", "effective_us")],
        Column("created_us", BigInteger, nullable=False),
        Column("ended_us", BigInteger),
        Column("created_revision", BigInteger, nullable=False),
        Column("ended_revision", BigInteger),
    )
    op.create_index("price_overrides_by_project", "price_overrides", ["project_id", "override_id"])
