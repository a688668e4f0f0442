"""Results can be listed by their score. Those that were scored before have no place in that order."""

from alembic import op
from sqlalchemy import Column, Double, text

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Adds the score and its index."""
    op.add_column("scores", Column("merit", Double))
    there = text("merit IS NOT NULL")
    op.create_index(
        "scores_by_merit",
        "scores",
        ["run_id", "score_set", "merit", "cell"],
        postgresql_where=there,
        sqlite_where=there,
    )
