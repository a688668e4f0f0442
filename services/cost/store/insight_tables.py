"""The tables of anomalies; conventions as in services/cost/store/tables.py.

Whoever writes anomalies of a project has locked its row in `projects`, so sequences are given in the order of the
commits.
"""

from typing import Final

from sqlalchemy import Column, Float, Index, Table

from services.cost.store.columns import integer, words
from services.cost.store.tables import metadata

anomaly_searches: Final = Table(
    "anomaly_searches",
    metadata,
    words("project_id", key=True),
    integer("judged_until_us"),
    integer("last_sequence"),
    Index("anomaly_searches_by_time", "judged_until_us"),
)
"""Until which hour a project's spending is judged, and the latest sequence; it outlives the anomalies."""

anomalies: Final = Table(
    "anomalies",
    metadata,
    words("project_id", key=True),
    integer("sequence", key=True),
    words("provider"),
    words("model"),
    integer("start_us"),
    integer("observed_nano_usd"),
    integer("expected_nano_usd"),
    integer("lower_nano_usd"),
    integer("upper_nano_usd"),
    Column("score", Float, nullable=False),
    integer("created_us"),
    Index("anomalies_once", "project_id", "start_us", "provider", "model", unique=True),
    sqlite_with_rowid=False,
)
"""What was found."""
