"""Answers that all replicas share, in Redis. How much they take together is for Redis's own `maxmemory` to say."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.gateway.redis_link import RedisAway, RedisLink
from services.runtime.batcher import Batcher
from services.runtime.errors import DomainError

_PREFIX = "llmlab:gateway:answer:"
_BATCH_MAX = 32
_QUEUE_MAX = 10_000


@dataclass(frozen=True, slots=True)
class _Put:
    key: str
    value: bytes
    ttl_s: float


class RedisCache:
    """CacheStore in Redis; look-ups that arrive together share a round trip, and so do answers to be kept.

    While Redis is away nothing is found and nothing is kept.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._gets: Batcher[str, bytes | None] = Batcher(
            self._get_all, max_batch=_BATCH_MAX, max_queue=_QUEUE_MAX, reject_when_full=True, name="cache-get"
        )
        self._puts: Batcher[_Put, None] = Batcher(
            self._put_all, max_batch=_BATCH_MAX, max_queue=_QUEUE_MAX, reject_when_full=True, name="cache-put"
        )

    async def get(self, key: str) -> bytes | None:
        """See CacheStore.get."""
        if self._link.here:
            with contextlib.suppress(RedisAway, DomainError):
                return await self._gets.submit(key)
        return None

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """See CacheStore.put."""
        if self._link.here:
            with contextlib.suppress(RedisAway, DomainError):
                await self._puts.submit(_Put(key, value, ttl_s))

    async def close(self) -> None:
        """Send what was handed in."""
        await self._gets.close()
        await self._puts.close()

    async def _get_all(self, keys: list[str]) -> Sequence[bytes | None]:
        # The client decodes nothing unless it is told to, which its types do not know.
        values: Sequence[Any] = await self._link.ask(lambda: self._link.client.mget([_PREFIX + key for key in keys]))
        return values

    async def _put_all(self, puts: list[_Put]) -> Sequence[None]:
        pipeline = self._link.client.pipeline(transaction=False)
        for put in puts:
            pipeline.set(_PREFIX + put.key, put.value, px=round(put.ttl_s * 1_000))
        await self._link.ask(pipeline.execute)
        return [None] * len(puts)
