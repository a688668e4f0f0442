"""The gateway's connection to Redis: what counts as its loss, and who is told."""

from __future__ import annotations

import asyncio
import time

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from services.gateway.redis_link import QUESTIONS_MAX, LinkRules, RedisAway, RedisLink

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
        while not (await link.ask(lambda: link.client.info("clients")))["blocked_clients"]:
            pass
        with pytest.raises(RedisAway):
            await link.ask(lose)
        with pytest.raises(RedisAway):
            await asyncio.wait_for(waiting, 5)
        await asyncio.wait_for(link.back.wait(), 20)
        assert await link.ask(link.client.ping)


async def test_redis_comes_back_after_questions_that_were_late_together(redis_url: str) -> None:
    # Whoever notices the loss first cuts the others' time short, and some of theirs is just over as well.
    async with RedisLink.open(redis_url, LinkRules(timeout_s=1.0, probe_every_s=0.01)) as link:
        asyncio.get_running_loop().call_later(0.5, time.sleep, 1.0)
        told = await asyncio.gather(
            *(link.ask(lambda: link.client.blpop(["nobody:pushes"], timeout=19)) for _ in range(5)),
            return_exceptions=True,
        )
        assert [type(each) for each in told] == [RedisAway] * 5
        await asyncio.wait_for(link.back.wait(), 20)
        assert await link.ask(link.client.ping)


async def test_who_connects_waits_for_no_answers_but_its_own(redis_url: str) -> None:
    async with RedisLink.open(redis_url, PATIENT) as link:
        before = await introductions(link)
        await asyncio.gather(*(link.ask(link.client.ping) for _ in range(QUESTIONS_MAX)))
        assert await introductions(link) == before


async def introductions(link: RedisLink) -> int:
    """HELLO and CLIENT of all kinds, of all who were ever connected."""
    said = await link.ask(lambda: link.client.info("commandstats"))
    return sum(each["calls"] for name, each in said.items() if name.startswith(("cmdstat_hello", "cmdstat_client")))


async def test_who_is_cancelled_stops_asking_wherever_the_question_is(redis_url: str) -> None:
    # Before Python 3.12, a cancel gets lost that meets asyncio.wait_for at its end.
    async def ask_on(link: RedisLink) -> None:
        while True:
            await link.ask(link.client.ping)

    async with RedisLink.open(redis_url, PATIENT) as link:
        for steps in range(80):
            asking = asyncio.create_task(ask_on(link))
            for _ in range(steps):
                await asyncio.sleep(0)
            asking.cancel()
            _, lost = await asyncio.wait([asking], timeout=20)
            assert not lost
            assert asking.cancelled()
        assert await link.ask(link.client.ping)


async def test_more_questions_than_there_are_connections_wait_for_their_turn(redis_url: str) -> None:
    async with RedisLink.open(redis_url, PATIENT) as link:
        answers = await asyncio.gather(*(link.ask(link.client.ping) for _ in range(5 * QUESTIONS_MAX)))
        clients = (await link.ask(lambda: link.client.info("clients")))["connected_clients"]
    assert all(answers)
    # The server is this session's, and other tests may be connected to it.
    assert len(answers) > clients
