"""Results can be listed by state, latency and cost however many a run has."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Creates the indexes."""
    op.create_index("results_by_status", "results", ["run_id", "status", "cell"])
    op.create_index("results_by_latency", "results", ["run_id", "latency_us", "cell"])
    op.create_index("results_by_cost", "results", ["run_id", "cost_nano_usd", "cell"])
