"""Answers can be scored anew: score sets get a table of their own. Results can be listed by reason of failure."""

from alembic import op
from sqlalchemy import BigInteger, Column, LargeBinary, Text, text

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Creates `score_sets` and an index of failed cells."""
    op.create_table(
        "score_sets",
        Column("run_id", Text, primary_key=True, nullable=False),
        Column("score_set", Text, primary_key=True, nullable=False),
        Column("encoded", LargeBinary, nullable=False),
        Column("created_us", BigInteger, nullable=False),
    )
    has_reason = text("error_reason <> ''")
    op.create_index(
        "results_by_reason",
        "results",
        ["run_id", "error_reason", "cell"],
        postgresql_where=has_reason,
        sqlite_where=has_reason,
    )
