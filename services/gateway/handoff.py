"""A bounded hand-over from one task that produces to one that consumes, which takes all there is at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Handoff(Generic[T]):
    """`put` waits while `max_items` lie there, and `take`, for one task, gives everything that lies there.

    So a slow consumer gets fewer and larger pieces instead of falling further behind.
    """

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._items: list[T] = []
        self._ended = False
        self._taker: asyncio.Future[None] | None = None
        self._space = asyncio.Event()
        self._space.set()

    def offer(self, items: Sequence[T]) -> bool:
        """Hand items over, in order, unless that takes waiting: then they have to be `put`."""
        if not self._space.is_set():
            return False
        self._add(items)
        return True

    async def put(self, items: Sequence[T]) -> None:
        """Hand items over, in order."""
        await self._space.wait()
        self._add(items)

    def _add(self, items: Sequence[T]) -> None:
        self._items.extend(items)
        self._wake()
        if len(self._items) >= self._max_items:
            self._space.clear()

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self._wake()

    async def take(self) -> list[T]:
        """What lies there, at least one item; empty once it has ended."""
        if not self._items and not self._ended:
            self._taker = asyncio.get_running_loop().create_future()
            await self._taker
        items, self._items = self._items, []
        self._space.set()
        return items

    def _wake(self) -> None:
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(None)
