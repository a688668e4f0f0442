"""Hints between replicas over Redis. Imported only where a Redis is set: its client is slow to load."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio
from redis.exceptions import RedisError

from services.runtime.hints import LocalHints, Subscription

_log = logging.getLogger(__name__)

MAX_PENDING_TOPICS = 4096
"""Topics that wait to be sent to Redis; hints for more are dropped."""

_RECONNECT_MIN_S = 0.1
_RECONNECT_MAX_S = 5.0
_CANCEL_AGAIN_S = 0.1


class RedisHints:
    """Hints between replicas over one Redis channel, and inside this process without Redis.

    Without Redis it goes on as LocalHints and reconnects by itself; after a gap every subscriber is woken once.
    """

    def __init__(self, url: str, namespace: str) -> None:
        """Use `open`. `namespace` separates services that share a Redis."""
        self._local = LocalHints()
        self._client = redis.asyncio.Redis.from_url(url, socket_connect_timeout=5, health_check_interval=15)
        # Channels are global to a server; the database number keeps installations apart that share one.
        database = self._client.connection_pool.connection_kwargs.get("db") or 0
        self._channel = f"llmlab:{database}:{namespace}:hints"
        self._origin = uuid.uuid4().hex
        self._pending: dict[str, None] = {}
        self._has_pending = asyncio.Event()
        self._listening = asyncio.Event()
        self._told_away = False

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, namespace: str) -> AsyncIterator[RedisHints]:
        """Connect in the background; a Redis that is away at the start delays nothing."""
        hints = cls(url, namespace)
        tasks = [asyncio.create_task(hints._listen()), asyncio.create_task(hints._send())]
        try:
            yield hints
        finally:
            for task in tasks:
                await _end(task)
            await hints._client.aclose()

    def publish(self, topic: str) -> None:
        """Wake the subscribers of `topic` in every replica."""
        self._local.publish(topic)
        if len(self._pending) < MAX_PENDING_TOPICS:
            self._pending[topic] = None
            self._has_pending.set()

    def subscribe(self, *topics: str) -> contextlib.AbstractContextManager[Subscription]:
        """Receive hints for `topics` inside the `with` block."""
        return self._local.subscribe(*topics)

    async def listening(self) -> None:
        """Wait until hints of other replicas arrive here."""
        await self._listening.wait()

    async def _send(self) -> None:
        while True:
            await self._has_pending.wait()
            self._has_pending.clear()
            topics, self._pending = list(self._pending), {}
            try:
                async with self._client.pipeline(transaction=False) as pipeline:
                    for topic in topics:
                        pipeline.publish(self._channel, f"{self._origin} {topic}")
                    await pipeline.execute()
            except (RedisError, OSError) as error:
                # The listener tells that Redis is away, once.
                _log.debug("hints to other replicas are lost: %s", type(error).__name__)
                await asyncio.sleep(_RECONNECT_MIN_S)

    async def _listen(self) -> None:
        pause_s = _RECONNECT_MIN_S
        while True:
            try:
                async with self._client.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(self._channel)
                    self._listening.set()
                    if self._told_away:
                        self._told_away = False
                        _log.info("hints of other replicas arrive again")
                    pause_s = _RECONNECT_MIN_S
                    # What was published before this moment was not heard.
                    self._local.wake_all()
                    async for message in channel.listen():
                        self._receive(message["data"].decode())
            except (RedisError, OSError) as error:
                self._listening.clear()
                if not self._told_away:
                    self._told_away = True
                    _log.warning("no hints from other replicas, polling instead: %s", type(error).__name__)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _RECONNECT_MAX_S)

    def _receive(self, message: str) -> None:
        origin, _, topic = message.partition(" ")
        if origin != self._origin:
            self._local.publish(topic)


async def _end(task: asyncio.Task[None]) -> None:
    # Again and again: a cancellation that meets redis-py in the middle of a command can get lost in there.
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_CANCEL_AGAIN_S)
