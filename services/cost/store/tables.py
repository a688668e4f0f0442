"""The tables. Times are microseconds UTC, money is nano-USD, ids are text.

Whoever changes a project's holds, events, rollups or balances locks its row in `projects` first: all else of a project
can then be read and written without further locks, transactions on one project never meet in a deadlock, and those on
several take their locks in the order of the ids.
"""

from typing import Any, Final

from sqlalchemy import BigInteger, Column, Index, LargeBinary, MetaData, SmallInteger, Table, text

from services.cost.holds import HoldState
from services.cost.rollups import TAG, VIEWS, View
from services.cost.store.columns import flag as _flag
from services.cost.store.columns import integer as _int
from services.cost.store.columns import words as _text
from services.cost.usage import COUNT_FIELDS
from services.runtime.requests import request_ids_table

metadata: Final = MetaData()

request_ids: Final = request_ids_table(metadata)


def _attribution() -> list[Column[Any]]:
    """Tags are a JSON object."""
    return [_text(name) for name in ("user_id", "key_id", "run_id", "tags")]


SUMMED: Final = ("calls", "unpriced_calls", "cost_nano_usd", *COUNT_FIELDS)
"""The columns of events that views sum."""
SPLIT: Final = "split_nano_usd"
"""The column of views by tag that sums each tag's share of the costs, where `cost_nano_usd` counts them in full."""

projects: Final = Table(
    "projects",
    metadata,
    _text("project_id", key=True),
    _int("held_nano_usd"),
    _int("prices_revision"),
    _int("budgets_revision"),
    _int("event_sequence"),
)
"""The lock of a project, what is held in it by calls under way, how often its overrides of prices have changed, another
number after each change of its budgets, and the number of its last usage event."""

price_overrides: Final = Table(
    "price_overrides",
    metadata,
    _text("override_id", key=True),
    *[_text(name) for name in ("project_id", "provider", "model", "service_tier", "tiers")],
    _int("request_nano_usd"),
    _int("step_nano_usd"),
    _int("effective_us"),
    _int("created_us"),
    Column("ended_us", BigInteger),
    _int("created_revision"),
    Column("ended_revision", BigInteger),
    Index("price_overrides_by_project", "project_id", "override_id"),
)
"""Never changed but for their end. Revisions are those of the project's prices."""

budgets: Final = Table(
    "budgets",
    metadata,
    _text("budget_id", key=True),
    _text("project_id"),
    _text("name"),
    _int("limit_nano_usd"),
    _text("time_zone"),
    _int("created_us"),
    *[_text(name) for name in ("user_id", "key_id", "run_id", "tag", "model", "anchor", "period", "thresholds")],
    _flag("soft"),
    _int("since_us"),
    Index("budgets_by_project", "project_id", "budget_id"),
    Index("budgets_by_anchor", "project_id", "anchor"),
)
"""Thresholds are percentages, separated by commas."""

balances: Final = Table(
    "balances",
    metadata,
    _text("budget_id", key=True),
    _text("period", key=True),
    _int("settled_nano_usd"),
    _int("held_nano_usd"),
)
"""A budget in one period. Nothing was charged in a period without a row."""

repricings: Final = Table(
    "repricings",
    metadata,
    _text("repricing_id", key=True),
    _int("number"),
    *[_text(name) for name in ("project_id", "request_id", "provider", "model", "state", "catalogue_version")],
    *[_int(name) for name in ("start_us", "end_us", "prices_revision", "created_us", "adjustments", "reversed")],
    *[_int(name) for name in ("calls", "changed_calls", "newly_priced_calls", "unpriced_calls")],
    *[_int(name) for name in ("old_nano_usd", "new_nano_usd")],
    *[_text(name) for name in ("after_source", "after_event_id")],
    _int("after_us"),
    Index("repricings_in_order", "project_id", "number", unique=True),
    Index("repricings_by_request", "project_id", "request_id", unique=True),
)
"""Pricings anew. `number` counts those of a project in the order of their beginnings; `after_...` name the last event
that was looked at; `adjustments` and `reversed` count what was made and what was taken back."""

adjustments: Final = Table(
    "adjustments",
    metadata,
    _text("project_id", key=True),
    _text("source", key=True),
    _text("event_id", key=True),
    _text("adjustment_id", key=True),
    _text("repricing_id"),
    _int("number"),
    _int("nano_usd"),
    _int("unpriced_calls"),
    _text("price_version"),
    Index("adjustments_by_repricing", "repricing_id", "number"),
    sqlite_with_rowid=False,
)
"""What repricings have added for an event, never changed: an opposite has the number of what it takes back, negative.
Each is a row of `usage_events` too, under its own id and the source of repricings."""

LIVE: Final = text(f"state = '{HoldState.HELD.value}'")
CHARGED: Final = text(f"state = '{HoldState.EXPIRED_CHARGED.value}'")
FINAL: Final = text(f"state IN ('{HoldState.SETTLED}', '{HoldState.RELEASED}', '{HoldState.TOMBSTONED}')")
EXPIRED: Final = text(f"state IN ('{HoldState.EXPIRED_CHARGED}', '{HoldState.EXPIRED_RELEASED}')")
"""The conditions of the partial indexes below; a query has to state one in these words to be served by its index."""

holds: Final = Table(
    "holds",
    metadata,
    _text("project_id", key=True),
    _text("attempt_id", key=True),
    _text("nonce"),
    _text("state"),
    _text("provider"),
    _text("model"),
    *_attribution(),
    _int("held_nano_usd"),
    _flag("priced"),
    _int("created_us"),
    _int("expires_us"),
    _text("service_tier"),
    Index("live_holds_by_expiry", "expires_us", sqlite_where=LIVE, postgresql_where=LIVE),
    Index("charged_holds_by_project", "project_id", sqlite_where=CHARGED, postgresql_where=CHARGED),
    Index("final_holds_by_creation", "created_us", sqlite_where=FINAL, postgresql_where=FINAL),
    Index("expired_holds_by_creation", "created_us", sqlite_where=EXPIRED, postgresql_where=EXPIRED),
    sqlite_with_rowid=False,
)
"""Every attempt that was held or given up, whatever became of it, until its retention ends."""

usage_events: Final = Table(
    "usage_events",
    metadata,
    _text("project_id", key=True),
    _text("source", key=True),
    _text("event_id", key=True),
    Column("digest", LargeBinary, nullable=False),
    _text("provider"),
    _text("model"),
    _text("provider_model"),
    *_attribution(),
    *[_int(name) for name in COUNT_FIELDS],
    Column("usage_source", SmallInteger, nullable=False),
    _flag("succeeded"),
    _flag("priced"),
    _int("cost_nano_usd"),
    _text("cost_parts"),
    _text("price_version"),
    _int("held_nano_usd"),
    _int("occurred_us"),
    _int("charged_us"),
    _int("recorded_us"),
    _text("service_tier"),
    _text("metadata"),
    Column("tag_count", SmallInteger, nullable=False),
    Column("calls", SmallInteger, nullable=False),
    Column("unpriced_calls", SmallInteger, nullable=False),
    _int("sequence"),
    Index("usage_events_by_time", "project_id", "occurred_us", "source", "event_id"),
    Index("usage_events_by_sequence", "project_id", "sequence"),
    Index("usage_events_by_user", "project_id", "user_id", "occurred_us"),
    Index("usage_events_by_model", "project_id", "model", "occurred_us"),
    sqlite_with_rowid=False,
)
"""What was used, priced once and never changed. Tags, metadata and the cost's parts (without those that are 0) are JSON
objects. `sequence` counts the events of a project in the order of their commits, because each commit holds the
project's lock. An event is one call; a correction of its price is a row of no call with the difference in money."""


def _view(view: View) -> Table:
    split = [_int(SPLIT)] if TAG in view.columns else []
    turned = [Index(f"{view.table}_turned", "project_id", "grain", "bucket_us", *view.turned)] if view.turned else []
    return Table(
        view.table,
        metadata,
        _text("project_id", key=True),
        _text("grain", key=True),
        _int("bucket_us", key=True),
        *[_text(name, key=True) for name in view.columns],
        *[_int(name) for name in SUMMED],
        *split,
        *turned,
        sqlite_with_rowid=False,
        postgresql_with={"fillfactor": "80"},
    )


spend_views: Final = {view.name: _view(view) for view in VIEWS}
"""Sums of the events up to `folded_sequence` of their project, by the views and grains of services/cost/rollups.py.
Room is left in the pages, so that the rows of the day can be updated in place."""

spend_progress: Final = Table(
    "spend_progress",
    metadata,
    _text("project_id", key=True),
    _int("folded_sequence"),
    _int("closed_us"),
    Column("packed_us", BigInteger, nullable=False, server_default="0"),
)
"""How far the views of a project have come, and the lock of who takes them further. Of the wider grains there are the
buckets that end by `closed_us`, and of all grains of blocks those that end by `packed_us`."""

spend_blocks: Final = Table(
    "spend_blocks",
    metadata,
    _text("project_id", key=True),
    _text("view", key=True),
    _text("grain", key=True),
    _int("bucket_us", key=True),
    Column("names", LargeBinary, nullable=False),
    Column("content", LargeBinary, nullable=False),
)
"""The buckets of views with many groups once more, packed by services/cost/blocks.py; none where nothing was used."""

spend_late_hours: Final = Table(
    "spend_late_hours", metadata, _text("project_id", key=True), _int("hour_us", key=True), sqlite_with_rowid=False
)
"""Hours whose blocks lack usage that was folded after they were packed."""
