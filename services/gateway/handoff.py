"""A bounded hand-over from one task that produces to one that consumes, which takes all there is at once."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Handoff(Generic[T]):
    """`put` waits while items of `max_size` lie there, and `take`, for one task, gives everything that lies there.

    So a slow consumer gets fewer and larger pieces instead of falling further behind.
    """

    def __init__(self, max_size: int) -> None:
        self._left = self._max_size = max_size
        self._items: list[T] = []
        self._ended = False
        self._taker: asyncio.Future[None] | None = None
        self._space = asyncio.Event()

    def offer(self, item: T, size: int = 1) -> bool:
        """Hand an item over, unless that takes waiting: then it has to be `put`."""
        if self._left <= 0:
            return False
        self._left -= size
        self._items.append(item)
        if self._taker is not None:
            self._wake(self._taker)
        return True

    async def put(self, item: T, size: int = 1) -> None:
        """Hand an item over."""
        while not self.offer(item, size):
            self._space.clear()
            await self._space.wait()

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        if self._taker is not None:
            self._wake(self._taker)

    async def take(self) -> list[T]:
        """What lies there, at least one item; empty once it has ended."""
        if not self._items and not self._ended:
            self._taker = asyncio.get_running_loop().create_future()
            await self._taker
        items, self._items = self._items, []
        self._left = self._max_size
        self._space.set()
        return items

    def _wake(self, taker: asyncio.Future[None]) -> None:
        self._taker = None
        if not taker.done():
            taker.set_result(None)
