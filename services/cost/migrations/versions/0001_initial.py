"""The tables of cost: budgets, holds, usage events, the views folded of them, prices, alerts, anomalies."""

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, Float, LargeBinary, SmallInteger, Text, text

from services.runtime.requests import request_ids_columns

revision = "0001"
down_revision = None

_COUNTS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "input_audio_tokens",
    "output_tokens",
    "reasoning_tokens",
    "output_audio_tokens",
    "steps",
)
_VIEWS: dict[str, tuple[str, ...]] = {
    "spend_by_key": ("key_id",),
    "spend_by_key_model": ("key_id", "provider", "model"),
    "spend_by_model": ("provider", "model"),
    "spend_by_run": ("run_id", "provider", "model"),
    "spend_by_tag": ("tag",),
    "spend_by_tag_model": ("tag", "provider", "model"),
    "spend_by_tag_user": ("tag", "user_id"),
    "spend_by_user": ("user_id",),
    "spend_by_user_model": ("user_id", "provider", "model"),
    "spend_total": (),
}


def upgrade() -> None:
    """Creates the tables of services/cost/store."""
    op.create_table("request_ids", *request_ids_columns())
    op.create_index("request_ids_created_us", "request_ids", ["created_us"])
    _create_books()
    _create_events()
    _create_prices()
    _create_alerts()
    _create_anomalies()
    _create_views()


def _columns(kind: Any, *names: str, primary_key: bool = False, nullable: bool = False) -> list[Column[Any]]:
    return [Column(name, kind, primary_key=primary_key, nullable=nullable) for name in names]


def _zeros(*names: str) -> list[Column[Any]]:
    return [Column(name, BigInteger, nullable=False, server_default="0") for name in names]


def _where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": text(condition), "sqlite_where": text(condition)}


def _create_books() -> None:
    op.create_table(
        "projects",
        *_columns(Text, "project_id", primary_key=True),
        *_columns(BigInteger, "held_nano_usd"),
        *_zeros("prices_revision", "budgets_revision", "event_sequence"),
    )
    op.create_table(
        "budgets",
        *_columns(Text, "budget_id", primary_key=True),
        *_columns(Text, "project_id", "name"),
        *_columns(BigInteger, "limit_nano_usd"),
        *_columns(Text, "time_zone"),
        *_columns(BigInteger, "created_us"),
        *_columns(Text, "user_id", "key_id", "run_id", "tag", "model", "anchor", "period", "thresholds"),
        *_columns(Boolean, "soft"),
        *_columns(BigInteger, "since_us"),
    )
    op.create_index("budgets_by_anchor", "budgets", ["project_id", "anchor"])
    op.create_index("budgets_by_project", "budgets", ["project_id", "budget_id"])
    op.create_table(
        "balances",
        *_columns(Text, "budget_id", "period", primary_key=True),
        *_columns(BigInteger, "settled_nano_usd", "held_nano_usd"),
    )
    op.create_table(
        "holds",
        *_columns(Text, "project_id", "attempt_id", primary_key=True),
        *_columns(Text, "nonce", "state", "provider", "model", "user_id", "key_id", "run_id", "tags"),
        *_columns(BigInteger, "held_nano_usd"),
        *_columns(Boolean, "priced"),
        *_columns(BigInteger, "created_us", "expires_us"),
        *_columns(Text, "service_tier"),
        sqlite_with_rowid=False,
    )
    op.create_index("charged_holds_by_project", "holds", ["project_id"], **_where("state = 'expired_charged'"))
    op.create_index(
        "expired_holds_by_creation",
        "holds",
        ["created_us"],
        **_where("state IN ('expired_charged', 'expired_released')"),
    )
    op.create_index(
        "final_holds_by_creation", "holds", ["created_us"], **_where("state IN ('settled', 'released', 'tombstoned')")
    )
    op.create_index("live_holds_by_expiry", "holds", ["expires_us"], **_where("state = 'held'"))


def _create_events() -> None:
    op.create_table(
        "usage_events",
        *_columns(Text, "project_id", "source", "event_id", primary_key=True),
        *_columns(LargeBinary, "digest"),
        *_columns(Text, "provider", "model", "provider_model", "user_id", "key_id", "run_id", "tags"),
        *_columns(BigInteger, *_COUNTS),
        *_columns(SmallInteger, "usage_source"),
        *_columns(Boolean, "succeeded", "priced"),
        *_columns(BigInteger, "cost_nano_usd"),
        *_columns(Text, "cost_parts", "price_version"),
        *_columns(BigInteger, "held_nano_usd", "occurred_us", "charged_us", "recorded_us"),
        *_columns(Text, "service_tier", "metadata"),
        *_columns(SmallInteger, "tag_count", "calls", "unpriced_calls"),
        *_columns(BigInteger, "sequence"),
        sqlite_with_rowid=False,
    )
    op.create_index("usage_events_by_sequence", "usage_events", ["project_id", "sequence"])
    op.create_index("usage_events_by_time", "usage_events", ["project_id", "occurred_us", "source", "event_id"])
    op.create_index("usage_events_by_user", "usage_events", ["project_id", "user_id", "occurred_us"])
    op.create_table(
        "adjustments",
        *_columns(Text, "project_id", "source", "event_id", "adjustment_id", primary_key=True),
        *_columns(Text, "repricing_id"),
        *_columns(BigInteger, "number", "nano_usd", "unpriced_calls"),
        *_columns(Text, "price_version"),
        sqlite_with_rowid=False,
    )
    op.create_index("adjustments_by_repricing", "adjustments", ["repricing_id", "number"])


def _create_prices() -> None:
    op.create_table(
        "price_overrides",
        *_columns(Text, "override_id", primary_key=True),
        *_columns(Text, "project_id", "provider", "model", "service_tier", "tiers"),
        *_columns(BigInteger, "request_nano_usd", "step_nano_usd", "effective_us", "created_us"),
        *_columns(BigInteger, "ended_us", nullable=True),
        *_columns(BigInteger, "created_revision"),
        *_columns(BigInteger, "ended_revision", nullable=True),
    )
    op.create_index("price_overrides_by_project", "price_overrides", ["project_id", "override_id"])
    op.create_table(
        "repricings",
        *_columns(Text, "repricing_id", primary_key=True),
        *_columns(BigInteger, "number"),
        *_columns(Text, "project_id", "request_id", "provider", "model", "state", "catalogue_version"),
        *_columns(
            BigInteger,
            "start_us",
            "end_us",
            "prices_revision",
            "created_us",
            "adjustments",
            "reversed",
            "calls",
            "changed_calls",
            "newly_priced_calls",
            "unpriced_calls",
            "old_nano_usd",
            "new_nano_usd",
        ),
        *_columns(Text, "after_source", "after_event_id"),
        *_columns(BigInteger, "after_us"),
    )
    op.create_index("repricings_by_request", "repricings", ["project_id", "request_id"], unique=True)
    op.create_index("repricings_in_order", "repricings", ["project_id", "number"], unique=True)


def _create_alerts() -> None:
    op.create_table(
        "alert_counters", *_columns(Text, "project_id", primary_key=True), *_columns(BigInteger, "last_sequence")
    )
    op.create_table(
        "alerts",
        *_columns(Text, "project_id", primary_key=True),
        *_columns(BigInteger, "sequence", primary_key=True),
        *_columns(Text, "alert_id", "kind", "subject", "period"),
        *_columns(SmallInteger, "threshold_percent"),
        *_columns(Text, "facts"),
        *_columns(BigInteger, "created_us"),
        sqlite_with_rowid=False,
    )
    op.create_index("alerts_by_time", "alerts", ["created_us"])
    op.create_index(
        "alerts_once", "alerts", ["project_id", "kind", "subject", "period", "threshold_percent"], unique=True
    )
    op.create_table(
        "webhooks",
        *_columns(Text, "webhook_id", primary_key=True),
        *_columns(Text, "project_id", "url"),
        *_columns(LargeBinary, "sealed_secret"),
        *_columns(Text, "kinds", "budget_ids"),
        *_columns(Boolean, "disabled"),
        *_columns(BigInteger, "created_us", "last_attempt_us", "last_success_us", "last_http_status"),
        *_columns(Text, "last_error"),
        *_columns(BigInteger, "failures"),
    )
    op.create_index("webhooks_by_project", "webhooks", ["project_id", "webhook_id"])
    op.create_table(
        "deliveries",
        *_columns(Text, "delivery_id", primary_key=True),
        *_columns(Text, "webhook_id", "project_id"),
        *_columns(BigInteger, "alert_sequence"),
        *_columns(Text, "alert_id", "state"),
        *_columns(BigInteger, "attempts", "created_us", "due_us", "give_up_us", "last_http_status"),
        *_columns(Text, "last_error"),
    )
    op.create_index("deliveries_by_time", "deliveries", ["created_us"])
    op.create_index("deliveries_by_webhook", "deliveries", ["webhook_id", "state", "delivery_id"])
    op.create_index("due_deliveries", "deliveries", ["due_us"], **_where("state = 'pending'"))


def _create_anomalies() -> None:
    op.create_table(
        "anomaly_searches",
        *_columns(Text, "project_id", primary_key=True),
        *_columns(BigInteger, "judged_until_us", "last_sequence"),
    )
    op.create_index("anomaly_searches_by_time", "anomaly_searches", ["judged_until_us"])
    op.create_table(
        "anomalies",
        *_columns(Text, "project_id", primary_key=True),
        *_columns(BigInteger, "sequence", primary_key=True),
        *_columns(Text, "provider", "model"),
        *_columns(BigInteger, "start_us", "observed_nano_usd", "expected_nano_usd", "lower_nano_usd", "upper_nano_usd"),
        *_columns(Float, "score"),
        *_columns(BigInteger, "created_us"),
        sqlite_with_rowid=False,
    )
    op.create_index("anomalies_once", "anomalies", ["project_id", "start_us", "provider", "model"], unique=True)


def _create_views() -> None:
    op.create_table(
        "spend_progress",
        *_columns(Text, "project_id", primary_key=True),
        *_columns(BigInteger, "folded_sequence", "closed_us"),
    )
    for name, dimensions in _VIEWS.items():
        split = ("split_nano_usd",) if "tag" in dimensions else ()
        op.create_table(
            name,
            *_columns(Text, "project_id", "grain", primary_key=True),
            *_columns(BigInteger, "bucket_us", primary_key=True),
            *_columns(Text, *dimensions, primary_key=True),
            *_columns(BigInteger, "calls", "unpriced_calls", "cost_nano_usd", *_COUNTS, *split),
            sqlite_with_rowid=False,
            postgresql_with={"fillfactor": 80},
        )
    turned = ["project_id", "grain", "bucket_us", "provider", "model", "user_id"]
    op.create_index("spend_by_user_model_turned", "spend_by_user_model", turned)
