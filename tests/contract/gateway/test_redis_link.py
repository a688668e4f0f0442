"""The gateway's connection to Redis: what counts as its loss, and who is told."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from services.gateway.redis_link import LinkRules, RedisAway, RedisLink

PATIENT = LinkRules(timeout_s=20.0, probe_every_s=0.01)


async def test_a_refusal_is_no_loss_and_is_said_once(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with RedisLink.open(redis_url, PATIENT) as link:
        for _ in range(3):
            with pytest.raises(RedisAway):
                await link.ask(lambda: link.client.eval("return redis.call('NO_SUCH_COMMAND')", 0))
        assert link.here
        assert await link.ask(link.client.ping)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_whoever_waits_is_told_of_a_loss_at_once(redis_url: str) -> None:
    async def lose() -> None:
        raise RedisConnectionError("gone")

    async with RedisLink.open(redis_url, PATIENT) as link:
        waiting = asyncio.create_task(link.ask(lambda: link.client.blpop(["nobody:pushes"], timeout=19)))
        # Before Python 3.12, a cancel gets lost that meets asyncio.wait_for at its end, as in the client's sending.
        while not (await link.ask(lambda: link.client.info("clients")))["blocked_clients"]:
            pass
        with pytest.raises(RedisAway):
            await link.ask(lose)
        with pytest.raises(RedisAway):
            await asyncio.wait_for(waiting, 5)
        await asyncio.wait_for(link.back.wait(), 20)
        assert await link.ask(link.client.ping)
