"""Alerts on their way to webhooks: what a delivery is, when it is tried again, and when it is given up."""

from dataclasses import dataclass
from enum import Enum

from services.cost.alerting.alerts import Alert
from services.cost.alerting.webhooks import Webhook

ERROR_LENGTH_MAX = 300


class DeliveryState(Enum):
    """Where a delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one attempt."""

    http_status: int = 0
    """0 where there was no answer."""
    error: str = ""
    """Why it failed; empty where the receiver answered 2xx."""

    @property
    def delivered(self) -> bool:
        """Whether the receiver took it."""
        return not self.error


@dataclass(frozen=True, slots=True)
class Delivery:
    """One alert on its way to one webhook. Times are microseconds UTC."""

    delivery_id: str
    webhook_id: str
    alert_id: str
    alert_sequence: int
    state: DeliveryState
    attempts: int
    """So far, with the one under way. It also tells this claim from a later one."""
    created_us: int
    due_us: int
    """When the next attempt may begin; of one under way: when its claim ends."""
    give_up_us: int
    """No attempt begins later, but the first."""
    last: Outcome


@dataclass(frozen=True, slots=True)
class Parcel:
    """A claimed delivery with all that it takes to send it."""

    delivery: Delivery
    webhook: Webhook
    alert: Alert


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """How often, and for how long, a delivery is tried."""

    attempts_max: int
    window_us: int
    """From the alert, or from the request to take it up again, to the begin of the last attempt."""

    def is_over(self, attempts: int, give_up_us: int, at_us: int) -> bool:
        """Whether no further attempt is made at a time, after so many."""
        return attempts >= self.attempts_max or (attempts > 0 and at_us >= give_up_us)
