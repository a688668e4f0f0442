"""Views of many groups packed into blocks, which the roller makes of the events that are on record."""

from alembic import op
from sqlalchemy import BigInteger, Column, LargeBinary, Text
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"

_BYTEWISE = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Adds the tables; nothing is packed yet."""
    op.add_column("spend_progress", Column("packed_us", BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "spend_blocks",
        *[Column(name, _BYTEWISE, primary_key=True) for name in ("project_id", "view", "grain")],
        Column("bucket_us", BigInteger, primary_key=True),
        Column("names", LargeBinary, nullable=False),
        Column("content", LargeBinary, nullable=False),
    )
    op.create_table(
        "spend_late_hours",
        Column("project_id", _BYTEWISE, primary_key=True),
        Column("hour_us", BigInteger, primary_key=True),
        sqlite_with_rowid=False,
    )
    if op.get_bind().dialect.name == "postgresql":
        # They are packed tightly already: to compress them would take longer than to read them.
        op.execute("ALTER TABLE spend_blocks ALTER COLUMN content SET STORAGE EXTERNAL")
