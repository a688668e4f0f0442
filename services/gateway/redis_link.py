"""The connection to Redis that all shared state of the gateway goes through; its client is slow to load.

No question waits for its answer longer than a timeout, and none waits any more once the loss is noticed: whoever
asks, or has asked, is told at once, and does without. Redis is taken up again by itself. One line is logged when it
goes, and one when it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

T = TypeVar("T")

QUESTIONS_MAX = 64
"""Questions on their way at once, each on a connection of its own; more wait for their turn."""

_log = logging.getLogger(__name__)


class RedisAway(Exception):
    """Redis did not answer; nothing is known of what was asked."""


@dataclass(frozen=True, slots=True)
class LinkRules:
    """How long a question may take, connecting included, and how often a lost Redis is tried."""

    timeout_s: float = 0.05
    probe_every_s: float = 0.5


class RedisLink:
    """See the module. `back` is set while Redis is there, as far as is known."""

    def __init__(self, url: str, rules: LinkRules) -> None:
        """Use `open`. A Redis that is away at the start is as one that goes away later."""
        # No socket_timeout: for it redis-py sends by asyncio.wait_for, which loses cancellations on Python 3.11, and a
        # call that was cancelled would go on to its provider. A first question has to connect within its time: no
        # HELLO and no CLIENT SETINFO, each of which waits for an answer of its own.
        self.client = redis.asyncio.Redis.from_url(
            url, socket_timeout=None, retry=Retry(NoBackoff(), 0), protocol=2, driver_info=None
        )
        self.back = asyncio.Event()
        self.back.set()
        self._rules = rules
        self._asking: set[asyncio.Timeout] = set()
        self._places = asyncio.Semaphore(QUESTIONS_MAX)
        self._refused: type[Exception] | None = None
        self._probing: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, rules: LinkRules | None = None) -> AsyncIterator[RedisLink]:
        """The connection, closed at the end."""
        link = cls(url, rules or LinkRules())
        try:
            yield link
        finally:
            await link._close()

    @property
    def here(self) -> bool:
        """Whether Redis is there, as far as is known."""
        return self.back.is_set()

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """What a command of `client` answers. Raises RedisAway."""
        async with self._places:
            if not self.here:
                raise RedisAway("Redis went away and is not back yet")
            try:
                async with asyncio.timeout(self._rules.timeout_s) as limit:
                    self._asking.add(limit)
                    try:
                        return await question()
                    finally:
                        self._asking.discard(limit)
            except (RedisConnectionError, RedisTimeoutError, OSError) as error:
                self._lost(error)
                raise RedisAway(str(error)) from error
            except RedisError as error:
                self._told_no(error)
                raise RedisAway(str(error)) from error

    def _told_no(self, error: RedisError) -> None:
        """It is there, and does not do this: memory is full, or a script or a right is wrong. Said once of a kind."""
        if not isinstance(error, OutOfMemoryError) and type(error) is not self._refused:
            self._refused = type(error)
            _log.error("Redis refuses what the gateway asks, which goes on without: %s", error)

    def _lost(self, error: Exception) -> None:
        if not self.here:
            return
        self.back.clear()
        self._probing = asyncio.create_task(self._probe(), name="redis-probe")
        _log.warning(
            "no Redis (%s): this replica keeps limits and breakers alone, and no answers", type(error).__name__
        )
        # Whoever waits for an answer would wait for it until a timeout of its own, unless that is just over too.
        for limit in self._asking:
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(self._rules.probe_every_s)
            with contextlib.suppress(RedisError, OSError):
                async with asyncio.timeout(self._rules.timeout_s):
                    await self.client.ping()
                break
        _log.info("Redis is back: limits, breakers and answers are shared again")
        self.back.set()

    async def _close(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
        await self.client.aclose()
