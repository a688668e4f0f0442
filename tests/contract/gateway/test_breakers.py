"""One suite over circuit breakers that stand alone and those that replicas share, and what happens without Redis."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from services.gateway.breaker import BreakerRules, Breakers, BreakerState, BreakerView
from services.gateway.breaker_share import BreakerShare, SharedBreaker
from services.gateway.failures import CallFailed, Failure
from services.gateway.redis_breakers import RedisBreakers
from services.gateway.redis_link import LinkRules, RedisLink
from services.runtime.clock import ManualClock
from tests.support.gateway import attempt_of, call
from tests.support.redis import RedisServer

RULES = BreakerRules(consecutive_failures=3, open_s=60.0, open_max_s=400.0)
PATIENT = LinkRules(timeout_s=10.0, probe_every_s=0.01)
NAME = "scripted/model"


@dataclass
class Replica:
    """The breakers of one gateway, on a clock of its own."""

    clock: ManualClock
    breakers: Breakers
    share: BreakerShare | None = None

    @classmethod
    def over(cls, link: RedisLink | None) -> Replica:
        # Replicas' clocks have nothing in common.
        clock = ManualClock()
        clock.advance(id(clock) % 1_000)
        share = None if link is None else RedisBreakers(link)
        return cls(clock, Breakers(clock, RULES, share=share), share)

    async def call(self, reason: str = "") -> None:
        """One call; it works, or the provider fails it so. Raises CallFailed where it is refused."""
        attempt = attempt_of(call())
        async with self.breakers.guarded(attempt):
            attempt.dispatched = True
            attempt.failure = Failure(reason, "", dispatched=True) if reason else None

    async def hears(self) -> None:
        if isinstance(self.share, RedisBreakers):
            await self.share.exchange(self.breakers)

    def view(self) -> BreakerView:
        (view,) = self.breakers.views()
        return view


@dataclass
class Replicas:
    """Gateways that have to behave as one."""

    all: list[Replica]

    @property
    def first(self) -> Replica:
        return self.all[0]

    @property
    def last(self) -> Replica:
        return self.all[-1]

    async def talk(self) -> None:
        """Everybody tells and hears what is new."""
        for replica in self.all + self.all:
            await replica.hears()

    async def fail(self) -> None:
        """The provider fails calls of the first one until its breaker opens."""
        for _ in range(3):
            await self.first.call("PROVIDER_ERROR")
        await self.talk()

    def wait(self, seconds: float) -> None:
        for replica in self.all:
            replica.clock.advance(seconds)


@pytest.fixture(params=["alone", "redis", "two replicas"])
async def replicas(request: pytest.FixtureRequest) -> AsyncIterator[Replicas]:
    if request.param == "alone":
        yield Replicas([Replica.over(None)])
        return
    url = request.getfixturevalue("redis_url")
    async with AsyncExitStack() as stack:
        links = [
            await stack.enter_async_context(RedisLink.open(url, PATIENT))
            for _ in range(1 if request.param == "redis" else 2)
        ]
        yield Replicas([Replica.over(link) for link in links])


async def refused(replica: Replica) -> Failure:
    with pytest.raises(CallFailed) as error:
        await replica.call()
    return error.value.failure


async def test_what_opens_at_one_is_open_at_all(replicas: Replicas) -> None:
    await replicas.fail()
    for replica in replicas.all:
        failure = await refused(replica)
        assert (failure.reason, failure.dispatched) == ("CIRCUIT_OPEN", False)
        assert 44_000 <= failure.retry_after_ms <= 60_000
        assert replica.view().state is BreakerState.OPEN
        assert replica.breakers.is_open(attempt_of(call()).deployment)


async def test_one_probe_at_a_time_and_its_success_closes_all(replicas: Replicas) -> None:
    await replicas.fail()
    replicas.wait(61)
    attempt = attempt_of(call())
    async with replicas.first.breakers.guarded(attempt):
        assert (await refused(replicas.last)).reason == "CIRCUIT_OPEN"
        attempt.dispatched = True
    await replicas.talk()
    for replica in replicas.all:
        await replica.call()
        assert replica.view().state is BreakerState.CLOSED


async def test_a_probe_that_fails_opens_all_for_longer(replicas: Replicas) -> None:
    await replicas.fail()
    replicas.wait(61)
    await replicas.last.call("PROVIDER_ERROR")
    await replicas.talk()
    for replica in replicas.all:
        assert 89_000 <= (await refused(replica)).retry_after_ms <= 120_000


async def test_a_probe_that_says_nothing_leaves_the_right_to_others(replicas: Replicas) -> None:
    await replicas.fail()
    replicas.wait(61)
    for replica in replicas.all * 2:
        await replica.call("CANCELLED")
        if isinstance(replica.share, RedisBreakers):
            await replica.share.settled()
        assert replica.view().state is BreakerState.HALF_OPEN


async def test_a_replica_that_comes_later_hears_of_it(redis_url: str) -> None:
    async with RedisLink.open(redis_url, PATIENT) as link, RedisLink.open(redis_url, PATIENT) as other:
        old = Replica.over(link)
        await Replicas([old]).fail()
        new = Replica.over(other)
        heard = asyncio.Event()

        class Hearing(Breakers):
            def adopt(self, change: SharedBreaker) -> None:
                new.breakers.adopt(change)
                heard.set()

        async with RedisBreakers(other).followed_by(Hearing(new.clock), every_s=0.001), asyncio.timeout(20):
            await heard.wait()
        assert new.view().state is BreakerState.OPEN


async def test_without_redis_breakers_stand_alone_and_find_together_again(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "services.gateway.redis_link")
    async with RedisLink.open(own_redis.url, PATIENT) as link, RedisLink.open(own_redis.url, PATIENT) as other:
        replicas = Replicas([Replica.over(link), Replica.over(other)])
        await replicas.talk()
        own_redis.kill()
        await replicas.fail()
        assert (await refused(replicas.first)).reason == "CIRCUIT_OPEN"
        await replicas.last.call()
        # Nobody waits for others' probes.
        replicas.first.clock.advance(61)
        await replicas.first.call("PROVIDER_ERROR")
        own_redis.start()
        for each in (link, other):
            await asyncio.wait_for(each.back.wait(), 20)
        await replicas.talk()
        assert 89_000 <= (await refused(replicas.last)).retry_after_ms <= 120_000
    said = [record.levelname for record in caplog.records if record.name == "services.gateway.redis_link"]
    assert said == ["WARNING", "WARNING", "INFO", "INFO"]
