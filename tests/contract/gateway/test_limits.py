"""One suite over every store of limits, and what happens when Redis goes and comes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from services.gateway.limits import LimitStore, LocalLimits, Take
from services.gateway.redis_limits import RedisLimits
from services.gateway.redis_link import LinkRules, RedisLink
from services.runtime.clock import SYSTEM_CLOCK, ManualClock
from tests.support.redis import RedisServer

PATIENT = LinkRules(timeout_s=10.0, probe_every_s=0.01)


@pytest.fixture(params=["local", "redis", "two replicas"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[list[LimitStore]]:
    """Stores that have to behave as one."""
    if request.param == "local":
        yield [LocalLimits(SYSTEM_CLOCK)]
        return
    url = request.getfixturevalue("redis_url")
    async with RedisLink.open(url, PATIENT) as link, RedisLink.open(url, PATIENT) as other:
        replicas = [RedisLimits(each, LocalLimits(SYSTEM_CLOCK)) for each in (link, other)]
        stores: list[LimitStore] = [*replicas]
        yield stores[:1] if request.param == "redis" else stores
        for replica in replicas:
            await replica.close()


def slow(amount: float, key: str = "k") -> Take:
    """From a bucket of ten that gains one every 100 s: nothing comes back during a test."""
    return Take(key, 100_000_000, 1_000_000_000, amount)


async def settled(store: LimitStore) -> None:
    """Wait for corrections that are on their way."""
    await store.take((slow(0, "other"),))


async def test_exactly_the_burst_is_granted_and_then_the_wait_is_told(stores: list[LimitStore]) -> None:
    waits = [await stores[turn % len(stores)].take((slow(1),)) for turn in range(12)]
    assert waits[:10] == [0] * 10
    assert all(90_000 < wait <= 100_000 for wait in waits[10:])


async def test_a_crowd_is_granted_exactly_the_burst(stores: list[LimitStore]) -> None:
    waits = await asyncio.gather(*(stores[turn % len(stores)].take((slow(1),)) for turn in range(300)))
    assert waits.count(0) == 10


async def test_all_or_nothing(stores: list[LimitStore]) -> None:
    store = stores[0]
    assert await store.take((slow(9, "a"),)) == 0
    assert await store.take((slow(5, "b"), slow(2, "a"))) > 0
    assert await store.take((slow(10, "b"), slow(1, "a"))) == 0


async def test_what_was_not_used_is_given_back_and_more_makes_a_debt(stores: list[LimitStore]) -> None:
    store = stores[0]
    assert await store.take((slow(10),)) == 0
    store.correct((slow(-4),))
    await settled(store)
    assert await stores[-1].take((slow(4),)) == 0
    store.correct((slow(10),))
    await settled(store)
    assert 1_090_000 < await stores[-1].take((slow(1),)) <= 1_100_000


async def test_how_full_a_bucket_is_can_be_seen_without_taking(stores: list[LimitStore]) -> None:
    assert await stores[-1].full_in_us((slow(0), slow(0, "b"))) == [0, 0]
    await stores[0].take((slow(4),))
    for _ in range(2):
        full, other = await stores[-1].full_in_us((slow(0), slow(0, "b")))
        assert other == 0
        assert 5.9 < slow(0).left(full) <= 6.1
    await stores[0].take((slow(6),))
    assert slow(0).left((await stores[-1].full_in_us((slow(0),)))[0]) < 0.1


async def test_giving_back_never_fills_above_the_burst(stores: list[LimitStore]) -> None:
    stores[0].correct((slow(-50),))
    await settled(stores[0])
    assert await stores[0].take((slow(10),)) == 0
    assert await stores[0].take((slow(1),)) > 0


async def test_four_replicas_whose_clocks_are_wrong_admit_what_one_node_does_in_one_round_trip_each(
    own_redis: RedisServer,
) -> None:
    async with AsyncExitStack() as stack:
        replicas: list[RedisLimits] = []
        for hours in (0, 1, -2, 24):
            clock = ManualClock(1_800_000_000_000_000 + hours * 3_600_000_000)
            own = await stack.enter_async_context(RedisLink.open(own_redis.url, PATIENT))
            replicas.append(RedisLimits(own, LocalLimits(clock)))
        link = await stack.enter_async_context(RedisLink.open(own_redis.url, PATIENT))
        await replicas[0].take((slow(0, "other"),))
        before = await script_calls(link)
        takes = [replicas[turn % 4].take((slow(1), slow(3, "tokens"))) for turn in range(200)]
        waits = await asyncio.gather(*takes)
        # One node grants three: ten requests, but tokens for three calls.
        assert waits.count(0) == 3
        assert await script_calls(link) - before <= 200
        alone = await script_calls(link)
        for turn in range(10):
            await replicas[turn % 4].take((slow(1), slow(3, "tokens")))
        assert await script_calls(link) - alone == 10
        for replica in replicas:
            await replica.close()


async def script_calls(link: RedisLink) -> int:
    counts = await link.client.info("commandstats")
    return int(counts["cmdstat_evalsha"]["calls"])


async def test_without_redis_a_share_is_kept_and_redis_is_taken_up_again(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "services.gateway.redis_link")
    async with RedisLink.open(own_redis.url, PATIENT) as link:
        limits = RedisLimits(link, LocalLimits(SYSTEM_CLOCK), share_without=0.5)
        assert await limits.take((slow(1),)) == 0
        own_redis.kill()
        waits = await asyncio.gather(*(limits.take((slow(1),)) for _ in range(50)))
        assert waits.count(0) == 5
        limits.correct((slow(-1),))
        assert await limits.take((slow(1),)) == 0
        assert not link.here
        own_redis.start()
        await asyncio.wait_for(link.back.wait(), 20)
        waits = await asyncio.gather(*(limits.take((slow(1),)) for _ in range(50)))
        assert waits.count(0) == 10
        await limits.close()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
