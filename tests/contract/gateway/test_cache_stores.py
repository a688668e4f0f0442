"""One suite over every store of answers, and what happens when Redis goes and comes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from services.gateway.cache import CacheStore, LocalCache
from services.gateway.redis_cache import RedisCache
from services.gateway.redis_link import LinkRules, RedisLink
from services.runtime.clock import SYSTEM_CLOCK
from tests.support.redis import RedisServer

PATIENT = LinkRules(timeout_s=10.0, probe_every_s=0.01)
LONG_S = 60.0


@pytest.fixture(params=["local", "redis", "two replicas"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[tuple[CacheStore, CacheStore]]:
    """A store to write to, and one to read from."""
    if request.param == "local":
        local = LocalCache(SYSTEM_CLOCK, 1_000_000)
        yield local, local
        return
    url = request.getfixturevalue("redis_url")
    async with RedisLink.open(url, PATIENT) as link, RedisLink.open(url, PATIENT) as other:
        first, second = RedisCache(link), RedisCache(other)
        yield first, first if request.param == "redis" else second
        await first.close()
        await second.close()


async def test_what_was_kept_is_found_as_it_was(stores: tuple[CacheStore, CacheStore]) -> None:
    writer, reader = stores
    value = bytes(range(256)) * 100
    await writer.put("k", value, LONG_S)
    assert await reader.get("k") == value
    assert await reader.get("other") is None


async def test_the_newest_value_takes_the_place_of_the_old(stores: tuple[CacheStore, CacheStore]) -> None:
    writer, reader = stores
    await writer.put("k", b"old" * 1_000, LONG_S)
    await writer.put("k", b"new", LONG_S)
    assert await reader.get("k") == b"new"


async def test_a_value_ends_with_its_time(stores: tuple[CacheStore, CacheStore]) -> None:
    writer, reader = stores
    await writer.put("k", b"value", 0.001)
    async with asyncio.timeout(20):
        while await reader.get("k") is not None:
            pass


async def test_a_crowd_of_look_ups_gets_each_its_own(stores: tuple[CacheStore, CacheStore]) -> None:
    writer, reader = stores
    await asyncio.gather(*(writer.put(str(number), str(number).encode(), LONG_S) for number in range(0, 200, 2)))
    found = await asyncio.gather(*(reader.get(str(number)) for number in range(200)))
    assert found == [None if number % 2 else str(number).encode() for number in range(200)]


async def test_without_redis_nothing_is_found_and_redis_is_taken_up_again(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "services.gateway.redis_link")
    async with RedisLink.open(own_redis.url, PATIENT) as link:
        cache = RedisCache(link)
        await cache.put("k", b"value", LONG_S)
        own_redis.kill()
        assert await asyncio.gather(*(cache.get("k") for _ in range(100))) == [None] * 100
        await cache.put("k", b"value", LONG_S)
        own_redis.start()
        await asyncio.wait_for(link.back.wait(), 20)
        await cache.put("k", b"again", LONG_S)
        assert await cache.get("k") == b"again"
        await cache.close()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_a_full_redis_keeps_nothing_and_counts_as_there(own_redis: RedisServer) -> None:
    async with RedisLink.open(own_redis.url, PATIENT) as link:
        cache = RedisCache(link)
        await link.client.config_set("maxmemory", "1")
        await cache.put("k", b"value", LONG_S)
        assert link.here
        assert await cache.get("k") is None
        await cache.close()
