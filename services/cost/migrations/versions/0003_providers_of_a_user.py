"""Finds what a user spent at each provider without reading what all others did."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds an index."""
    columns = ["project_id", "grain", "bucket_us", "user_id"]
    op.create_index("spend_by_user_provider_turned", "spend_by_user_provider", columns)
