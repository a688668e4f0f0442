"""Everything in which SQLite and PostgreSQL differ: engines, connections, transaction starts, upserts, error codes."""

from __future__ import annotations

import enum
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Literal, Protocol

import psycopg
from sqlalchemy import Connection, Engine, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

DialectName = Literal["sqlite", "postgresql"]
Insert = sqlite.Insert | postgresql.Insert

# SQLite calls the deadline check after this many virtual machine steps: some milliseconds of work.
_SQLITE_STEPS_PER_DEADLINE_CHECK = 100_000
# A write-ahead log that one long reader made huge is cut back to this size at the next checkpoint.
_SQLITE_WAL_LIMIT_BYTES = 64 * 1024 * 1024
_SCHEMA_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class DatabaseOptions:
    """Limits of one service's database; every number is positive."""

    pool_size: int = 8
    """PostgreSQL: connections, and threads that use them."""
    sqlite_readers: int = 2
    """SQLite: threads that read beside the one writer."""
    max_waiting: int = 2048
    """Transactions that may wait for a thread; one more is refused as OVERLOADED."""
    transaction_timeout_ms: int = 15_000
    """From the call of read/write to its end: waiting for a thread, and then each statement."""
    connect_timeout_s: int = 5
    """How long a new connection may take to be made."""
    max_attempts: int = 6
    """How often a transaction is tried when the database reports a conflict, a deadlock or a lost connection."""
    prepared_statements: bool = False
    """PostgreSQL: prepare statements on the server. Off is safe behind PgBouncer in transaction mode."""
    exclusive: bool = False
    """SQLite: refuse to open a file that another process has open as exclusive."""


class Fault(enum.Enum):
    """What a driver's error means for the transaction."""

    CONFLICT = "serialization failure or deadlock: rolled back, try again"
    CONNECTION_LOST = "the server or the network ended the connection"
    UNREACHABLE = "no connection could be made, or the server refuses work for now"
    TIMED_OUT = "the statement ran into its deadline"
    STORAGE = "the disk is full, broken, read-only or locked for too long"


class Dialect(Protocol):
    """What a Database needs to know about its kind of server."""

    name: DialectName
    writer_threads: int
    reader_threads: int
    """0 when readers share the writers' threads."""

    def writer_engine(self) -> Engine: ...
    def reader_engine(self, writer: Engine) -> Engine: ...
    def begin(self, connection: Connection, *, write: bool, deadline: float) -> None:
        """Start the transaction; `deadline` in time.monotonic seconds bounds each statement."""
        ...

    def insert(self, table: Table) -> Insert: ...
    def now_us(self, connection: Connection) -> int | None:
        """The server's clock in microseconds UTC; None when the server has none but this machine's."""
        ...

    def fault_of(self, error: DBAPIError) -> Fault | None:
        """What the error means; None for an error of the statement itself (a broken constraint, wrong SQL)."""
        ...


def parse_url(url: str) -> URL:
    """The URL with its driver fixed; ValueError (without the URL, which holds a password) when it is of no use."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError("the database URL is malformed; expected postgresql://... or sqlite:////path/file") from None
    backend = parsed.get_backend_name()
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:" or "mode=memory" in parsed.database:
            raise ValueError("an SQLite database needs a file: sqlite:////path/file.db")
        return parsed.set(drivername="sqlite")
    raise ValueError(f"no support for {backend} databases; use postgresql://... or sqlite:////path/file")


def dialect_for(url: URL, schema: str, options: DatabaseOptions) -> Dialect:
    """The dialect of a URL from `parse_url`; `schema` names the PostgreSQL schema."""
    if not _SCHEMA_NAME.fullmatch(schema):
        raise ValueError(f"not a schema name: {schema!r}")
    if url.get_backend_name() == "sqlite":
        return SqliteDialect(url, options)
    return PostgresqlDialect(url, schema, options)


class SqliteDialect:
    """One file, one writer, a few readers: WAL, synchronous=FULL, BEGIN IMMEDIATE for writers.

    SQLAlchemy, not the driver, starts transactions (isolation_level None), as the SQLAlchemy documentation advises
    for all Python versions: "SQLite: enabling non-legacy transactional modes".
    """

    name: DialectName = "sqlite"
    writer_threads = 1

    def __init__(self, url: URL, options: DatabaseOptions) -> None:
        self._url = url
        self._options = options
        self.reader_threads = options.sqlite_readers
        self.path = Path(url.database or "")

    def writer_engine(self) -> Engine:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._engine(pool_size=1, read_only=False)

    def reader_engine(self, writer: Engine) -> Engine:
        return self._engine(pool_size=self.reader_threads, read_only=True)

    def _engine(self, *, pool_size: int, read_only: bool) -> Engine:
        engine = create_engine(
            self._url,
            pool_size=pool_size,
            max_overflow=0,
            connect_args={
                "isolation_level": None,
                "check_same_thread": False,
                "timeout": self._options.transaction_timeout_ms / 1_000,
                "cached_statements": 512,
            },
        )

        @event.listens_for(engine, "connect")
        def prepare(connection: sqlite3.Connection, record: Any) -> None:
            for pragma in (
                "journal_mode = WAL",
                "synchronous = FULL",
                "foreign_keys = ON",
                f"journal_size_limit = {_SQLITE_WAL_LIMIT_BYTES}",
                "temp_store = MEMORY",
                f"query_only = {'ON' if read_only else 'OFF'}",
            ):
                connection.execute(f"PRAGMA {pragma}").close()
            info = record.info
            connection.set_progress_handler(
                lambda: monotonic() > info.get("deadline", float("inf")), _SQLITE_STEPS_PER_DEADLINE_CHECK
            )

        return engine

    def begin(self, connection: Connection, *, write: bool, deadline: float) -> None:
        connection.info["deadline"] = deadline
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    def insert(self, table: Table) -> Insert:
        return sqlite.insert(table)

    def now_us(self, connection: Connection) -> int | None:
        return None

    def fault_of(self, error: DBAPIError) -> Fault | None:
        code = getattr(error.orig, "sqlite_errorcode", None)
        if code is None:
            return None
        primary = code & 0xFF
        if primary == sqlite3.SQLITE_INTERRUPT:
            return Fault.TIMED_OUT
        if primary in (
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_LOCKED,
            sqlite3.SQLITE_FULL,
            sqlite3.SQLITE_IOERR,
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_READONLY,
        ):
            return Fault.STORAGE
        return None


class PostgresqlDialect:
    """psycopg 3, one connection per thread, no session state, so that PgBouncer in transaction mode may sit between.

    The driver is in autocommit and each transaction starts with one message that also sets the schema and the
    deadlines for this transaction only (SET LOCAL): no round trip more than a bare BEGIN.
    """

    name: DialectName = "postgresql"
    reader_threads = 0

    def __init__(self, url: URL, schema: str, options: DatabaseOptions) -> None:
        self._url = url
        self._schema = schema
        self._options = options
        self.writer_threads = options.pool_size

    def writer_engine(self) -> Engine:
        engine = create_engine(
            self._url,
            pool_size=self._options.pool_size,
            max_overflow=0,
            connect_args={
                "autocommit": True,
                "prepare_threshold": 5 if self._options.prepared_statements else None,
                "connect_timeout": self._options.connect_timeout_s,
                "application_name": f"llmlab-{self._schema}",
                "keepalives": 1,
                "keepalives_idle": 15,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": 30_000,
            },
        )
        return engine

    def reader_engine(self, writer: Engine) -> Engine:
        return writer

    def begin(self, connection: Connection, *, write: bool, deadline: float) -> None:
        timeout_ms = max(1, int((deadline - monotonic()) * 1_000))
        # A reader sees one snapshot for all its statements, as it does on SQLite.
        mode = "" if write else " ISOLATION LEVEL REPEATABLE READ READ ONLY"
        connection.exec_driver_sql(
            f"BEGIN{mode}; SET LOCAL search_path = {self._schema};"
            f" SET LOCAL statement_timeout = {timeout_ms};"
            f" SET LOCAL idle_in_transaction_session_timeout = {timeout_ms}"
        )

    def insert(self, table: Table) -> Insert:
        return postgresql.insert(table)

    def now_us(self, connection: Connection) -> int | None:
        return int(connection.execute(_POSTGRESQL_NOW_US).scalar_one())

    def fault_of(self, error: DBAPIError) -> Fault | None:
        if error.connection_invalidated:
            return Fault.CONNECTION_LOST
        if not isinstance(error.orig, psycopg.Error):
            return None
        state = error.orig.sqlstate
        if state is None:
            # No answer of the server at all: the connection could not be made.
            return Fault.UNREACHABLE if isinstance(error.orig, psycopg.OperationalError) else None
        if state in ("40001", "40P01"):
            return Fault.CONFLICT
        if state in ("57014", "55P03"):
            return Fault.TIMED_OUT
        if state.startswith(("08", "57P")):
            return Fault.CONNECTION_LOST
        # Too many connections, wrong password, unknown database, or a standby that only reads.
        if state.startswith(("53", "28", "3D")) or state == "25006":
            return Fault.UNREACHABLE
        return None


_POSTGRESQL_NOW_US = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
