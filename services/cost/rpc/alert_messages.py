"""Alerts, webhooks and deliveries on the wire."""

from typing import Final

from llmlab.api.cost.v1 import alert_pb2 as pb
from services.cost.alerting.alerts import Alert, AlertKind, AnomalyFacts, BudgetFacts
from services.cost.alerting.deliveries import Delivery, DeliveryState
from services.cost.alerting.webhooks import Webhook
from services.cost.rpc.codec import timestamp_of

KINDS: Final = {kind: pb.AlertKind.Value(f"ALERT_KIND_{kind.name}") for kind in AlertKind}
KIND_OF: Final = {number: kind for kind, number in KINDS.items()}
_STATES: Final = {state: pb.DeliveryState.Value(f"DELIVERY_STATE_{state.name}") for state in DeliveryState}
STATE_OF: Final = {number: state for state, number in _STATES.items()}


def alert_message(alert: Alert) -> pb.Alert:
    """An alert."""
    what = alert.what
    message = pb.Alert(
        alert_id=alert.alert_id,
        sequence=alert.sequence,
        kind=KINDS[what.kind],
        create_time=timestamp_of(alert.created_us),
        message=alert.message(),
    )
    facts = what.facts
    if isinstance(facts, BudgetFacts):
        message.budget.budget_id = what.subject
        message.budget.budget_name = facts.budget_name
        message.budget.period = what.period
        message.budget.threshold_percent = what.threshold_percent
        message.budget.limit_nano_usd = facts.limit_nano_usd
        message.budget.settled_nano_usd = facts.settled_nano_usd
        message.budget.held_nano_usd = facts.held_nano_usd
        message.budget.needed_nano_usd = facts.needed_nano_usd
    elif isinstance(facts, AnomalyFacts):
        message.anomaly.series = what.subject
        message.anomaly.time.CopyFrom(timestamp_of(facts.time_us))
        message.anomaly.observed_nano_usd = facts.observed_nano_usd
        message.anomaly.expected_nano_usd = facts.expected_nano_usd
        message.anomaly.low_nano_usd = facts.low_nano_usd
        message.anomaly.high_nano_usd = facts.high_nano_usd
    else:
        message.unpriced.model = what.subject
        message.unpriced.day = what.period
    return message


def webhook_message(webhook: Webhook) -> pb.Webhook:
    """A webhook, without its secret."""
    status = webhook.status
    return pb.Webhook(
        webhook_id=webhook.webhook_id,
        url=webhook.url,
        kinds=[KINDS[kind] for kind in webhook.kinds],
        budget_ids=webhook.budget_ids,
        disabled=webhook.disabled,
        status=pb.WebhookStatus(
            last_attempt_time=timestamp_of(status.last_attempt_us) if status.last_attempt_us else None,
            last_success_time=timestamp_of(status.last_success_us) if status.last_success_us else None,
            last_http_status=status.last_http_status,
            last_error=status.last_error,
            failures=status.failures,
            pending_deliveries=status.pending,
            failed_deliveries=status.failed,
        ),
        create_time=timestamp_of(webhook.created_us),
    )


def delivery_message(delivery: Delivery) -> pb.Delivery:
    """A delivery."""
    pending = delivery.state is DeliveryState.PENDING
    return pb.Delivery(
        delivery_id=delivery.delivery_id,
        alert_id=delivery.alert_id,
        alert_sequence=delivery.alert_sequence,
        state=_STATES[delivery.state],
        attempts=delivery.attempts,
        create_time=timestamp_of(delivery.created_us),
        next_attempt_time=timestamp_of(delivery.due_us) if pending else None,
        last_http_status=delivery.last.http_status,
        last_error=delivery.last.error,
    )
