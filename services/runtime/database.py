"""A service's database: plain SQLAlchemy Core functions, run in threads, one transaction per call.

A store writes functions that take a `sqlalchemy.Connection` and calls `await database.read(fn, ...)` or
`await database.write(fn, ...)`. Each call is ONE transaction: it commits when the function returns and rolls back when
it raises. The function may be run again (after a deadlock, a serialization failure, a lost connection), so it touches
nothing but its connection and its arguments. Tables carry no schema name; on PostgreSQL they live in the schema that
bears the service's name.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from time import monotonic
from typing import Any, TypeVar, TypeVarTuple

from sqlalchemy import Column, ColumnElement, Connection, Engine, Select, Table, text
from sqlalchemy.exc import DBAPIError

from services.runtime import telemetry
from services.runtime.clock import SYSTEM_CLOCK, Clock
from services.runtime.dialect_sqlite import SqliteDialect
from services.runtime.dialects import (
    DatabaseOptions,
    Dialect,
    DialectName,
    Fault,
    Insert,
    Rows,
    checked_schema,
    parse_url,
)
from services.runtime.errors import Conflict, DeadlineExceeded, DomainError, Unavailable
from services.runtime.exchange import Exchange
from services.runtime.revisions import is_up_to_date
from services.runtime.threads import WorkerThreads

T = TypeVar("T")
C = TypeVar("C")
Ts = TypeVarTuple("Ts")

Commit = Callable[[], None]

_log = logging.getLogger(__name__)

# Pauses between attempts: full jitter under 5 ms * 2^attempt, at most this.
_BACKOFF_BASE_S = 0.005
_BACKOFF_MAX_S = 0.2


class Database:
    """Threads and connections of one service's schema. Made by `Database.open`."""

    def __init__(self, url: str, *, schema: str, options: DatabaseOptions | None = None, clock: Clock | None = None):
        """Connect to nothing yet. `clock` replaces the server's clock in `now_us`. Raises as `open` does."""
        self.options = options or DatabaseOptions()
        self.url = parse_url(url)
        self.schema = checked_schema(schema)
        self._clock = clock
        self._commits = telemetry.counter("commits", schema=schema)
        self._rows = telemetry.counter("rows_inserted", schema=schema)
        self._read_ms = telemetry.histogram("database_ms", schema=schema, kind="read")
        self._write_ms = telemetry.histogram("database_ms", schema=schema, kind="write")
        self._dialect: Dialect
        if self.url.get_backend_name() == "sqlite":
            self._dialect = SqliteDialect(self.url, self.options)
        else:
            # Embedded services do without it and its driver.
            from services.runtime.dialect_postgresql import PostgresqlDialect

            self._dialect = PostgresqlDialect(self.url, schema, self.options)
        self._writer: Engine = self._dialect.writer_engine()
        self._reader: Engine = self._dialect.reader_engine(self._writer)
        waiting = self.options.max_waiting
        self._writers = WorkerThreads(f"{schema}-db", self._dialect.writer_threads, waiting)
        self._readers = self._writers
        if self._dialect.reader_threads:
            self._readers = WorkerThreads(f"{schema}-db-read", self._dialect.reader_threads, waiting)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        schema: str,
        migrations: str | None = None,
        options: DatabaseOptions | None = None,
        clock: Clock | None = None,
    ) -> AsyncIterator[Database]:
        """Open the database, bring its schema up to date, and close it at the end.

        `migrations` names a package of Alembic revisions ("services.cost.migrations"); without it the schema is taken
        as it is. Raises ValueError for a useless URL, Unavailable when the database cannot be reached.
        """
        database = cls(url, schema=schema, options=options, clock=clock)
        try:
            await database.check()
            if migrations is not None and not await database.read(is_up_to_date, migrations):
                # Alembic takes as long to import as SQLAlchemy, and most starts have nothing to migrate.
                from services.runtime.migrate import MIGRATION_TIMEOUT_S, upgrade

                await database.write(upgrade, schema, migrations, timeout_s=MIGRATION_TIMEOUT_S)
            yield database
        finally:
            await database.close()

    @property
    def dialect(self) -> DialectName:
        """Name of the kind of server, "sqlite" or "postgresql"."""
        return self._dialect.name

    def upsert(self, table: Table) -> Insert:
        """The dialect's INSERT, which has `on_conflict_do_nothing` and `on_conflict_do_update`."""
        return self._dialect.insert(table)

    def among(self, column: Column[Any], parameter: str) -> ColumnElement[bool]:
        """The condition that the column's value is in the list bound to `parameter`, for statements built once.

        On PostgreSQL the list is one array: psycopg parses a statement of many parameters anew each time.
        """
        return self._dialect.among(column, parameter)

    def one_by_one(
        self, table: Table, column: Column[Any], parameter: str, *conditions: ColumnElement[bool]
    ) -> Select[Any]:
        """The rows whose column is in the list bound to `parameter`, by one look-up in a unique index for each.

        The conditions and the column have to be the whole of a unique key. For tables that have just begun to grow:
        while PostgreSQL has no statistics of one it takes any index for the right one, and reads all of it.
        """
        return self._dialect.one_by_one(table, column, parameter, conditions)

    def insert_rows(self, connection: Connection, table: Table, rows: Rows, *, on_conflict: str = "") -> int:
        """Insert rows of plain values (str, int, float, bool, bytes, None) in one statement; returns how many it wrote.

        The cheapest way that each driver has, for paths where a row's microseconds count. All rows have the columns of
        the first; defaults of the MetaData are not applied. `on_conflict` is SQL that both dialects share and follows
        ON CONFLICT: "DO NOTHING", "(day) DO UPDATE SET cost = spend.cost + excluded.cost"; an update needs rows that
        differ in the conflict's columns.
        """
        if not rows:
            return 0
        self._rows.add(len(rows))
        return self._dialect.insert_rows(connection, table, rows, on_conflict)

    def now_us(self, connection: Connection) -> int:
        """The database's clock, microseconds UTC.

        On PostgreSQL the server's (one round trip), on SQLite this machine's; the clock given to `open` replaces both.
        """
        if self._clock is not None:
            return self._clock.now_us()
        return self.time_of(self._dialect.now_us(connection))

    @property
    def clock(self) -> ColumnElement[int | None]:
        """The server's clock as a column, for statements that read something else too; `time_of` takes its value."""
        return self._dialect.clock

    def time_of(self, server_us: int | None) -> int:
        """What `now_us` would have said when the column `clock` was read."""
        if self._clock is not None:
            return self._clock.now_us()
        return SYSTEM_CLOCK.now_us() if server_us is None else server_us

    async def read(self, fn: Callable[[Connection, *Ts], T], *args: *Ts, timeout_s: float | None = None) -> T:
        """Run `fn(connection, *args)` in a read-only transaction that sees one snapshot.

        Raises what `fn` raises, and for the database's own troubles DeadlineExceeded, ResourceExhausted(OVERLOADED)
        and Unavailable(DEPENDENCY_UNAVAILABLE). `timeout_s` replaces the option transaction_timeout_ms.
        """
        deadline = self._deadline(timeout_s)
        return await self._readers.run(
            lambda: self._transact(self._reader, deadline, fn, args, write=False), deadline=deadline
        )

    async def write(self, fn: Callable[[Connection, *Ts], T], *args: *Ts, timeout_s: float | None = None) -> T:
        """Run `fn(connection, *args)` in a transaction that commits when it returns.

        Raises as `read` does, and Conflict when conflicting transactions won every attempt. A caller that is cancelled
        leaves at once: a transaction that has not begun is dropped, one that has begun still commits or rolls back.
        After Unavailable or DeadlineExceeded the transaction is not committed, unless the connection broke during
        the commit itself, which the message says: a write must be safe to repeat.
        """
        deadline = self._deadline(timeout_s)
        return await self._writers.run(
            lambda: self._transact(self._writer, deadline, fn, args, write=True), deadline=deadline
        )

    async def exchange(self, fn: Callable[[Exchange, *Ts], T], *args: *Ts) -> T:
        """As `write`, for hot paths: `fn` gets an Exchange, whose statements travel together.

        One that asks nothing meets a lost connection at its commit only, where it cannot be tried again.
        """
        deadline = self._deadline(None)
        return await self._writers.run(
            lambda: self._attempt(self._writer, deadline, self._exchange, fn, args, write=True), deadline=deadline
        )

    @contextmanager
    def exchange_within(self, connection: Connection) -> Iterator[Exchange]:
        """An exchange within a transaction of `write`; all that it was told is sent at the end."""
        exchange = self._dialect.exchange_within(connection)
        yield exchange
        exchange.flush()

    async def check(self) -> None:
        """Readiness: one trivial read; raises as `read` does."""
        await self.read(_probe)

    async def close(self) -> None:
        """Let running and waiting transactions finish, then close every connection."""
        await self._readers.close()
        await self._writers.close()
        self._reader.dispose()
        self._writer.dispose()

    def _deadline(self, timeout_s: float | None) -> float:
        return monotonic() + (self.options.transaction_timeout_ms / 1_000 if timeout_s is None else timeout_s)

    def _begin(self, connection: Connection, deadline: float, *, write: bool) -> tuple[Connection, Commit]:
        self._dialect.begin(connection, write=write, deadline=deadline)
        return connection, connection.commit

    def _exchange(self, connection: Connection, deadline: float) -> tuple[Exchange, Commit]:
        exchange = self._dialect.exchange(connection, deadline=deadline)

        def commit() -> None:
            exchange.commit()
            connection.commit()

        return exchange, commit

    def _transact(
        self, engine: Engine, deadline: float, fn: Callable[[Connection, *Ts], T], args: tuple[*Ts], *, write: bool
    ) -> T:
        return self._attempt(engine, deadline, partial(self._begin, write=write), fn, args, write=write)

    def _attempt(
        self,
        engine: Engine,
        deadline: float,
        begin: Callable[[Connection, float], tuple[C, Commit]],
        fn: Callable[[C, *Ts], T],
        args: tuple[*Ts],
        *,
        write: bool,
    ) -> T:
        """In a thread: run the transaction, again where that is safe and helps."""
        for attempt in range(1, self.options.max_attempts + 1):
            committing = False
            began_s = monotonic()
            try:
                with engine.connect() as connection:
                    transaction, commit = begin(connection, deadline)
                    result = fn(transaction, *args)
                    committing = write
                    commit()
                if write:
                    self._commits.add()
                (self._write_ms if write else self._read_ms).record((monotonic() - began_s) * 1_000)
                return result
            except DBAPIError as error:
                fault = self._dialect.fault_of(error, write=write)
                if fault is None:
                    raise
                again = fault is Fault.CONFLICT or (fault is Fault.CONNECTION_LOST and not committing)
                pause_s = random.uniform(0, min(_BACKOFF_MAX_S, _BACKOFF_BASE_S * 2**attempt))  # noqa: S311
                if not again or attempt == self.options.max_attempts or monotonic() + pause_s > deadline:
                    raise self._as_domain_error(fault, error, committing=committing) from error
                time.sleep(pause_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _as_domain_error(self, fault: Fault, error: DBAPIError, *, committing: bool) -> DomainError:
        # The driver's words go to the log, for the operator; a caller of the service learns what to do.
        _log.warning("database of %s: %s: %s", self.schema, fault.value, str(error.orig).strip())
        if fault is Fault.CONFLICT:
            return Conflict("CONFLICT", f"other work on the same {self.schema} rows kept winning; try again")
        if fault is Fault.TIMED_OUT:
            return DeadlineExceeded(
                "DEADLINE_EXCEEDED", f"the database of {self.schema} did not answer in time; nothing was changed"
            )
        outcome = "nothing was changed"
        if committing:
            outcome = "it happened during the commit, so the change may be there or not"
        return Unavailable(
            "DEPENDENCY_UNAVAILABLE",
            f"the database of {self.schema} is not available ({fault.value}); {outcome}; try again, and if it lasts "
            f"check LLMLAB_{self.schema.upper()}_DATABASE_URL or LLMLAB_DATABASE_URL",
        )


def _probe(connection: Connection) -> None:
    connection.execute(text("SELECT 1"))
