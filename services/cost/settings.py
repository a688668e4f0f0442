"""Settings of the cost service."""

from pydantic import Field

from services.cost.holds import ExpiryPolicy
from services.runtime.settings import ServiceSettings


class CostSettings(ServiceSettings, service="cost"):
    """LLMLAB_COST_..."""

    expired_holds: ExpiryPolicy = Field(
        ExpiryPolicy.CHARGE,
        description="What a hold that nobody settled in time counts as until its outcome is known: charge or release.",
    )
    reconcile_interval_s: float = Field(5.0, gt=0, description="Seconds between two looks for expired holds.")
    reconcile_max_holds: int = Field(500, ge=1, le=10_000, description="Expired holds that one look takes on.")
    commit_max_requests: int = Field(64, ge=1, description="Requests that share one transaction at most.")
    commit_max_waiting: int = Field(2_048, ge=1, description="Requests that may wait for their transaction.")
    max_price_overrides_per_project: int = Field(
        1_000, ge=1, le=10_000, description="Price overrides that a project may have, ended ones counted."
    )
    max_budgets_per_project: int = Field(20_000, ge=1, le=1_000_000, description="Budgets that a project may have.")
    max_budgets_per_anchor: int = Field(
        50,
        ge=1,
        le=1_000,
        description="Budgets that share the narrowest part of their scope: a run, user, key, tag or model, "
        "or the whole project.",
    )
