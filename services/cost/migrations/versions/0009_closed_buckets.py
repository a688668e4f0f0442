"""Buckets of wider grains are made when they are over: those that are not are taken out."""

from typing import Final

from alembic import op
from sqlalchemy import BigInteger, Column

revision = "0009"
down_revision = "0008"

_HOUR_US: Final = 3_600_000_000
_HOURS: Final = {"8d": 8 * 24, "d": 24, "h": 1}
"""The width of each grain."""
_WIDER: Final = {
    "spend_total": ("8d", "d", "h"),
    "spend_by_model": ("8d", "d", "h"),
    "spend_by_tag": ("8d", "d", "h"),
    "spend_by_key": ("8d", "d"),
    "spend_by_run": ("8d", "d"),
    "spend_by_user": ("8d", "d"),
    "spend_by_tag_model": ("8d", "d"),
    "spend_by_key_model": ("8d",),
    "spend_by_user_model": ("8d",),
    "spend_by_tag_user": ("8d",),
}


def upgrade() -> None:
    """Until the hour of its latest event, a project has all of its buckets."""
    op.add_column("spend_progress", Column("closed_us", BigInteger, nullable=False, server_default="0"))
    op.execute(
        "UPDATE spend_progress SET closed_us = coalesce("  # noqa: S608 - our own names
        f"(SELECT max(bucket_us) - max(bucket_us) % {_HOUR_US} FROM spend_total"
        " WHERE spend_total.project_id = spend_progress.project_id AND grain = 'q'), 0)"
    )
    for table, grains in _WIDER.items():
        for grain in grains:
            op.execute(
                f"DELETE FROM {table} WHERE grain = '{grain}'"  # noqa: S608 - our own names
                f" AND bucket_us + {_HOURS[grain] * _HOUR_US} > (SELECT closed_us FROM spend_progress"
                f" WHERE spend_progress.project_id = {table}.project_id)"
            )
