"""What a layer of the pipeline puts around an attempt."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from services.gateway.attempts import Attempt

T = TypeVar("T")


class Around(Generic[T]):
    """`enter` before the attempt and `leave` after it, however it ended, with what `enter` gave.

    For `async with`. It costs a fifth of a generator with @asynccontextmanager, and every call passes several.
    """

    __slots__ = ("_attempt", "_enter", "_leave", "_taken")

    def __init__(
        self,
        attempt: Attempt,
        enter: Callable[[Attempt], Awaitable[T]],
        leave: Callable[[Attempt, T], Awaitable[None]],
    ) -> None:
        self._attempt = attempt
        self._enter = enter
        self._leave = leave

    async def __aenter__(self) -> None:
        self._taken = await self._enter(self._attempt)

    async def __aexit__(self, *_: object) -> None:
        await self._leave(self._attempt, self._taken)
