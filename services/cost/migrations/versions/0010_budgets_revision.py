"""The revision of a project's budgets, so that they can be remembered until they change."""

from alembic import op
from sqlalchemy import BigInteger, Column

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Projects that have budgets begin with a revision above 0, which stands for none."""
    op.add_column("projects", Column("budgets_revision", BigInteger, nullable=False, server_default="0"))
    op.execute("UPDATE projects SET budgets_revision = 1 WHERE project_id IN (SELECT project_id FROM budgets)")
