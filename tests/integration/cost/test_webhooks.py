"""Webhooks over a real server and real receivers: each alert is delivered once, signed, whatever other receivers do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf import field_mask_pb2
from pydantic import SecretStr

from llmlab.api.cost.v1 import alert_pb2 as pb
from llmlab.api.cost.v1 import hold_pb2
from services.cost.settings import CostSettings
from services.cost.store.webhooks import WebhookStore
from services.cost.wiring import build
from services.runtime.clock import ManualClock
from services.runtime.database import Database
from services.runtime.errors import DomainError
from services.runtime.status import error_from_rpc
from tests.support.cost import SERVICE_KEY, Callers, hold_item, raise_alert, settle_item
from tests.support.receiver import always, receiving

OpenDatabase = Callable[..., Awaitable[Database]]

QUICK = {
    "webhook_private_receivers": True,
    "webhook_retry_base_ms": 1,
    "webhook_retry_cap_ms": 20,
    "webhook_poll_s": 0.02,
    "webhook_attempts_max": 5,
    "max_webhooks_per_project": 3,
    "alert_unpriced_per_day": 100,
}


@pytest.fixture
def settings(settings: CostSettings) -> CostSettings:
    return settings.model_copy(update=QUICK)


@pytest.fixture
async def moving_clock(clock: ManualClock) -> AsyncIterator[ManualClock]:
    """The server's clock, which runs: attempts become due."""

    async def run() -> None:
        while True:
            await asyncio.sleep(0.01)
            clock.advance(0.01)

    task = asyncio.create_task(run())
    yield clock
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def create(callers: Callers, url: str, **fields: Any) -> pb.CreateWebhookResponse:
    request = pb.CreateWebhookRequest(webhook=pb.Webhook(url=url, **fields))
    return await callers.alerts.CreateWebhook(request, metadata=callers.person())


async def status_of(callers: Callers, webhook_id: str) -> pb.WebhookStatus:
    request = pb.GetWebhookRequest(webhook_id=webhook_id)
    return (await callers.alerts.GetWebhook(request, metadata=callers.person())).webhook.status


async def settled_status(callers: Callers, webhook_id: str) -> pb.WebhookStatus:
    """The status once nothing is pending."""
    async with asyncio.timeout(60):
        while True:
            status = await status_of(callers, webhook_id)
            if not status.pending_deliveries:
                return status
            await asyncio.sleep(0.01)


async def deliveries_of(callers: Callers, webhook_id: str) -> list[pb.Delivery]:
    request = pb.ListDeliveriesRequest(webhook_id=webhook_id)
    return list((await callers.alerts.ListDeliveries(request, metadata=callers.person())).deliveries)


@pytest.mark.usefixtures("moving_clock")
async def test_a_receiver_that_fails_twice_gets_each_alert_once_signed(callers: Callers) -> None:
    async with receiving(lambda number: (503, 302)[number] if number < 2 else 204) as receiver:
        made = await create(callers, receiver.url)
        for number in range(5):
            await raise_alert(callers, f"model-{number}")
        await receiver.until(5)
        status = await settled_status(callers, made.webhook.webhook_id)
        delivered = [message for message in receiver.messages if message.status == 204]
        assert all(message.is_signed_with(made.secret) for message in receiver.messages)
        assert not delivered[0].is_signed_with("whsec_" + "A" * 44)
        assert set(receiver.delivered().values()) == {1}
        assert sorted(message.content["data"]["sequence"] for message in delivered) == [1, 2, 3, 4, 5]
        assert {message.content["type"] for message in delivered} == {"alert.unpriced_model"}
        assert (status.failures, status.failed_deliveries, status.last_http_status) == (0, 0, 204)
        # The repeated attempts bore the id of the first.
        assert len({message.message_id for message in receiver.messages}) == 5


@pytest.mark.usefixtures("moving_clock")
async def test_one_that_never_answers_slows_nothing(callers: Callers) -> None:
    async with receiving(always(0)) as silent, receiving(always(200)) as good:
        stuck = await create(callers, silent.url)
        await create(callers, good.url)
        for number in range(10):
            await raise_alert(callers, f"model-{number}")
        await good.until(10)
        held = hold_pb2.HoldRequest(item=hold_item("a/1"))
        await callers.holds.Hold(held, metadata=callers.service())
        settled = hold_pb2.SettleRequest(item=settle_item("a/1"))
        await callers.holds.Settle(settled, metadata=callers.service())
        # All ten went round while the first messages to the silent one were still open: it has its share and no more.
        assert len(silent.messages) <= 2
        assert (await status_of(callers, stuck.webhook.webhook_id)).pending_deliveries == 10
        assert set(good.delivered().values()) == {1}


@pytest.mark.usefixtures("moving_clock")
async def test_a_delivery_is_given_up_after_its_attempts_and_can_be_taken_up_again(callers: Callers) -> None:
    async with receiving(lambda number: 500 if number < 5 else 200) as receiver:
        made = await create(callers, receiver.url)
        webhook_id = made.webhook.webhook_id
        await raise_alert(callers, "model-0")
        status = await settled_status(callers, webhook_id)
        assert (status.failed_deliveries, status.failures, status.last_error) == (1, 5, "the receiver answered 500")
        (failed,) = await deliveries_of(callers, webhook_id)
        assert (failed.state, failed.attempts) == (pb.DELIVERY_STATE_FAILED, 5)
        again = pb.RedeliverRequest(webhook_id=webhook_id, delivery_id=failed.delivery_id)
        await callers.alerts.Redeliver(again, metadata=callers.person())
        await receiver.until(1)
        assert (await settled_status(callers, webhook_id)).failed_deliveries == 0
        assert {message.message_id for message in receiver.messages} == {failed.delivery_id}
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await callers.alerts.Redeliver(again, metadata=callers.person())
        assert error_from_rpc(caught.value).reason == "WRONG_STATE"


@pytest.mark.usefixtures("moving_clock")
async def test_two_replicas_deliver_once(callers: Callers, settings: CostSettings, clock: ManualClock) -> None:
    async with receiving(always(200)) as receiver, build(settings, clock=clock) as other:
        await create(callers, receiver.url)
        async with grpc.aio.insecure_channel(other.address) as channel:
            replica = Callers(channel)
            await asyncio.gather(
                *[raise_alert((callers, replica)[number % 2], f"model-{number}") for number in range(30)]
            )
            await receiver.until(30)
    assert len(receiver.messages) == 30
    assert set(receiver.delivered().values()) == {1}


@pytest.mark.usefixtures("moving_clock")
async def test_a_webhook_hears_what_it_asked_for(callers: Callers) -> None:
    async with receiving(always(200)) as receiver, receiving(always(200)) as other, receiving(always(200)) as off:
        await create(callers, receiver.url, kinds=[pb.ALERT_KIND_UNPRICED_MODEL])
        await create(callers, other.url, kinds=[pb.ALERT_KIND_ANOMALY])
        disabled = await create(callers, off.url, disabled=True)
        await raise_alert(callers, "model-0")
        await raise_alert(callers, "model-1", project_id="prj_2")
        await receiver.until(1)
        change = pb.UpdateWebhookRequest(
            webhook_id=disabled.webhook.webhook_id,
            webhook=pb.Webhook(),
            update_mask=field_mask_pb2.FieldMask(paths=["disabled"]),
        )
        await callers.alerts.UpdateWebhook(change, metadata=callers.person())
        await raise_alert(callers, "model-2")
        await off.until(1)
        await receiver.until(2)
    assert (len(receiver.messages), other.messages, len(off.messages)) == (2, [], 1)


async def test_a_test_message_tells_what_came_of_it(callers: Callers) -> None:
    async with receiving(lambda number: (204, 404)[number]) as receiver:
        made = await create(callers, receiver.url)
        request = pb.TestWebhookRequest(webhook_id=made.webhook.webhook_id)
        first = await callers.alerts.TestWebhook(request, metadata=callers.person())
        second = await callers.alerts.TestWebhook(request, metadata=callers.person())
    assert (first.delivered, first.http_status, first.error) == (True, 204, "")
    assert (second.delivered, second.http_status, second.error) == (False, 404, "the receiver answered 404")
    assert receiver.messages[0].content["type"] == "webhook.test"
    assert receiver.messages[0].is_signed_with(made.secret)
    gone = await callers.alerts.TestWebhook(request, metadata=callers.person())
    assert not gone.delivered
    assert gone.error


async def test_the_secret_is_shown_once(callers: Callers) -> None:
    made = await create(callers, "http://127.0.0.1:1/alerts")
    shown = await callers.alerts.ListWebhooks(pb.ListWebhooksRequest(), metadata=callers.person())
    assert made.secret.startswith("whsec_")
    assert made.secret not in str(shown)
    assert "secret" not in pb.Webhook.DESCRIPTOR.fields_by_name


async def refusal(callers: Callers, url: str = "http://127.0.0.1:1/", **fields: Any) -> DomainError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await create(callers, url, **fields)
    return error_from_rpc(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "https://",
        "https://user:word@example.com/",
        "https://example.com/#part",
        "https://exa mple.com/",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://[::1/",
        "nonsense",
        "https://example.com/" + "x" * 2_048,
    ],
)
async def test_a_url_that_is_none_is_refused(callers: Callers, url: str) -> None:
    error = await refusal(callers, url)
    assert (error.code, error.violations[0].field) == ("INVALID_ARGUMENT", "webhook.url")


async def test_wrong_webhooks_are_refused_and_nothing_is_written(callers: Callers) -> None:
    assert (await refusal(callers, budget_ids=["bud_unknown"])).reason == "NOT_FOUND"
    made = [await create(callers, "http://127.0.0.1:1/") for _ in range(3)][-1]
    error = await refusal(callers)
    assert error.reason == "LIMIT_REACHED"
    assert "LLMLAB_COST_MAX_WEBHOOKS_PER_PROJECT" in error.message
    listed = await callers.alerts.ListWebhooks(pb.ListWebhooksRequest(page_size=2), metadata=callers.person())
    assert len(listed.webhooks) == 2
    assert listed.next_page_token
    webhook_id = made.webhook.webhook_id
    foreign, reader = callers.person("prj_2"), callers.person("prj_1", "READ")
    for metadata, reason in ((foreign, "NOT_FOUND"), (reader, "PERMISSION_DENIED")):
        for call in (
            callers.alerts.GetWebhook(pb.GetWebhookRequest(webhook_id=webhook_id), metadata=metadata),
            callers.alerts.DeleteWebhook(pb.DeleteWebhookRequest(webhook_id=webhook_id), metadata=metadata),
            callers.alerts.TestWebhook(pb.TestWebhookRequest(webhook_id=webhook_id), metadata=metadata),
            callers.alerts.ListDeliveries(pb.ListDeliveriesRequest(webhook_id=webhook_id), metadata=metadata),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert error_from_rpc(caught.value).reason == reason
    await callers.alerts.DeleteWebhook(
        pb.DeleteWebhookRequest(webhook_id=made.webhook.webhook_id), metadata=callers.person()
    )
    await create(callers, "http://127.0.0.1:1/")


async def test_by_default_nothing_is_sent_to_what_is_not_public(settings: CostSettings, clock: ManualClock) -> None:
    strict = settings.model_copy(update={"webhook_private_receivers": False})
    async with build(strict, clock=clock) as server, grpc.aio.insecure_channel(server.address) as channel:
        callers = Callers(channel)
        for url in (
            "http://example.com/",
            "https://127.0.0.1/",
            "https://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/",
        ):
            error = await refusal(callers, url)
            assert error.violations[0].field == "webhook.url"
            assert "LLMLAB_COST_WEBHOOK_PRIVATE_RECEIVERS" in error.message
        # A name is looked up when something is sent.
        made = await create(callers, "https://localhost/")
        request = pb.TestWebhookRequest(webhook_id=made.webhook.webhook_id)
        tested = await callers.alerts.TestWebhook(request, metadata=callers.person())
    assert not tested.delivered
    assert "not public" in tested.error


async def test_secrets_outlive_a_change_of_the_shared_key(
    settings: CostSettings, clock: ManualClock, open_database: OpenDatabase
) -> None:
    old, new = SERVICE_KEY, "7f" * 32

    @asynccontextmanager
    async def service(*keys: str) -> AsyncIterator[Callers]:
        """The service with these keys, and a peer that is at the same step."""
        renewed = settings.model_copy(
            update={"auth_service_key": SecretStr(",".join(keys)), "webhook_reseal_interval_s": 0.01}
        )
        async with build(renewed, clock=clock) as server, grpc.aio.insecure_channel(server.address) as channel:
            yield Callers(channel, keys[0])

    async with receiving(always(200)) as receiver:
        async with service(old, new) as callers:
            made = await create(callers, receiver.url)
        store = WebhookStore(await open_database("cost"), max_per_project=3, max_setting="")
        before = (await store.get("prj_1", made.webhook.webhook_id)).sealed_secret
        async with service(new, old), asyncio.timeout(30):
            while (await store.get("prj_1", made.webhook.webhook_id)).sealed_secret == before:  # noqa: ASYNC110 (a look)
                await asyncio.sleep(0.01)
        async with service(new) as callers:
            await raise_alert(callers, "model-1")
            await receiver.until(1)
        assert receiver.messages[0].is_signed_with(made.secret)
