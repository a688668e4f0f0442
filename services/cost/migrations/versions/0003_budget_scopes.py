"""Budgets have a scope, a period, softness and thresholds; holds are found by scope and by age."""

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, Text, false, text

revision = "0003"
down_revision = "0002"

_CHARGED = text("state = 'expired_charged'")


def upgrade() -> None:
    """Budgets that exist are hard, monthly and on the whole project."""
    for name in ("user_id", "key_id", "run_id", "tag", "model", "anchor"):
        op.add_column("budgets", Column(name, Text, nullable=False, server_default=""))
    op.add_column("budgets", Column("period", Text, nullable=False, server_default="monthly"))
    op.add_column("budgets", Column("thresholds", Text, nullable=False, server_default="50,80,100"))
    op.add_column("budgets", Column("soft", Boolean, nullable=False, server_default=false()))
    op.add_column("budgets", Column("since_us", BigInteger, nullable=False, server_default="0"))
    op.execute("UPDATE budgets SET since_us = created_us")
    op.create_index("budgets_by_anchor", "budgets", ["project_id", "anchor"])
    op.drop_column("holds", "budget_ids")
    op.create_index(
        "charged_holds_by_project", "holds", ["project_id"], sqlite_where=_CHARGED, postgresql_where=_CHARGED
    )
    op.create_index("holds_by_creation", "holds", ["created_us"], postgresql_using="brin")
