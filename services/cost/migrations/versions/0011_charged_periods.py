"""Events know the period that they were charged to; repricings are numbered in their order."""

from alembic import op
from sqlalchemy import BigInteger, Column

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Settled calls were charged when they were held; where the hold is deleted by now, an adjustment may know."""
    op.add_column("usage_events", Column("charged_us", BigInteger, nullable=False, server_default="0"))
    op.execute(
        "UPDATE usage_events SET charged_us = holds.created_us FROM holds"
        " WHERE usage_events.source = 'gateway' AND holds.project_id = usage_events.project_id"
        " AND holds.attempt_id = usage_events.event_id"
    )
    for adjusted in (
        "adjustments.source = usage_events.source AND adjustments.event_id = usage_events.event_id",
        "usage_events.source = 'repricing' AND adjustments.adjustment_id = usage_events.event_id",
    ):
        op.execute(
            "UPDATE usage_events SET charged_us = adjustments.charged_us FROM adjustments"  # noqa: S608 - our own words
            f" WHERE adjustments.project_id = usage_events.project_id AND {adjusted}"
        )
    op.drop_column("adjustments", "charged_us")
    op.add_column("repricings", Column("number", BigInteger, nullable=False, server_default="0"))
    op.execute(
        "UPDATE repricings SET number = numbered.number FROM ("
        "SELECT repricing_id, row_number() OVER (PARTITION BY project_id ORDER BY created_us, repricing_id) AS number"
        " FROM repricings) AS numbered WHERE numbered.repricing_id = repricings.repricing_id"
    )
    op.drop_index("repricings_by_project", "repricings")
    op.create_index("repricings_in_order", "repricings", ["project_id", "number"], unique=True)
