"""Rows of webhooks and deliveries to domain values and back."""

from typing import Any, Final

from sqlalchemy.engine import RowMapping

from services.cost.alerting.alerts import AlertKind
from services.cost.alerting.deliveries import Delivery, DeliveryState, Outcome
from services.cost.alerting.webhooks import Webhook, WebhookStatus

_SEPARATOR: Final = ","


def webhook_of(row: RowMapping, *, pending: int = 0, failed: int = 0) -> Webhook:
    """A row of `webhooks`, with counts of its deliveries."""
    return Webhook(
        webhook_id=row["webhook_id"],
        project_id=row["project_id"],
        url=row["url"],
        sealed_secret=bytes(row["sealed_secret"]),
        kinds=tuple(AlertKind(name) for name in _split(row["kinds"])),
        budget_ids=tuple(_split(row["budget_ids"])),
        disabled=row["disabled"],
        created_us=row["created_us"],
        status=WebhookStatus(
            last_attempt_us=row["last_attempt_us"],
            last_success_us=row["last_success_us"],
            last_http_status=row["last_http_status"],
            last_error=row["last_error"],
            failures=row["failures"],
            pending=pending,
            failed=failed,
        ),
    )


def row_of_choice(webhook: Webhook) -> dict[str, Any]:
    """The columns of a webhook that its owner chooses."""
    return {
        "url": webhook.url,
        "kinds": _SEPARATOR.join([kind.value for kind in webhook.kinds]),
        "budget_ids": _SEPARATOR.join(webhook.budget_ids),
        "disabled": webhook.disabled,
    }


def delivery_of(row: RowMapping) -> Delivery:
    """A row of `deliveries`."""
    return Delivery(
        delivery_id=row["delivery_id"],
        webhook_id=row["webhook_id"],
        alert_id=row["alert_id"],
        alert_sequence=row["alert_sequence"],
        state=DeliveryState(row["state"]),
        attempts=row["attempts"],
        created_us=row["created_us"],
        due_us=row["due_us"],
        give_up_us=row["give_up_us"],
        last=Outcome(row["last_http_status"], row["last_error"]),
    )


def _split(text: str) -> list[str]:
    return text.split(_SEPARATOR) if text else []
