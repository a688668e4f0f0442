"""Calls about alerts and webhooks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import TYPE_CHECKING

from google.protobuf import field_mask_pb2

from llmlab.api.cost.v1 import alert_pb2
from llmlab.api.cost.v1.alert_pb2_grpc import AlertServiceStub
from llmlab.client.connection import Connection

if TYPE_CHECKING:
    from llmlab.api.cost.v1.alert_pb2_grpc import AlertServiceAsyncStub


class AlertCalls(Connection):
    """Alerts on spending, and the webhooks that carry them out of the system."""

    @property
    def _alerts(self) -> AlertServiceAsyncStub:
        return AlertServiceStub(self._channel("cost"))

    async def list_alerts(
        self, *, kinds: Iterable[alert_pb2.AlertKind.ValueType] = (), budget_id: str = ""
    ) -> AsyncIterator[alert_pb2.Alert]:
        """Yields alerts, newest first; of these kinds and this budget only, where they are given."""
        request = alert_pb2.ListAlertsRequest(kinds=kinds, budget_id=budget_id)
        async for page in self._pages("cost", self._alerts.ListAlerts, request):
            for alert in page.alerts:
                yield alert

    def watch_alerts(self, *, after_sequence: int = 0) -> AsyncGenerator[alert_pb2.Alert, None]:
        """Yields the project's alerts in order, each once, without end.

        A stream that is cut (a replica that stops, a network that breaks) is resumed behind the last alert.

        Raises:
            LlmlabError: The alerts after this sequence are no longer kept, or nobody answered 30 times in a row.
        """

        def request_after(sequence: int) -> alert_pb2.WatchAlertsRequest:
            return alert_pb2.WatchAlertsRequest(after_sequence=sequence)

        return self._watched(
            "cost", self._alerts.WatchAlerts, request_after, lambda message: message.alerts, after_sequence
        )

    async def create_webhook(
        self,
        url: str,
        *,
        kinds: Iterable[alert_pb2.AlertKind.ValueType] = (),
        budget_ids: Iterable[str] = (),
        disabled: bool = False,
    ) -> alert_pb2.CreateWebhookResponse:
        """Creates a webhook; its secret is in this answer and in no other."""
        webhook = alert_pb2.Webhook(url=url, kinds=kinds, budget_ids=budget_ids, disabled=disabled)
        request = alert_pb2.CreateWebhookRequest(webhook=webhook)
        return await self._unary("cost", self._alerts.CreateWebhook, request)

    async def get_webhook(self, webhook_id: str) -> alert_pb2.Webhook:
        """Returns one webhook with the status of its deliveries."""
        request = alert_pb2.GetWebhookRequest(webhook_id=webhook_id)
        return (await self._unary("cost", self._alerts.GetWebhook, request)).webhook

    async def list_webhooks(self) -> AsyncIterator[alert_pb2.Webhook]:
        """Yields the project's webhooks, oldest first."""
        async for page in self._pages("cost", self._alerts.ListWebhooks, alert_pb2.ListWebhooksRequest()):
            for webhook in page.webhooks:
                yield webhook

    async def update_webhook(self, webhook: alert_pb2.Webhook, fields: Iterable[str]) -> alert_pb2.Webhook:
        """Changes the named fields ("url", "kinds", "budget_ids", "disabled") to those of `webhook`."""
        request = alert_pb2.UpdateWebhookRequest(
            webhook_id=webhook.webhook_id,
            webhook=webhook,
            update_mask=field_mask_pb2.FieldMask(paths=list(fields)),
        )
        return (await self._unary("cost", self._alerts.UpdateWebhook, request)).webhook

    async def delete_webhook(self, webhook_id: str) -> None:
        """Deletes a webhook with what it has not delivered yet."""
        request = alert_pb2.DeleteWebhookRequest(webhook_id=webhook_id)
        await self._unary("cost", self._alerts.DeleteWebhook, request)

    async def test_webhook(self, webhook_id: str) -> alert_pb2.TestWebhookResponse:
        """Sends a signed test message to a webhook, once and now."""
        request = alert_pb2.TestWebhookRequest(webhook_id=webhook_id)
        return await self._unary("cost", self._alerts.TestWebhook, request)

    async def list_deliveries(
        self, webhook_id: str, *, states: Iterable[alert_pb2.DeliveryState.ValueType] = ()
    ) -> AsyncIterator[alert_pb2.Delivery]:
        """Yields a webhook's deliveries, newest first; in these states only, where they are given."""
        request = alert_pb2.ListDeliveriesRequest(webhook_id=webhook_id, states=states)
        async for page in self._pages("cost", self._alerts.ListDeliveries, request):
            for delivery in page.deliveries:
                yield delivery

    async def redeliver(self, webhook_id: str, delivery_id: str) -> alert_pb2.Delivery:
        """Takes up a failed delivery again."""
        request = alert_pb2.RedeliverRequest(webhook_id=webhook_id, delivery_id=delivery_id)
        return (await self._unary("cost", self._alerts.Redeliver, request)).delivery
