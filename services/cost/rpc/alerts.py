"""AlertService: alerts, watching them, and the webhooks that carry them out of the system."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from llmlab.api.cost.v1 import alert_pb2 as pb
from llmlab.api.cost.v1.alert_pb2_grpc import AlertServiceServicer
from services.cost.alerting.alerts import Alert, AlertKind
from services.cost.alerting.delivering import Sender
from services.cost.alerting.sealing import Sealer
from services.cost.alerting.signing import new_secret
from services.cost.alerting.webhooks import Webhook, check_budget_ids, check_mask, check_url
from services.cost.rpc.alert_messages import KIND_OF, STATE_OF, alert_message, delivery_message, webhook_message
from services.cost.store.alerts import AlertStore
from services.cost.store.deliveries import DeliveryStore
from services.cost.store.webhooks import WebhookStore
from services.runtime.context import current_principal, endless
from services.runtime.errors import InvalidField
from services.runtime.feeds import Watching
from services.runtime.ids import new_id
from services.runtime.pages import decode_page_token, encode_page_token, filter_fingerprint

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

_PAGE_SIZE_DEFAULT: Final = 50


@dataclass(frozen=True, slots=True)
class AlertParts:
    """What the servicer works with."""

    alerts: AlertStore
    webhooks: WebhookStore
    deliveries: DeliveryStore
    watching: Watching[Alert, pb.WatchAlertsResponse]
    sender: Sender
    sealer: Sealer
    private_receivers: bool


class AlertServicer(AlertServiceServicer):
    """Serves llmlab.api.cost.v1.AlertService."""

    def __init__(self, parts: AlertParts) -> None:
        self._alerts = parts.alerts
        self._webhooks = parts.webhooks
        self._deliveries = parts.deliveries
        self._watching = parts.watching
        self._sender = parts.sender
        self._sealer = parts.sealer
        self._private_receivers = parts.private_receivers

    async def ListAlerts(self, request: pb.ListAlertsRequest, context: "Context") -> pb.ListAlertsResponse:
        """Lists alerts."""
        project_id = current_principal().project_id
        numbers = sorted(set(request.kinds))
        fingerprint = filter_fingerprint("ListAlerts", project_id, numbers, request.budget_id)
        before = decode_page_token(fingerprint, request.page_token)
        size = request.page_size or _PAGE_SIZE_DEFAULT
        found = await self._alerts.page(
            project_id,
            kinds=[KIND_OF[number] for number in numbers],
            budget_id=request.budget_id,
            before=int(before[0]) if before else None,
            limit=size + 1,
        )
        page = found[:size]
        return pb.ListAlertsResponse(
            alerts=[alert_message(alert) for alert in page],
            next_page_token=encode_page_token(fingerprint, [page[-1].sequence]) if len(found) > size else "",
        )

    @endless
    async def WatchAlerts(
        self, request: pb.WatchAlertsRequest, context: "Context"
    ) -> AsyncIterator[pb.WatchAlertsResponse]:
        """Streams the project's alerts."""
        project_id = current_principal().project_id
        async with aclosing(self._watching.watch(project_id, request.after_sequence, _watched)) as messages:
            async for message in messages:
                yield message

    async def CreateWebhook(self, request: pb.CreateWebhookRequest, context: "Context") -> pb.CreateWebhookResponse:
        """Creates a webhook."""
        wanted = request.webhook
        webhook_id, secret = new_id("whk"), new_secret()
        webhook = Webhook(
            webhook_id=webhook_id,
            project_id=current_principal().project_id,
            url=check_url(wanted.url, "webhook.url", private=self._private_receivers),
            sealed_secret=self._sealer.seal(secret, webhook_id),
            kinds=_kinds(wanted.kinds, "webhook.kinds"),
            budget_ids=check_budget_ids(wanted.budget_ids, "webhook.budget_ids"),
            disabled=wanted.disabled,
            created_us=0,
        )
        created = await self._webhooks.create(webhook)
        return pb.CreateWebhookResponse(webhook=webhook_message(created), secret=secret)

    async def GetWebhook(self, request: pb.GetWebhookRequest, context: "Context") -> pb.GetWebhookResponse:
        """Gives one webhook."""
        found = await self._webhooks.get(current_principal().project_id, request.webhook_id)
        return pb.GetWebhookResponse(webhook=webhook_message(found))

    async def ListWebhooks(self, request: pb.ListWebhooksRequest, context: "Context") -> pb.ListWebhooksResponse:
        """Lists the project's webhooks."""
        project_id = current_principal().project_id
        fingerprint = filter_fingerprint("ListWebhooks", project_id)
        after = decode_page_token(fingerprint, request.page_token)
        size = request.page_size or _PAGE_SIZE_DEFAULT
        found = await self._webhooks.page(project_id, after_id=str(after[0]) if after else "", limit=size + 1)
        page = found[:size]
        return pb.ListWebhooksResponse(
            webhooks=[webhook_message(webhook) for webhook in page],
            next_page_token=encode_page_token(fingerprint, [page[-1].webhook_id]) if len(found) > size else "",
        )

    async def UpdateWebhook(self, request: pb.UpdateWebhookRequest, context: "Context") -> pb.UpdateWebhookResponse:
        """Changes the named fields of a webhook."""
        wanted = request.webhook
        changes: dict[str, Any] = {}
        for path in check_mask(request.update_mask.paths, "update_mask"):
            match path:
                case "url":
                    changes[path] = check_url(wanted.url, "webhook.url", private=self._private_receivers)
                case "kinds":
                    changes[path] = _kinds(wanted.kinds, "webhook.kinds")
                case "budget_ids":
                    changes[path] = check_budget_ids(wanted.budget_ids, "webhook.budget_ids")
                case "disabled":
                    changes[path] = wanted.disabled

        def change(webhook: Webhook) -> Webhook:
            return replace(webhook, **changes)

        changed = await self._webhooks.update(current_principal().project_id, request.webhook_id, change)
        return pb.UpdateWebhookResponse(webhook=webhook_message(changed))

    async def DeleteWebhook(self, request: pb.DeleteWebhookRequest, context: "Context") -> pb.DeleteWebhookResponse:
        """Deletes a webhook."""
        await self._webhooks.delete(current_principal().project_id, request.webhook_id)
        return pb.DeleteWebhookResponse()

    async def TestWebhook(self, request: pb.TestWebhookRequest, context: "Context") -> pb.TestWebhookResponse:
        """Sends a test message."""
        webhook = await self._webhooks.get(current_principal().project_id, request.webhook_id)
        outcome, duration_us = await self._sender.send_test(webhook)
        return pb.TestWebhookResponse(
            delivered=outcome.delivered,
            http_status=outcome.http_status,
            error=outcome.error,
            duration_us=duration_us,
        )

    async def ListDeliveries(self, request: pb.ListDeliveriesRequest, context: "Context") -> pb.ListDeliveriesResponse:
        """Lists deliveries of a webhook."""
        project_id = current_principal().project_id
        numbers = sorted(set(request.states))
        fingerprint = filter_fingerprint("ListDeliveries", project_id, request.webhook_id, numbers)
        before = decode_page_token(fingerprint, request.page_token)
        size = request.page_size or _PAGE_SIZE_DEFAULT
        found = await self._deliveries.page(
            project_id,
            request.webhook_id,
            states=[STATE_OF[number] for number in numbers],
            before_id=str(before[0]) if before else "",
            limit=size + 1,
        )
        page = found[:size]
        return pb.ListDeliveriesResponse(
            deliveries=[delivery_message(delivery) for delivery in page],
            next_page_token=encode_page_token(fingerprint, [page[-1].delivery_id]) if len(found) > size else "",
        )

    async def Redeliver(self, request: pb.RedeliverRequest, context: "Context") -> pb.RedeliverResponse:
        """Takes up a failed delivery again."""
        project_id = current_principal().project_id
        again = await self._deliveries.redeliver(project_id, request.webhook_id, request.delivery_id)
        return pb.RedeliverResponse(delivery=delivery_message(again))


def _kinds(numbers: Iterable[pb.AlertKind.ValueType], field: str) -> tuple[AlertKind, ...]:
    distinct = sorted(set(numbers))
    if any(number not in KIND_OF for number in distinct):
        raise InvalidField(field, f"Name kinds of alerts: {', '.join(kind.name for kind in AlertKind)}.")
    return tuple([KIND_OF[number] for number in distinct])


def _watched(alerts: Sequence[Alert], latest: int) -> pb.WatchAlertsResponse:
    return pb.WatchAlertsResponse(alerts=[alert_message(alert) for alert in alerts], latest_sequence=latest)
