"""Delivering alerts to webhooks: a loop in every replica that claims what is due and posts it.

A receiver that never answers takes up its own few slots and nothing else: claims leave out webhooks that have all their
attempts under way, and every failure moves the next attempt further away.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import orjson

from services.cost.alerting.alerts import iso_time, payload_of
from services.cost.alerting.deliveries import Delivery, DeliveryState, Outcome, Parcel
from services.cost.alerting.sealing import Sealer
from services.cost.alerting.signing import signed_headers
from services.cost.alerting.webhooks import Webhook
from services.runtime import telemetry
from services.runtime.backoff import Backoff
from services.runtime.clock import Clock
from services.runtime.errors import DomainError
from services.runtime.failpoints import failpoint
from services.runtime.hints import Hints, Subscription
from services.runtime.ids import new_id

_LAST_WORDS_S = 2.0
"""What is being posted when the service stops gets so long; what is cut is delivered again by another replica."""

_log = logging.getLogger(__name__)


class Receivers(Protocol):
    """Where messages are posted."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Send one message, once, within a bounded time; never raises for what the receiver does."""
        ...


class Deliveries(Protocol):
    """Where deliveries are kept."""

    async def claim(self, busy: Collection[str], limit: int) -> list[Parcel]:
        """Claim at most `limit` due deliveries, one of each webhook and none of the `busy` ones."""
        ...

    async def conclude(self, delivery: Delivery, outcome: Outcome, pause_us: int) -> DeliveryState:
        """Put down what came of a claimed attempt; a failed one is followed by another after the pause, or by none."""
        ...


class Sender:
    """Signs messages and posts them."""

    def __init__(self, receivers: Receivers, sealer: Sealer, clock: Clock) -> None:
        self._receivers = receivers
        self._sealer = sealer
        self._clock = clock

    async def send(self, webhook: Webhook, message_id: str, payload: Mapping[str, object]) -> Outcome:
        """Post a message to a webhook, once."""
        try:
            secret = self._sealer.open(webhook.sealed_secret, webhook.webhook_id)
        except DomainError as error:
            return Outcome(error=error.message)
        body = orjson.dumps(payload)
        headers = signed_headers(secret, message_id, body, self._clock.now_us() // 1_000_000)
        return await self._receivers.post(webhook.url, headers, body)

    async def send_test(self, webhook: Webhook) -> tuple[Outcome, int]:
        """Post a test message; how long it took is in microseconds."""
        data = {"webhook_id": webhook.webhook_id, "message": "This is a test; no alert was raised."}
        payload = {"type": "webhook.test", "timestamp": iso_time(self._clock.now_us()), "data": data}
        started_s = monotonic()
        outcome = await self.send(webhook, new_id("dlv"), payload)
        return outcome, round((monotonic() - started_s) * 1_000_000)


@dataclass(frozen=True, slots=True)
class DeliveringPolicy:
    """Limits and intervals of the loop."""

    under_way_max: int
    """Posts under way in this process."""
    under_way_each: int
    """Posts under way to one webhook."""
    poll_s: float
    """How often deliveries are looked for that nobody hinted at: above all those whose next attempt is due."""
    backoff: Backoff
    """Pauses between the attempts of one delivery."""


class Deliverer:
    """The loop. Several replicas may run it: a delivery is claimed by one of them at a time."""

    def __init__(
        self,
        store: Deliveries,
        sender: Sender,
        hints: Hints,
        policy: DeliveringPolicy,
        *,
        topic: str,
        rng: random.Random,
    ) -> None:
        """`topic` is hinted at when there is something new to deliver."""
        self._store = store
        self._sender = sender
        self._hints = hints
        self._policy = policy
        self._topic = topic
        self._rng = rng
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way: Counter[str] = Counter()
        self._delivered = telemetry.counter("webhook_attempts", outcome="delivered")
        self._failed = telemetry.counter("webhook_attempts", outcome="failed")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Deliver for as long as the context lasts."""
        loop = asyncio.create_task(self._run(), name="webhook-deliveries")
        try:
            yield
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=_LAST_WORDS_S)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self) -> None:
        with self._hints.subscribe(self._topic) as news:
            while True:
                if not await self._start_some(news):
                    await news.wait(self._policy.poll_s)

    async def _start_some(self, news: Subscription) -> bool:
        """Claim what there is room for and begin to post it; False where there was nothing."""
        room = self._policy.under_way_max - len(self._tasks)
        if room <= 0:
            return False
        busy = [webhook_id for webhook_id, count in self._under_way.items() if count >= self._policy.under_way_each]
        try:
            parcels = await self._store.claim(busy, room)
        except DomainError as error:
            _log.warning("deliveries could not be claimed now: %s", error)
            return False
        except Exception:  # noqa: BLE001 (any fault is logged; without the loop nothing would be delivered any more)
            _log.exception("deliveries could not be claimed")
            return False
        for parcel in parcels:
            self._start(parcel, news)
        return bool(parcels)

    def _start(self, parcel: Parcel, news: Subscription) -> None:
        webhook_id = parcel.webhook.webhook_id
        task = asyncio.create_task(self._deliver(parcel), name=f"deliver-{parcel.delivery.delivery_id}")
        self._tasks.add(task)
        self._under_way[webhook_id] += 1

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._under_way[webhook_id] -= 1
            if not self._under_way[webhook_id]:
                del self._under_way[webhook_id]
            # There is room again.
            news.wake()

        task.add_done_callback(ended)

    async def _deliver(self, parcel: Parcel) -> None:
        delivery = parcel.delivery
        try:
            outcome = await self._sender.send(parcel.webhook, delivery.delivery_id, payload_of(parcel.alert))
            failpoint("cost.webhook_posted")
            pause_us = self._policy.backoff.delay_ms(delivery.attempts, self._rng) * 1_000
            state = await self._store.conclude(delivery, outcome, pause_us)
            (self._delivered if outcome.delivered else self._failed).add()
            if not outcome.delivered:
                _log.info(
                    "attempt %d of delivery %s failed and leaves it %s: %s",
                    delivery.attempts,
                    delivery.delivery_id,
                    state.value,
                    outcome.error,
                )
        except DomainError as error:
            _log.warning("delivery %s will be made again, its outcome was not stored: %s", delivery.delivery_id, error)
        except Exception:  # noqa: BLE001 (a fault in one delivery is logged and ends no other; its claim runs out)
            _log.exception("delivery %s was not concluded", delivery.delivery_id)
