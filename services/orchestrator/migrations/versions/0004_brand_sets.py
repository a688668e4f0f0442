"""Brand sets get a table of their own."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Text, UniqueConstraint

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Creates `brand_sets`."""
    op.create_table(
        "brand_sets",
        Column("brand_set_id", Text, primary_key=True, nullable=False),
        Column("project_id", Text, nullable=False),
        Column("name", Text, nullable=False),
        Column("content_hash", Text, nullable=False),
        Column("brand_count", Integer, nullable=False),
        Column("encoded", LargeBinary, nullable=False),
        Column("created_us", BigInteger, nullable=False),
        Column("updated_us", BigInteger, nullable=False),
        UniqueConstraint("project_id", "name", name="brand_sets_by_name"),
        UniqueConstraint("project_id", "content_hash", name="brand_sets_by_content"),
    )
    op.create_index("brand_sets_by_project", "brand_sets", ["project_id", "brand_set_id"])
