"""A user's events at the borders of windows are found without those of all others."""

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """An index of events by user and time."""
    op.create_index("usage_events_by_user", "usage_events", ["project_id", "user_id", "occurred_us"])
