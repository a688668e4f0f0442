"""Prompts and datasets get tables of their own."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Text, UniqueConstraint

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Creates `prompts` and `datasets`."""
    for name, noun, parts in (("prompts", "prompt", "message_count"), ("datasets", "dataset", "row_count")):
        op.create_table(
            name,
            Column(f"{noun}_id", Text, primary_key=True, nullable=False),
            Column("project_id", Text, nullable=False),
            Column("name", Text, nullable=False),
            Column("content_hash", Text, nullable=False),
            Column(parts, Integer, nullable=False),
            Column("encoded", LargeBinary, nullable=False),
            Column("created_us", BigInteger, nullable=False),
            Column("updated_us", BigInteger, nullable=False),
            UniqueConstraint("project_id", "name", name=f"{name}_by_name"),
            UniqueConstraint("project_id", "content_hash", name=f"{name}_by_content"),
        )
        op.create_index(f"{name}_by_project", name, ["project_id", f"{noun}_id"])
