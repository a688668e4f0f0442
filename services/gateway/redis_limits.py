"""Buckets that all replicas share, in Redis. Imported only where a Redis is set: its client is slow to load.

All limits of a call, and all calls that arrive meanwhile, go to Redis in one round trip, to one script that reads
Redis's own clock: clocks of replicas do not matter. Without Redis each replica limits by itself at a share of every
limit, and tries Redis again by itself; a call waits for Redis no longer than the timeout, and only until the loss is
noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from services.gateway.limits import LimitStore, Take
from services.runtime.batcher import Batcher
from services.runtime.errors import DomainError

_log = logging.getLogger(__name__)

_BATCH_MAX = 128
_QUEUE_MAX = 10_000
_PREFIX = "llmlab:gateway:limit:"

# ARGV: for each call whether it is forced, its number of buckets, then for each bucket interval, tolerance and amount.
_SCRIPT = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local waits = {}
local at, first = 1, 1
while at <= #ARGV do
  local forced, count = ARGV[at] == '1', tonumber(ARGV[at + 1])
  local full_at, wait = {}, 0
  at = at + 2
  for i = 1, count do
    local interval, tolerance, amount = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    local before = tonumber(redis.call('GET', KEYS[first + i - 1]) or '0')
    full_at[i] = math.max(before, now) + interval * amount
    wait = math.max(wait, full_at[i] - now - tolerance)
    at = at + 3
  end
  if forced or wait < 1 then
    for i = 1, count do
      local life_ms = math.ceil((full_at[i] - now) / 1000)
      if life_ms > 0 then
        redis.call('SET', KEYS[first + i - 1], string.format('%.0f', full_at[i]), 'PX', string.format('%.0f', life_ms))
      else
        redis.call('DEL', KEYS[first + i - 1])
      end
    end
    wait = 0
  end
  waits[#waits + 1] = math.ceil(wait / 1000)
  first = first + count
end
return waits
"""


@dataclass(frozen=True, slots=True)
class RedisRules:
    """How long a call waits for Redis, what share of every limit a replica keeps without it, how often it is tried."""

    timeout_s: float = 0.05
    share_without: float = 0.5
    probe_every_s: float = 0.5


@dataclass(frozen=True, slots=True)
class _Item:
    takes: tuple[Take, ...]
    forced: bool


class RedisLimits:
    """See LimitStore."""

    def __init__(self, url: str, local: LimitStore, rules: RedisRules) -> None:
        """Use `open`. `local` keeps the buckets while Redis is away."""
        self._client = redis.asyncio.Redis.from_url(
            url,
            socket_timeout=rules.timeout_s,
            socket_connect_timeout=rules.timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
        self._script = self._client.register_script(_SCRIPT)
        self._local = local
        self._rules = rules
        self._batcher: Batcher[_Item, int] = Batcher(
            self._flush, max_batch=_BATCH_MAX, max_queue=_QUEUE_MAX, reject_when_full=True, name="limits"
        )
        self._corrections: set[asyncio.Task[None]] = set()
        self._probing: asyncio.Task[None] | None = None
        self.shared = asyncio.Event()
        self.shared.set()

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, local: LimitStore, rules: RedisRules) -> AsyncIterator[RedisLimits]:
        """A Redis that is away at the start is as one that goes away later."""
        limits = cls(url, local, rules)
        try:
            yield limits
        finally:
            await limits._close()

    async def take(self, takes: tuple[Take, ...]) -> int:
        """See LimitStore.take."""
        if self.shared.is_set():
            with contextlib.suppress(RedisError, OSError, DomainError):
                return await self._batcher.submit(_Item(takes, forced=False))
        return await self._local.take(self._own(takes))

    def correct(self, takes: tuple[Take, ...]) -> None:
        """See LimitStore.correct."""
        if not self.shared.is_set():
            self._local.correct(self._own(takes))
            return
        task = asyncio.create_task(self._correct(takes))
        self._corrections.add(task)
        task.add_done_callback(self._corrections.discard)

    async def _correct(self, takes: tuple[Take, ...]) -> None:
        # One that gets lost errs to the strict side, until its bucket has filled up.
        with contextlib.suppress(RedisError, OSError, DomainError):
            await self._batcher.submit(_Item(takes, forced=True))

    def _own(self, takes: tuple[Take, ...]) -> tuple[Take, ...]:
        return tuple(take.at_share(self._rules.share_without) for take in takes)

    async def _flush(self, items: list[_Item]) -> Sequence[int]:
        keys = [_PREFIX + take.key for item in items for take in item.takes]
        arguments: list[int | float] = []
        for item in items:
            arguments += (int(item.forced), len(item.takes))
            for take in item.takes:
                arguments += (take.interval_us, take.tolerance_us, take.amount)
        try:
            waits: list[int] = await self._script(keys, arguments)
        except (RedisError, OSError) as error:
            self._lost(error)
            raise
        return waits

    def _lost(self, error: Exception) -> None:
        if not self.shared.is_set():
            return
        self.shared.clear()
        share = self._rules.share_without
        _log.warning("no Redis (%s): this replica limits alone, at %.0f %%", type(error).__name__, share * 100)
        self._probing = asyncio.create_task(self._probe(), name="limits-probe")

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(self._rules.probe_every_s)
            with contextlib.suppress(RedisError, OSError):
                await self._client.ping()
                break
        _log.info("Redis is back: limits are shared again")
        self.shared.set()

    async def _close(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
        await self._batcher.close()
        await self._client.aclose()
