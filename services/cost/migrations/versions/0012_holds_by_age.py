"""Old holds are found by two small indexes, each of the states that one age concerns."""

from alembic import op
from sqlalchemy import text

revision = "0012"
down_revision = "0011"

_FINAL = text("state IN ('settled', 'released', 'tombstoned')")
_EXPIRED = text("state IN ('expired_charged', 'expired_released')")


def upgrade() -> None:
    """Block ranges, which the index of before kept, mix old and new rows once deletions have left room in them."""
    op.drop_index("holds_by_creation", "holds")
    for name, states in (("final_holds_by_creation", _FINAL), ("expired_holds_by_creation", _EXPIRED)):
        op.create_index(name, "holds", ["created_us"], sqlite_where=states, postgresql_where=states)
