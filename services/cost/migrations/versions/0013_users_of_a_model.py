"""The spend of a model's users is found without that of all others."""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """An index of the view in another order of its columns."""
    columns = ["project_id", "grain", "bucket_us", "provider", "model", "user_id"]
    op.create_index("spend_by_user_model_turned", "spend_by_user_model", columns)
