"""Lists of bounded length from answers that come page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar

ItemT = TypeVar("ItemT")


async def taken(items: AsyncIterator[ItemT], limit: int) -> list[ItemT]:
    """Returns the first `limit` items; no page behind them is asked for."""
    found: list[ItemT] = []
    async for item in items:
        found.append(item)
        if len(found) == limit:
            break
    return found
