"""SQLite: one file, one writer, a few readers; WAL, synchronous=FULL, BEGIN IMMEDIATE for writers."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    bindparam,
    create_engine,
    event,
    literal_column,
    select,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from typing_extensions import override

from services.runtime.dialects import DatabaseOptions, Dialect, DialectName, Fault, Insert, InsertStatements, Rows
from services.runtime.exchange import Exchange, PlainExchange

# SQLite calls the deadline check after this many steps of its virtual machine: some milliseconds of work.
_STEPS_PER_DEADLINE_CHECK = 100_000
# A write-ahead log that one long reader made huge is cut back to this size at the next checkpoint.
_WAL_LIMIT_BYTES = 64 * 1024 * 1024
_CACHED_STATEMENTS = 512
_STORAGE_CODES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CORRUPT,
    }
)


class SqliteDialect(Dialect):
    """A file as a database.

    SQLAlchemy, not the driver, starts transactions (isolation_level None), as its documentation advises for all
    Python versions: "SQLite: enabling non-legacy transactional modes".
    """

    name: DialectName = "sqlite"
    writer_threads = 1
    clock: ColumnElement[int | None] = literal_column("NULL", BigInteger)

    def __init__(self, url: URL, options: DatabaseOptions) -> None:
        self._url = url
        self._options = options
        self._inserts = InsertStatements(_values)
        self.reader_threads = options.sqlite_readers

    @override
    def writer_engine(self) -> Engine:
        Path(self._url.database or "").parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._engine(pool_size=1, read_only=False)

    @override
    def reader_engine(self, writer: Engine) -> Engine:
        return self._engine(pool_size=self.reader_threads, read_only=True)

    def _engine(self, *, pool_size: int, read_only: bool) -> Engine:
        engine = create_engine(
            self._url,
            pool_size=pool_size,
            max_overflow=0,
            connect_args={
                "isolation_level": None,
                # A connection wanders between the threads of its pool, one at a time.
                "check_same_thread": False,
                "timeout": self._options.transaction_timeout_ms / 1_000,
                "cached_statements": _CACHED_STATEMENTS,
            },
        )

        @event.listens_for(engine, "connect")
        def prepare(connection: sqlite3.Connection, record: Any) -> None:
            for pragma in (
                "journal_mode = WAL",
                "synchronous = FULL",
                "foreign_keys = ON",
                f"journal_size_limit = {_WAL_LIMIT_BYTES}",
                "temp_store = MEMORY",
                f"query_only = {'ON' if read_only else 'OFF'}",
            ):
                connection.execute(f"PRAGMA {pragma}").close()
            info = record.info
            connection.set_progress_handler(
                lambda: monotonic() > info.get("deadline", float("inf")), _STEPS_PER_DEADLINE_CHECK
            )

        return engine

    @override
    def begin(self, connection: Connection, *, write: bool, deadline: float) -> None:
        connection.info["deadline"] = deadline
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    @override
    def exchange(self, connection: Connection, *, deadline: float) -> Exchange:
        self.begin(connection, write=True, deadline=deadline)
        return self.exchange_within(connection)

    @override
    def exchange_within(self, connection: Connection) -> Exchange:
        return PlainExchange(connection, self.insert_rows)

    @override
    def insert(self, table: Table) -> Insert:
        return sqlite.insert(table)

    @override
    def among(self, column: Column[Any], parameter: str) -> ColumnElement[bool]:
        return column.in_(bindparam(parameter, expanding=True))

    @override
    def one_by_one(
        self, table: Table, column: Column[Any], parameter: str, conditions: Sequence[ColumnElement[bool]]
    ) -> Select[Any]:
        return select(table).where(*conditions, self.among(column, parameter))

    @override
    def insert_rows(self, connection: Connection, table: Table, rows: Rows, on_conflict: str) -> int:
        columns = tuple(rows[0])
        statement = self._inserts.statement(table, columns, on_conflict)
        values = [tuple([row[name] for name in columns]) for row in rows]
        return connection.exec_driver_sql(statement, values).rowcount

    @override
    def now_us(self, connection: Connection) -> int | None:
        return None

    @override
    def fault_of(self, error: DBAPIError, *, write: bool) -> Fault | None:
        code: int = getattr(error.orig, "sqlite_errorcode", 0)
        primary = code & 0xFF
        if primary == sqlite3.SQLITE_INTERRUPT:
            return Fault.TIMED_OUT
        if primary == sqlite3.SQLITE_READONLY and not write:
            # A statement that writes, inside a read: the program's mistake, not the disk's.
            return None
        return Fault.STORAGE if primary in _STORAGE_CODES else None


def _values(_table: Table, columns: tuple[str, ...]) -> str:
    return f"VALUES ({', '.join('?' * len(columns))})"
