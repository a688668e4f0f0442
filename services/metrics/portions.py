"""The tasks of one request, a few at a time: those of others find their place between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def run_portions(run: Callable[[T], Coroutine[Any, Any, R]], portions: Iterable[T], at_once: int) -> list[R]:
    """`run` of each portion, `at_once` of them at a time; the results in their order.

    The first that fails ends the others, and its error is raised.
    """
    free = asyncio.Semaphore(at_once)

    async def run_one(portion: T) -> R:
        async with free:
            return await run(portion)

    tasks = [asyncio.ensure_future(run_one(portion)) for portion in portions]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
