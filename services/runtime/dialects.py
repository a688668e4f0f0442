"""What a Database knows about its kind of server: options, faults, and the port that each dialect implements."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sqlalchemy import Column, ColumnElement, Connection, Engine, Select, Table, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

if TYPE_CHECKING:
    from services.runtime.exchange import Exchange

DialectName = Literal["sqlite", "postgresql"]
Insert = sqlite.Insert | postgresql.Insert
Rows = Sequence[Mapping[str, Any]]

# What PostgreSQL thinks dear it would compile first, for longer than such statements then take.
_IN_MEMORY = {"work_mem": "'64MB'", "jit": "off"}
# Other processes take longer to start than the rows take to read.
_FOLLOWING_INDEXES = {
    **_IN_MEMORY,
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "max_parallel_workers_per_gather": "0",
}
BINARY_ROWS = {"binary_rows": True}
"""Options of statements whose rows are mostly bytes: PostgreSQL sends these as they are, not as text twice as long."""
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
    """From the call of read/write on: bounds the wait for a thread, and then each statement."""
    connect_timeout_s: int = 5
    """How long a new connection may take to be made."""
    max_attempts: int = 6
    """How often a transaction is tried when the database reports a conflict, a deadlock or a lost connection."""
    prepared_statements: bool = True
    """PostgreSQL: prepare statements on the server; off behind a PgBouncer in transaction mode that forgets them."""


class Fault(enum.Enum):
    """What a driver's error means for the transaction."""

    CONFLICT = "serialization failure or deadlock"
    CONNECTION_LOST = "the connection was lost"
    UNREACHABLE = "no connection could be made, or the server refuses work for now"
    TIMED_OUT = "a statement ran into its deadline"
    STORAGE = "the file is locked for too long, read-only or broken, or the disk is full"


class Dialect(Protocol):
    """What a Database needs from its kind of server."""

    name: DialectName
    writer_threads: int
    reader_threads: int
    """0 when readers share the writers' threads and connections."""
    clock: ColumnElement[int | None]
    """The server's clock, microseconds UTC; NULL when there is no clock but this machine's."""

    def writer_engine(self) -> Engine:
        """The engine of transactions that write."""
        ...

    def reader_engine(self, writer: Engine) -> Engine:
        """The engine of transactions that only read; may be the writer's."""
        ...

    def begin(self, connection: Connection, *, write: bool, deadline: float) -> None:
        """Start the transaction; `deadline` (time.monotonic seconds) bounds each statement."""
        ...

    def exchange(self, connection: Connection, *, deadline: float) -> Exchange:
        """Start a transaction that writes, as `begin` does; its `commit` has to be called before the connection's."""
        ...

    def exchange_within(self, connection: Connection) -> Exchange:
        """An exchange in a transaction that has begun, and that its owner commits; `flush` has to be called."""
        ...

    def insert(self, table: Table) -> Insert:
        """The dialect's own INSERT, which knows ON CONFLICT."""
        ...

    def among(self, column: Column[Any], parameter: str) -> ColumnElement[bool]:
        """The condition that the column's value is in the list bound to `parameter`."""
        ...

    def one_by_one(
        self, table: Table, column: Column[Any], parameter: str, conditions: Sequence[ColumnElement[bool]]
    ) -> Select[Any]:
        """The rows whose column is in the list bound to `parameter`, each looked up by itself."""
        ...

    def insert_rows(self, connection: Connection, table: Table, rows: Rows, on_conflict: str) -> int:
        """Insert plain values in one statement, the cheapest way this driver has; returns the rows written."""
        ...

    def now_us(self, connection: Connection) -> int | None:
        """The server's clock in microseconds UTC; None when there is no clock but this machine's."""
        ...

    def fault_of(self, error: DBAPIError, *, write: bool) -> Fault | None:
        """What the error means; None for an error of the statement itself (a broken constraint, wrong SQL)."""
        ...


def parse_url(url: str) -> URL:
    """The URL with its driver fixed; ValueError (without the URL, which holds a password) when it is of no use."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError("the database URL is malformed; expected postgresql://... or sqlite:////path/file") from None
    backend = parsed.get_backend_name()
    if backend in {"postgresql", "postgres"}:
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:" or "mode=memory" in parsed.database:
            raise ValueError("an SQLite database needs a file: sqlite:////path/file.db")
        return parsed.set(drivername="sqlite")
    raise ValueError(f"no support for {backend} databases; use postgresql://... or sqlite:////path/file")


def checked_schema(schema: str) -> str:
    """`schema` if it can stand in SQL without quotes, else ValueError."""
    if not _SCHEMA_NAME.fullmatch(schema):
        raise ValueError(f"not a schema name: {schema!r}")
    return schema


def json_entries(connection: Connection, column: str, name: str) -> str:
    """SQL for a FROM, in statements written as text: the entries of the JSON object in a text column.

    They are called `name` and have the text columns key and value; the column's table stands before them.
    """
    if connection.dialect.name == "postgresql":
        return f"json_each_text(CAST({column} AS json)) AS {name}"
    return f"json_each({column}) AS {name}"


def each_found(connection: Connection, listed: str, table: str, name: str, condition: str, order: str = "") -> str:
    """SQL for a FROM: for each row of the short list `listed` the rows of a huge table, called `name`, that fit it.

    The rows are looked for anew, by an index, for each row of the list. PostgreSQL knows nothing of the list and would
    read the whole table otherwise; SQLite keeps to the order of a cross join. `order` is the column that is the last
    of the index to take, where others look alike.
    """
    if connection.dialect.name == "postgresql":
        ordered = f" ORDER BY {name}.{order}" if order else ""
        found = f"SELECT * FROM {table} AS {name} WHERE {condition}{ordered} OFFSET 0"  # noqa: S608 - our own names
        return f"{listed} CROSS JOIN LATERAL ({found}) AS {name}"
    return f"{listed} CROSS JOIN {table} AS {name} ON {condition}"


def picked_once(connection: Connection, picked: Select[Any]) -> Select[Any]:
    """What `picked` gives, for the IN of a statement that changes rows: rows that it locks, at most so many.

    PostgreSQL may run such a subquery anew for each row that it compares; each time it skips what it has locked before
    and picks others, so that more rows than its LIMIT are changed in all. A materialized one is run once. SQLite locks
    no rows, and its driver does not count what a statement with a CTE changes.
    """
    if connection.dialect.name == "postgresql":
        return select(picked.cte("picked").prefix_with("MATERIALIZED"))
    return picked


def follow_indexes(connection: Connection) -> None:
    """From here to the end of the transaction read tables through their indexes, and sum up in memory, in one process.

    For statements that read thousands of rows out of millions. SQLite does no other thing.
    """
    if connection.dialect.name == "postgresql":
        _set_local(connection, _FOLLOWING_INDEXES)


def sort_in_memory(connection: Connection) -> None:
    """Let the statements of this transaction sort and group some hundred thousand rows in memory.

    PostgreSQL's default of 4 MB is made for many small queries at once; SQLite uses what it needs.
    """
    if connection.dialect.name == "postgresql":
        _set_local(connection, _IN_MEMORY)


def _set_local(connection: Connection, settings: Mapping[str, str]) -> None:
    connection.exec_driver_sql("; ".join(f"SET LOCAL {name} = {value}" for name, value in settings.items()))


class InsertStatements:
    """`INSERT INTO table (columns) <source>` texts, each built once; as many as the program has call sites."""

    def __init__(self, source: Callable[[Table, tuple[str, ...]], str]) -> None:
        self._source = source
        self._statements: dict[tuple[str, tuple[str, ...], str], str] = {}

    def statement(self, table: Table, columns: tuple[str, ...], on_conflict: str) -> str:
        """The text for these columns; `on_conflict` is what follows ON CONFLICT, or empty."""
        key = (table.name, columns, on_conflict)
        found = self._statements.get(key)
        if found is None:
            names = ", ".join(f'"{name}"' for name in columns)
            suffix = f" ON CONFLICT {on_conflict}" if on_conflict else ""
            found = f'INSERT INTO "{table.name}" ({names}) {self._source(table, columns)}{suffix}'
            self._statements[key] = found
        return found
