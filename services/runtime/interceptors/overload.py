"""Admission: how much a server does at once, and nothing new once it is stopping."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from services.runtime.context import Call
from services.runtime.errors import DomainError, ResourceExhausted, Unavailable
from services.runtime.interceptors.stage import Stage


class OverloadStage(Stage):
    """Admits at most `max_rpcs` calls and, counted apart, `max_streams` server streams; drains them at the end.

    gRPC's own services (health, reflection) are always admitted and never counted: a busy server is not a dead one.
    """

    def __init__(self, *, max_rpcs: int, max_streams: int, retry_after_ms: int) -> None:
        self._max_rpcs = max_rpcs
        self._max_streams = max_streams
        self._retry_after_ms = retry_after_ms
        self._rpcs = 0
        self._streams: set[Call] = set()
        self._calls: set[Call] = set()
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_progress(self) -> int:
        """Admitted calls and streams that have not ended."""
        return len(self._calls)

    def enter(self, call: Call) -> Awaitable[None] | None:
        """Admit the call, or refuse it with OVERLOADED or SHUTTING_DOWN."""
        if call.method.infrastructure:
            return None
        if self._draining:
            raise shutting_down()
        if call.method.streams_responses:
            if len(self._streams) >= self._max_streams:
                raise self._overloaded("streams", self._max_streams, "MAX_STREAMS")
            self._streams.add(call)
        elif self._rpcs >= self._max_rpcs:
            raise self._overloaded("calls", self._max_rpcs, "MAX_CONCURRENT_RPCS")
        else:
            self._rpcs += 1
        self._calls.add(call)
        call.admitted = True
        self._idle.clear()
        return None

    def leave(self, call: Call) -> None:
        """Give the place of an admitted call back."""
        if not call.admitted:
            return
        call.admitted = False
        self._calls.discard(call)
        if call.method.streams_responses:
            self._streams.discard(call)
        else:
            self._rpcs -= 1
        if not self._calls:
            self._idle.set()

    async def drain(self, grace_s: float) -> None:
        """Refuse new work, end endless streams now, wait for the rest up to `grace_s`, then end what is left.

        A caller whose call is ended gets UNAVAILABLE with the reason SHUTTING_DOWN, and another replica answers it.
        """
        self._draining = True
        for call in [call for call in self._streams if call.endless]:
            call.end(shutting_down())
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            for call in list(self._calls):
                call.end(shutting_down())

    async def wait_idle(self) -> None:
        """Wait until every admitted call has ended."""
        await self._idle.wait()

    def _overloaded(self, what: str, limit: int, setting: str) -> DomainError:
        return ResourceExhausted(
            "OVERLOADED",
            f"the server is at its limit of {limit} {what} at once; try again in {self._retry_after_ms} ms "
            f"(the limit is the setting LLMLAB_{setting})",
            retry_after_ms=self._retry_after_ms,
        )


def shutting_down() -> DomainError:
    """The answer of a server that is stopping."""
    return Unavailable(
        "SHUTTING_DOWN", "the server is stopping; try again, another replica will answer", retry_after_ms=0
    )
