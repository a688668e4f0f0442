"""The cache of answers: what a store has to do, and the store in memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from services.gateway.kept_answers import KeptAnswer, decode_kept, encode_kept
from services.runtime import telemetry
from services.runtime.clock import Clock

# Of one value beside its bytes: its key, and the dictionary's share.
_ENTRY_BYTES = 400


class CacheStore(Protocol):
    """Where answers are kept. It may lose any of them at any time, and never fails."""

    async def get(self, key: str) -> bytes | None:
        """What is kept under the key; None where nothing is, or where the store cannot be reached."""
        ...

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep a value, in place of the old one, for as long."""
        ...


@dataclass(slots=True)
class _Entry:
    value: bytes
    expires_s: float


class LocalCache:
    """CacheStore in this process's memory: at most `max_bytes`; what was not asked for longest goes first."""

    def __init__(self, clock: Clock, max_bytes: int) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self.size_bytes = 0

    async def get(self, key: str) -> bytes | None:
        """See CacheStore.get."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock.monotonic_s() >= entry.expires_s:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.value

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """See CacheStore.put."""
        if key in self._entries:
            self._drop(key)
        # A copy takes what it says: the bytes that an encoder gives can hold on to its buffer, four times as much.
        self._entries[key] = _Entry(bytes(memoryview(value)), self._clock.monotonic_s() + ttl_s)
        self.size_bytes += len(value) + _ENTRY_BYTES
        while self.size_bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: str) -> None:
        self.size_bytes -= len(self._entries.pop(key).value) + _ENTRY_BYTES


@dataclass(frozen=True, slots=True)
class CacheRules:
    """How long an answer is kept, and how large it may be."""

    ttl_s: float = 3_600.0
    answer_max_bytes: int = 1_048_576


class AnswerCache:
    """Answers in a store, by `cache_key`."""

    def __init__(self, store: CacheStore, clock: Clock, rules: CacheRules) -> None:
        self._store = store
        self._clock = clock
        self._rules = rules
        self._hits = telemetry.counter("cache_hits")
        self._misses = telemetry.counter("cache_misses")

    async def get(self, key: str, max_age_s: int) -> KeptAnswer | None:
        """The answer kept under the key, if it is not older than `max_age_s` (0: of any age)."""
        value = await self._store.get(key)
        kept = None if value is None else decode_kept(value)
        if kept is not None and max_age_s and self._clock.now_us() - kept.answered_at_us > max_age_s * 1_000_000:
            kept = None
        (self._misses if kept is None else self._hits).add()
        return kept

    async def put(self, key: str, answer: KeptAnswer) -> None:
        """Keep an answer, unless it is too large."""
        value = encode_kept(answer)
        if len(value) <= self._rules.answer_max_bytes:
            await self._store.put(key, value, self._rules.ttl_s)
