"""Single-flight: equal calls at the same time share one.

A flight belongs to a task of its own. Whoever boards it, also late, is given everything from the start; whoever leaves
holds nobody up; when the last one has left it is stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from services.gateway.admission import ActiveCall
from services.gateway.attempts import CallOutcome
from services.gateway.chunks import Emit, Event, RawBytes, Read, ReasoningDelta, TextDelta, ToolCallDelta
from services.gateway.collector import Collector
from services.runtime import telemetry

Fly = Callable[["Flight"], Coroutine[Any, Any, CallOutcome]]
"""Makes the call: hands what arrives to `Flight.emit` and obeys `Flight.active`."""

# What one event takes beside its text, roughly.
_EVENT_BYTES = 64


@dataclass(eq=False, slots=True)
class Seat:
    """One that shares a flight. `at` counts the reads that it has been given; it `follows` if it wants them at all."""

    follows: bool
    at: int = 0


class Flight:
    """One call for everybody who wants its answer.

    Attributes:
        deadline_s: `monotonic_s` by which it is over.
        reads: what has come so far, all of it unless `overflowed`.
        overflowed: more has come than is kept. Nobody may board any more, and the provider is read as fast as the
            slowest of those aboard.
    """

    def __init__(self, fly: Fly, timeout_ms: int, deadline_s: float, max_bytes: int) -> None:
        """Begins at once."""
        self.active = ActiveCall(timeout_ms)
        self.deadline_s = deadline_s
        self.reads: list[Read] = []
        self.overflowed = False
        self._dropped = 0
        self._bytes = 0
        self._max_bytes = max_bytes
        self._seats: set[Seat] = set()
        self._news = asyncio.Event()
        self._moved = asyncio.Event()
        self._task = asyncio.create_task(fly(self), name="flight")
        self._task.add_done_callback(lambda _: _pulse(self._news))

    @property
    def over(self) -> bool:
        """Whether it has ended, or is being stopped."""
        return self._task.done() or self.active.cancelled or self.active.expired

    def board(self, *, follows: bool) -> Seat:
        """Share the flight. Whoever boards has to leave."""
        seat = Seat(follows)
        self._seats.add(seat)
        return seat

    async def follow(self, seat: Seat, emit: Emit | None) -> CallOutcome:
        """Pass on all that came and that comes; returns how the flight ended."""
        while emit is not None:
            while seat.at < self._arrived:
                read = self.reads[seat.at - self._dropped]
                await emit(*read)
                seat.at += 1
                _pulse(self._moved)
            if self._task.done():
                break
            await self._news.wait()
        return await asyncio.shield(self._task)

    async def leave(self, seat: Seat, *, expired: bool = False) -> CallOutcome | None:
        """Get off: the last one stops the flight and is told how it ended; None for all others.

        `expired`: because its deadline is over.
        """
        self._seats.discard(seat)
        _pulse(self._moved)
        if self._seats:
            return None
        if not self._task.done() and not self.active.answered:
            if expired:
                self.active.expire()
            else:
                self.active.cancel()
            if self.active.limit is None:
                self._task.cancel()
        await asyncio.wait([self._task])
        return None if self._task.cancelled() or self._task.exception() else self._task.result()

    async def emit(self, attempt_id: str, offset_us: int, events: list[Event]) -> None:
        """See chunks.Emit. Waits for the slowest, where there is too much to keep."""
        self.reads.append(Read(attempt_id, offset_us, events))
        self._bytes += sum(_size(event) for event in events)
        _pulse(self._news)
        if self._bytes <= self._max_bytes:
            return
        self.overflowed = True
        while any(seat.follows and seat.at < self._arrived for seat in self._seats):
            await self._moved.wait()
        self._dropped += len(self.reads)
        self.reads.clear()

    def when_over(self, action: Callable[[], None]) -> None:
        """Do this when it has ended."""
        self._task.add_done_callback(lambda _: action())

    def text(self) -> str:
        """The visible text of what is kept."""
        collector = Collector()
        for read in self.reads:
            collector.add(read.events)
        return collector.text()

    @property
    def _arrived(self) -> int:
        return self._dropped + len(self.reads)

    def caught_up(self, seat: Seat) -> bool:
        """Whether the seat has been given all that has come."""
        return not seat.follows or seat.at == self._arrived


def _pulse(event: asyncio.Event) -> None:
    """Wake all that wait now."""
    event.set()
    event.clear()


def _size(event: Event) -> int:
    if isinstance(event, TextDelta | ReasoningDelta):
        return len(event.text) + _EVENT_BYTES
    if isinstance(event, ToolCallDelta):
        return len(event.arguments_json) + _EVENT_BYTES
    return len(event.data) + _EVENT_BYTES if isinstance(event, RawBytes) else _EVENT_BYTES


class Flights:
    """The flights that others may board, by `flight_key`."""

    def __init__(self, max_bytes: int) -> None:
        """Keep at most `max_bytes` of what one flight brings."""
        self._max_bytes = max_bytes
        self._flights: dict[str, Flight] = {}
        self._joined = telemetry.counter("flights_joined")

    def board(self, key: str, deadline_s: float, *, follows: bool) -> tuple[Flight, Seat] | None:
        """A seat in the flight under this key; None where there is none that takes more, or that lasts so long."""
        flight = self._flights.get(key)
        if flight is None or flight.over or flight.overflowed or flight.deadline_s < deadline_s:
            return None
        self._joined.add()
        return flight, flight.board(follows=follows)

    def begin(self, key: str | None, fly: Fly, timeout_ms: int, deadline_s: float) -> Flight:
        """A flight that begins now, for others to board where it has a key."""
        flight = Flight(fly, timeout_ms, deadline_s, self._max_bytes)
        if key is not None:
            self._flights[key] = flight
            flight.when_over(lambda: self._forget(key, flight))
        return flight

    def _forget(self, key: str, flight: Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
