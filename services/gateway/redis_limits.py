"""Buckets that all replicas share, in Redis. Imported only where a Redis is set: its client is slow to load.

All limits of a call, and all calls that arrive meanwhile, go to Redis in one round trip, to one script that reads
Redis's own clock: clocks of replicas do not matter. While Redis is away each replica limits by itself, at a share of
every limit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from services.gateway.limits import LimitStore, Take
from services.gateway.redis_link import RedisAway, RedisLink
from services.runtime.batcher import Batcher
from services.runtime.errors import DomainError

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


_LOOK = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local waits = {}
for i, full_at in ipairs(redis.call('MGET', unpack(KEYS))) do
  waits[i] = full_at and math.max(0, tonumber(full_at) - now) or 0
end
return waits
"""


@dataclass(frozen=True, slots=True)
class _Item:
    takes: tuple[Take, ...]
    forced: bool


class RedisLimits:
    """See LimitStore."""

    def __init__(self, link: RedisLink, local: LimitStore, share_without: float = 0.5) -> None:
        """While Redis is away `local` keeps the buckets, at this share of every limit."""
        self._link = link
        self._script = link.client.register_script(_SCRIPT)
        self._look = link.client.register_script(_LOOK)
        self._local = local
        self._share_without = share_without
        self._batcher: Batcher[_Item, int] = Batcher(
            self._flush, max_batch=_BATCH_MAX, max_queue=_QUEUE_MAX, reject_when_full=True, name="limits"
        )
        self._corrections: set[asyncio.Task[None]] = set()

    async def take(self, takes: tuple[Take, ...]) -> int:
        """See LimitStore.take."""
        if self._link.here:
            with contextlib.suppress(RedisAway, DomainError):
                return await self._batcher.submit(_Item(takes, forced=False))
        return await self._local.take(self._own(takes))

    def correct(self, takes: tuple[Take, ...]) -> None:
        """See LimitStore.correct."""
        if not self._link.here:
            self._local.correct(self._own(takes))
            return
        task = asyncio.create_task(self._correct(takes))
        self._corrections.add(task)
        task.add_done_callback(self._corrections.discard)

    async def full_in_us(self, takes: tuple[Take, ...]) -> list[float]:
        """See LimitStore.full_in_us."""
        keys = [_PREFIX + take.key for take in takes]
        with contextlib.suppress(RedisAway):
            return [float(wait) for wait in await self._link.ask(lambda: self._look(keys))]
        return await self._local.full_in_us(self._own(takes))

    async def _correct(self, takes: tuple[Take, ...]) -> None:
        # One that gets lost errs to the strict side, until its bucket has filled up.
        with contextlib.suppress(RedisAway, DomainError):
            await self._batcher.submit(_Item(takes, forced=True))

    def _own(self, takes: tuple[Take, ...]) -> tuple[Take, ...]:
        return tuple(take.at_share(self._share_without) for take in takes)

    async def _flush(self, items: list[_Item]) -> Sequence[int]:
        keys = [_PREFIX + take.key for item in items for take in item.takes]
        arguments: list[int | float] = []
        for item in items:
            arguments += (int(item.forced), len(item.takes))
            for take in item.takes:
                arguments += (take.interval_us, take.tolerance_us, take.amount)
        waits: list[int] = await self._link.ask(lambda: self._script(keys, arguments))
        return waits

    async def close(self) -> None:
        """Send what was handed in."""
        await self._batcher.close()
