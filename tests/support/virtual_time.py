"""An event loop whose time passes only when nothing is left to do: hours of timers in milliseconds, in one order."""

from __future__ import annotations

import asyncio
import selectors
import sqlite3
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar, TypeVarTuple

from sqlalchemy import Connection

from services.runtime.database import Database

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

EPOCH_US = 1_800_000_000_000_000


class VirtualClock:
    """The clock of a virtual loop; implements services.runtime.clock.Clock."""

    def __init__(self) -> None:
        self.passed_s = 0.0
        self.off_s = 0.0
        """How far the wall clock is off; what somebody who sets it changes."""

    def now_us(self) -> int:
        return EPOCH_US + round((self.passed_s + self.off_s) * 1_000_000)

    def monotonic_s(self) -> float:
        return self.passed_s


class _Selector(selectors.BaseSelector):
    """Waits for no file: a wait moves the clock instead."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, int(fileobj), events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            message = "every task waits for ever: a deadlock"
            raise RuntimeError(message)
        self._clock.passed_s += max(0.0, timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(_Selector(clock))
        self._virtual_clock = clock

    def time(self) -> float:
        return self._virtual_clock.monotonic_s()


def run_virtually(main: Callable[[VirtualClock], Coroutine[Any, Any, T]]) -> T:
    """Run `main(clock)` in virtual time."""
    clock = VirtualClock()
    with asyncio.Runner(loop_factory=lambda: _VirtualLoop(clock)) as runner:
        return runner.run(main(clock))


class InlineDatabase(Database):
    """A database whose transactions run in the loop itself, one after the other: no thread decides an order.

    It outlives the loops that use it: what it has learnt about statements costs more than many a story.
    """

    def __init__(self, url: str, *, schema: str) -> None:
        super().__init__(url, schema=schema)
        self._connections = {True: self._writer.connect(), False: self._reader.connect()}

    def begin_anew(self, template: sqlite3.Connection, clock: VirtualClock) -> None:
        """Take the content of another database, and the time from a clock."""
        writer = self._connections[True].connection.driver_connection
        assert isinstance(writer, sqlite3.Connection)
        template.backup(writer)
        self._connections[True].rollback()
        self._clock = clock

    async def read(self, fn: Callable[[Connection, *Ts], T], *args: *Ts, timeout_s: float | None = None) -> T:
        """Run in one transaction, after letting others go first."""
        await asyncio.sleep(0)
        return self.at_once(fn, *args, write=False)

    async def write(self, fn: Callable[[Connection, *Ts], T], *args: *Ts, timeout_s: float | None = None) -> T:
        """Run in one transaction, after letting others go first."""
        await asyncio.sleep(0)
        return self.at_once(fn, *args, write=True)

    def at_once(self, fn: Callable[[Connection, *Ts], T], *args: *Ts, write: bool = False) -> T:
        """Run in one transaction before anybody else does anything."""
        connection = self._connections[write]
        try:
            self._dialect.begin(connection, write=write, deadline=float("inf"))
            result = fn(connection, *args)
        except BaseException:
            connection.rollback()
            raise
        connection.commit()
        return result

    def dispose(self) -> None:
        """Close every connection; the threads of the class above were never used."""
        for connection in self._connections.values():
            connection.close()
        self._reader.dispose()
        self._writer.dispose()
