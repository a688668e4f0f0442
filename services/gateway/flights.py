"""Single-flight: equal calls at the same time share one.

A flight belongs to a task of its own. Whoever boards it, also late, is given everything from the start; whoever leaves
holds nobody up; when the last one has left it is stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
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
    """One that shares a flight. `at` counts the reads that it has been given; it `follows` if it wants them at all.

    While it has been given all that came, `emit` is set: what comes next is handed over at once, and its task sleeps.
    `taking` is a read that it takes time to take.
    """

    follows: bool
    at: int = 0
    emit: Emit | None = None
    taking: Coroutine[Any, Any, None] | None = None


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
        # Whoever is aboard has a deadline, and the last one to leave stops it.
        self.active = ActiveCall(timeout_ms, timed=False)
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
        try:
            while True:
                if emit is not None:
                    await self._catch_up(seat, emit)
                if self._task.done():
                    return self._task.result()
                seat.emit = emit
                await self._news.wait()
        finally:
            seat.emit = None
            if seat.taking is not None:
                seat.taking.close()

    async def _catch_up(self, seat: Seat, emit: Emit) -> None:
        seat.emit = None
        while seat.at < self._arrived:
            taking, seat.taking = seat.taking, None
            if taking is None:
                taking = emit(self.reads[seat.at - self._dropped])
            if taking is not None:
                await taking
            seat.at += 1
            _pulse(self._moved)

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
        if not self._task.done():
            await asyncio.wait([self._task])
        return None if self._task.cancelled() or self._task.exception() else self._task.result()

    def emit(self, read: Read) -> Coroutine[Any, Any, None] | None:
        """See chunks.Emit. Waits for the slowest, where there is too much to keep."""
        self.reads.append(read)
        for event in read.events:
            self._bytes += _size(event)
        for seat in self._seats:
            if seat.emit is not None:
                self._hand_over(read, seat, seat.emit)
        return None if self._bytes <= self._max_bytes else self._overflow()

    def _hand_over(self, read: Read, seat: Seat, emit: Emit) -> None:
        """Give the latest read to a seat that has all others. What takes time, or fails, is for its own task."""
        try:
            seat.taking = emit(read)
        except Exception:  # noqa: BLE001 (it is not the flight's: the seat's task meets it again)
            seat.emit = None
        else:
            if seat.taking is None:
                seat.at += 1
                return
            seat.emit = None
        _pulse(self._news)

    async def _overflow(self) -> None:
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
    if isinstance(event, (TextDelta, ReasoningDelta)):
        return len(event.text) + _EVENT_BYTES
    if isinstance(event, ToolCallDelta):
        return len(event.arguments_json) + _EVENT_BYTES
    return len(event.data) + _EVENT_BYTES if isinstance(event, RawBytes) else _EVENT_BYTES


class Flights:
    """The flights that others may board, by `flight_key`."""

    def __init__(self, max_bytes: int) -> None:
        """Keep at most `max_bytes` of what one flight brings."""
        self._max_bytes = max_bytes
        self._flights: dict[Hashable, Flight] = {}
        self._joined = telemetry.counter("flights_joined")

    def board(self, key: Hashable, deadline_s: float, *, follows: bool) -> tuple[Flight, Seat] | None:
        """A seat in the flight under this key; None where there is none that takes more, or that lasts so long."""
        flight = self._flights.get(key)
        if flight is None or flight.over or flight.overflowed or flight.deadline_s < deadline_s:
            return None
        self._joined.add()
        return flight, flight.board(follows=follows)

    def begin(self, key: Hashable, fly: Fly, timeout_ms: int, deadline_s: float) -> Flight:
        """A flight that begins now, for others to board where it has a key."""
        flight = Flight(fly, timeout_ms, deadline_s, self._max_bytes)
        if key is not None:
            self._flights[key] = flight
            flight.when_over(lambda: self._forget(key, flight))
        return flight

    def _forget(self, key: Hashable, flight: Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
