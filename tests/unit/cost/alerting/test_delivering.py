"""The loop that delivers: bounded posts under way, a share for each webhook, and no fault that ends it."""

import asyncio
import random
from collections import Counter
from collections.abc import Collection, Mapping

from services.cost.alerting.alerts import Alert, unpriced
from services.cost.alerting.deliveries import Delivery, DeliveryState, Outcome, Parcel
from services.cost.alerting.delivering import Deliverer, DeliveringPolicy, Sender
from services.cost.alerting.sealing import Sealer
from services.cost.alerting.signing import new_secret
from services.cost.alerting.webhooks import Webhook
from services.runtime.backoff import Backoff
from services.runtime.clock import ManualClock
from services.runtime.errors import Unavailable
from services.runtime.hints import LocalHints

SEALER = Sealer([b"k" * 32])


def parcel(number: int, webhook_id: str) -> Parcel:
    webhook = Webhook(
        webhook_id, "prj_1", f"https://{webhook_id}/", SEALER.seal(new_secret(), webhook_id), (), (), False, 0
    )
    alert = Alert(f"alr_{number}", number, 0, unpriced("a/b", 0))
    delivery = Delivery(
        f"dlv_{number}", webhook_id, alert.alert_id, number, DeliveryState.PENDING, 1, 0, 0, 0, Outcome()
    )
    return Parcel(delivery, webhook, alert)


class Queue:
    """Deliveries in memory, of which the first claims fail; `done` is set when so many (all) are concluded."""

    def __init__(self, parcels: list[Parcel], *, failures: int = 0, until: int = 0) -> None:
        self.waiting = parcels
        self.failures = failures
        self.concluded: list[tuple[str, bool, int]] = []
        self.done = asyncio.Event()
        self._count = until or len(parcels)

    async def claim(self, busy: Collection[str], limit: int) -> list[Parcel]:
        if self.failures:
            self.failures -= 1
            raise (Unavailable("DEPENDENCY_UNAVAILABLE", "away") if self.failures % 2 else ZeroDivisionError())
        taken: dict[str, Parcel] = {}
        for one in self.waiting:
            if one.webhook.webhook_id not in busy and len(taken) < limit:
                taken.setdefault(one.webhook.webhook_id, one)
        self.waiting = [one for one in self.waiting if one not in taken.values()]
        return list(taken.values())

    async def conclude(self, delivery: Delivery, outcome: Outcome, pause_us: int) -> DeliveryState:
        self.concluded.append((delivery.delivery_id, outcome.delivered, pause_us))
        if len(self.concluded) == self._count:
            self.done.set()
        return DeliveryState.DELIVERED


class Posts:
    """Receivers in memory; those of `silent` never answer. Remembers the most that was under way."""

    def __init__(self, silent: str = "") -> None:
        self.most = 0
        self.most_of: Counter[str] = Counter()
        self._silent = silent
        self._under_way: Counter[str] = Counter()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        self._under_way[url] += 1
        self.most = max(self.most, self._under_way.total())
        self.most_of[url] = max(self.most_of[url], self._under_way[url])
        try:
            await (asyncio.Event().wait() if url == f"https://{self._silent}/" else asyncio.sleep(0))
        finally:
            self._under_way[url] -= 1
        return Outcome(200)


def deliverer(queue: Queue, posts: Posts, *, most: int = 3, each: int = 2) -> Deliverer:
    policy = DeliveringPolicy(most, each, 0.005, Backoff(1, 10))
    sender = Sender(posts, SEALER, ManualClock())
    return Deliverer(queue, sender, LocalHints(), policy, topic="deliveries", rng=random.Random(1))


async def test_posts_under_way_are_bounded_in_all_and_for_each_webhook() -> None:
    queue, posts = Queue([parcel(number, f"whk{number % 4}") for number in range(40)]), Posts()
    async with asyncio.timeout(30), deliverer(queue, posts).running():
        await queue.done.wait()
    assert posts.most == 3
    assert max(posts.most_of.values()) <= 2
    assert Counter(one for one, _, _ in queue.concluded) == Counter(f"dlv_{number}" for number in range(40))


async def test_a_silent_receiver_keeps_its_share_and_others_go_on() -> None:
    parcels = [parcel(number, ("silent", "good")[number % 2]) for number in range(20)]
    queue, posts = Queue(parcels, until=10), Posts(silent="silent")
    async with asyncio.timeout(30), deliverer(queue, posts).running():
        await queue.done.wait()
    assert posts.most_of["https://silent/"] == 2
    assert {one.webhook.webhook_id for one in queue.waiting} == {"silent"}


async def test_a_store_that_fails_for_a_while_ends_nothing() -> None:
    queue = Queue([parcel(1, "whk1")], failures=4)
    async with asyncio.timeout(30), deliverer(queue, Posts()).running():
        await queue.done.wait()
    assert queue.concluded[0][:2] == ("dlv_1", True)


async def test_a_secret_that_cannot_be_opened_is_a_failure_of_the_delivery() -> None:
    sender = Sender(Posts(), Sealer([b"other" * 8]), ManualClock())
    outcome = await sender.send(parcel(1, "whk1").webhook, "dlv_1", {})
    assert not outcome.delivered
    assert "LLMLAB_COST_WEBHOOK_KEY" in outcome.error
