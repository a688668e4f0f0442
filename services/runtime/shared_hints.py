"""Hints as a service's settings ask for them: between replicas over Redis, or inside this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.runtime.hints import Hints, LocalHints


@asynccontextmanager
async def open_hints(redis_url: str, namespace: str) -> AsyncIterator[Hints]:
    """Hints of the service `namespace`; where `redis_url` is empty they reach this process alone."""
    if not redis_url:
        yield LocalHints()
        return
    # Loading the client of Redis takes some 0.3 s: only where it is used.
    from services.runtime.redis_hints import RedisHints

    async with RedisHints.open(redis_url, namespace) as hints:
        yield hints
