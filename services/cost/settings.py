"""Settings of the cost service."""

from typing import Self

from pydantic import Field, SecretStr, model_validator

from services.cost.alerting.alerts import AlertLimits
from services.cost.alerting.deliveries import RetryLimits
from services.cost.alerting.delivering import DeliveringPolicy
from services.cost.anomaly_search import SearchPolicy
from services.cost.holds import ExpiryPolicy
from services.cost.insights import SearchLimits
from services.runtime.backoff import Backoff
from services.runtime.watch_settings import WatchSettings


class CostSettings(WatchSettings, service="cost"):
    """LLMLAB_COST_..."""

    expired_holds: ExpiryPolicy = Field(
        ExpiryPolicy.CHARGE,
        description="What a hold that nobody settled in time counts as until its outcome is known: charge or release.",
    )
    reconcile_interval_s: float = Field(5.0, gt=0, description="Seconds between two looks for expired holds.")
    reconcile_max_holds: int = Field(500, ge=1, le=10_000, description="Expired holds that one look takes on.")
    hold_retention_days: int = Field(
        7,
        ge=1,
        le=366,
        description="Days after which a settled, released or tombstoned hold is deleted; its usage event stays. "
        "Expired holds are kept for 366 days.",
    )
    hold_retention_interval_s: float = Field(30.0, gt=0, description="Seconds between two looks for old holds.")
    hold_retention_max_holds: int = Field(500, ge=1, le=10_000, description="Old holds that one look deletes.")
    commit_max_items: int = Field(
        1_024,
        ge=1,
        description="Holds, settlements and reported events that share one transaction at most; no request is divided.",
    )
    commit_max_waiting: int = Field(2_048, ge=1, description="Requests that may wait for their transaction.")
    commit_max_in_flight: int = Field(
        2, ge=1, le=64, description="Transactions on the books under way at once; each takes a connection."
    )
    max_price_overrides_per_project: int = Field(
        1_000, ge=1, le=10_000, description="Price overrides that a project may have, ended ones counted."
    )
    reprice_batch_events: int = Field(500, ge=1, le=5_000, description="Events that one transaction prices anew.")
    reprice_call_events: int = Field(5_000, ge=1, description="Events that one request prices anew, or takes back.")
    reprice_preview_events: int = Field(1_000_000, ge=1, description="Events that a preview looks at.")
    max_budgets_per_project: int = Field(20_000, ge=1, le=1_000_000, description="Budgets that a project may have.")
    max_budgets_per_anchor: int = Field(
        50,
        ge=1,
        le=1_000,
        description="Budgets that share the narrowest part of their scope: a run, user, key, tag or model, "
        "or the whole project.",
    )
    fold_interval_s: float = Field(10.0, gt=0, description="Seconds between two rounds that fold usage into the views.")
    fold_max_events: int = Field(
        200_000, ge=1, description="Usage events that one transaction folds at most; on SQLite at most 10,000."
    )
    summary_timeout_ms: int = Field(5_000, ge=1, description="Longest summary of spend, milliseconds.")
    summary_max_events: int = Field(
        250_000, ge=1, description="Events that a summary may add up one by one, where no view knows its mix."
    )
    usage_scan_max_events: int = Field(20_000, ge=1, description="Events that a page of usage looks at at most.")
    export_page_size: int = Field(5_000, ge=1, le=50_000, description="Groups that an export reads at a time.")
    anomaly_interval_s: float = Field(60.0, gt=0, description="Seconds between two looks for hours to judge.")
    anomaly_delay_s: int = Field(
        900, ge=0, le=86_400, description="Seconds after its end that an hour of spending is judged."
    )
    anomaly_max_projects: int = Field(50, ge=1, le=1_000, description="Projects whose hours one look judges.")
    anomaly_max_series: int = Field(
        20, ge=0, le=200, description="Providers and models of a project that are judged, those that spend most."
    )
    anomaly_min_impact_nano_usd: int = Field(
        1_000_000_000, ge=0, description="Smallest difference from what was expected that is told, nano-USD."
    )
    anomalies_kept_per_project: int = Field(
        10_000, ge=1, le=1_000_000, description="Anomalies kept of a project; the oldest go first."
    )

    alert_retention_days: int = Field(400, ge=1, le=3_650, description="Days that alerts and deliveries are kept.")
    alert_retention_interval_s: float = Field(3_600.0, gt=0, description="Seconds between two looks for old alerts.")
    alert_retention_max_alerts: int = Field(1_000, ge=1, le=10_000, description="Old alerts that one look deletes.")
    alert_unpriced_per_day: int = Field(
        20, ge=1, le=1_000, description="Models without a price that a project is alerted about on one day."
    )
    max_webhooks_per_project: int = Field(10, ge=1, le=100, description="Webhooks that a project may have.")
    webhook_key: SecretStr = Field(
        SecretStr(""),
        description="Encrypts webhooks' secrets in the database, 64 hex digits; empty: the services' shared key does. "
        "Up to three, with commas between them: the first is in use; what others encrypted is encrypted anew.",
    )
    webhook_reseal_interval_s: float = Field(
        300.0, gt=0, description="Seconds between two looks for webhooks' secrets that another key encrypted."
    )
    webhook_private_receivers: bool = Field(
        default=False,
        description="Let webhooks use plain http and addresses that are not public, as in a cluster.",
    )
    webhook_timeout_s: float = Field(10.0, gt=0, le=60, description="Longest attempt to deliver an alert.")
    webhook_lease_s: float = Field(
        30.0, gt=0, description="Seconds until another replica may repeat an unfinished attempt; above the time-out."
    )
    webhook_attempts_max: int = Field(16, ge=1, le=100, description="Attempts to deliver an alert.")
    webhook_give_up_s: int = Field(
        3 * 24 * 3600, ge=1, description="Seconds after which no further attempt to deliver an alert begins."
    )
    webhook_retry_base_ms: int = Field(5_000, ge=1, description="Longest pause after a failed attempt; it doubles.")
    webhook_retry_cap_ms: int = Field(6 * 3_600_000, ge=1, description="Longest pause between two attempts.")
    webhook_concurrency: int = Field(64, ge=1, le=1_000, description="Attempts under way in this process.")
    webhook_concurrency_each: int = Field(2, ge=1, le=100, description="Attempts under way to one webhook.")
    webhook_poll_s: float = Field(1.0, gt=0, description="Seconds between two looks for attempts that are due.")

    @model_validator(mode="after")
    def _check_lease(self) -> Self:
        if self.webhook_lease_s <= self.webhook_timeout_s:
            raise ValueError("webhook_lease_s has to be above webhook_timeout_s")
        return self

    def alert_limits(self) -> AlertLimits:
        """What bounds the alerts of a project."""
        return AlertLimits(
            unpriced_per_day=self.alert_unpriced_per_day, delivery_window_us=self.webhook_give_up_s * 1_000_000
        )

    def delivery_limits(self) -> RetryLimits:
        """How often, and for how long, a delivery is tried."""
        return RetryLimits(attempts_max=self.webhook_attempts_max, window_us=self.webhook_give_up_s * 1_000_000)

    def delivering_policy(self) -> DeliveringPolicy:
        """How this process delivers."""
        return DeliveringPolicy(
            under_way_max=self.webhook_concurrency,
            under_way_each=self.webhook_concurrency_each,
            poll_s=self.webhook_poll_s,
            backoff=Backoff(self.webhook_retry_base_ms, self.webhook_retry_cap_ms),
        )

    def search_policy(self) -> SearchPolicy:
        """How anomalies are looked for."""
        return SearchPolicy(
            interval_s=self.anomaly_interval_s,
            delay_us=self.anomaly_delay_s * 1_000_000,
            max_projects=self.anomaly_max_projects,
            limits=SearchLimits(
                max_series=self.anomaly_max_series,
                min_impact_nano_usd=self.anomaly_min_impact_nano_usd,
                max_kept=self.anomalies_kept_per_project,
            ),
        )
