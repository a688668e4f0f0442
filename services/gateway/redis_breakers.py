"""Circuit breakers that all replicas share, in Redis. Imported only where a Redis is set: its client is slow to load.

No call waits for it but a probe. A change here is told at once, changes elsewhere are asked for several times a second;
one script does both, by Redis's own clock. Every change has a number that only grows: a change that was made without
knowledge of a newer one gives way to it. While Redis is away each replica's breakers stand alone; when it is back, each
tells again what is open.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Protocol

from services.gateway.breaker_share import SharedBreaker
from services.gateway.redis_link import RedisAway, RedisLink

_PREFIX = "llmlab:gateway:breaker:"
_CHANGES = _PREFIX + "changes"
_KEEP_US = 600_000_000
"""How long after its end a change is kept for replicas that have not seen it."""

_PROBE_LEASE_MS = 30_000
"""A replica that dies while it probes gives the right to others after so long."""

# KEYS: the hash of changes. ARGV: how long to keep them, then for each change deployment, the number that its replica
# knew, whether it is open, for how many us, its openings, and the replica.
# A field of the hash: number, whether it is open, until when, openings, replica.
_EXCHANGE = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local function read(text) return string.match(text, '^(%d+) (%d) (%d+) (%d+) (%w+)$') end
for i = 2, #ARGV, 6 do
  local old = redis.call('HGET', KEYS[1], ARGV[i])
  local known = old and tonumber((read(old))) or 0
  if tonumber(ARGV[i + 1]) >= known then
    local number = math.max(now, known + 1)
    local till = string.format('%.0f', now + tonumber(ARGV[i + 3]))
    local value = {string.format('%.0f', number), ARGV[i + 2], till, ARGV[i + 4], ARGV[i + 5]}
    redis.call('HSET', KEYS[1], ARGV[i], table.concat(value, ' '))
  end
end
local all, told = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #all, 2 do
  local number, open, till, openings, replica = read(all[i + 1])
  if tonumber(till) + tonumber(ARGV[1]) < now then
    redis.call('HDEL', KEYS[1], all[i])
  else
    local left = string.format('%.0f', math.max(0, tonumber(till) - now))
    told[#told + 1] = {all[i], number, open, left, openings, replica}
  end
end
return told
"""

_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class Adopter(Protocol):
    """The breakers of this replica."""

    def adopt(self, change: SharedBreaker) -> None:
        """Follow a change of another replica."""
        ...

    def changes(self) -> Iterable[SharedBreaker]:
        """What is open here."""
        ...


class RedisBreakers:
    """See BreakerShare."""

    def __init__(self, link: RedisLink, probes_max: int = 1) -> None:
        """`probes_max` replicas may probe a deployment at a time."""
        self._link = link
        self._exchange = link.client.register_script(_EXCHANGE)
        self._release = link.client.register_script(_RELEASE)
        self._probes_max = probes_max
        self._replica = uuid.uuid4().hex
        self._news: dict[str, SharedBreaker] = {}
        self._known: dict[str, int] = {}
        self._claims: dict[str, list[tuple[str, str]]] = {}
        self._wanted = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._was_away = False

    def tell(self, change: SharedBreaker) -> None:
        """See BreakerShare.tell."""
        self._news[change.deployment] = change
        self._wanted.set()

    async def may_probe(self, deployment: str) -> bool:
        """See BreakerShare.may_probe. Without Redis each replica probes by itself."""
        token = uuid.uuid4().hex
        for slot in range(self._probes_max):
            key = f"{_PREFIX}probe:{slot}:{deployment}"
            try:
                if await self._link.ask(self._claim(key, token)):
                    self._claims.setdefault(deployment, []).append((key, token))
                    return True
            except RedisAway:
                return True
        return False

    def _claim(self, key: str, token: str) -> Callable[[], Awaitable[object]]:
        return lambda: self._link.client.set(key, token, nx=True, px=_PROBE_LEASE_MS)

    def probed(self, deployment: str) -> None:
        """See BreakerShare.probed."""
        claims = self._claims.get(deployment)
        if not claims:
            return
        key, token = claims.pop()
        if not claims:
            del self._claims[deployment]
        task = asyncio.create_task(self._give_back(key, token))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _give_back(self, key: str, token: str) -> None:
        with contextlib.suppress(RedisAway):
            await self._link.ask(lambda: self._release([key], [token]))

    async def settled(self) -> None:
        """Wait until every right to probe that was given back is free."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    @asynccontextmanager
    async def followed_by(self, breakers: Adopter, every_s: float) -> AsyncIterator[None]:
        """These breakers follow the others inside."""
        task = asyncio.create_task(self._follow(breakers, every_s), name="breakers")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            await self.settled()

    async def _follow(self, breakers: Adopter, every_s: float) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await self._wanted.wait()
            self._wanted.clear()
            await self.exchange(breakers)

    async def exchange(self, breakers: Adopter) -> None:
        """Tell what changed here, and follow what changed elsewhere."""
        if not self._link.here:
            self._was_away = True
            return
        if self._was_away:
            # What Redis knew may be lost.
            self._news = {change.deployment: change for change in breakers.changes()} | self._news
        news, self._news = self._news, {}
        arguments: list[str | int] = [_KEEP_US]
        for name, change in news.items():
            known = self._known.get(name, 0)
            arguments += (name, known, int(change.is_open), change.open_ms * 1_000, change.openings, self._replica)
        try:
            told = await self._link.ask(lambda: self._exchange([_CHANGES], arguments))
        except RedisAway:
            self._news = news | self._news
            self._was_away = True
            return
        self._was_away = False
        latest: dict[str, int] = {}
        for deployment, number, is_open, left_us, openings, replica in told:
            name = deployment.decode()
            latest[name] = int(number)
            if latest[name] > self._known.get(name, 0) and replica != self._replica.encode():
                breakers.adopt(SharedBreaker(name, is_open == b"1", -(-int(left_us) // 1_000), int(openings)))
        self._known = latest
