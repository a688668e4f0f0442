"""PostgreSQL through psycopg 3, without session state: PgBouncer in transaction mode may sit between."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any

import psycopg
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    any_,
    bindparam,
    create_engine,
    event,
    func,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import URL, ExecutionContext
from sqlalchemy.exc import DBAPIError
from typing_extensions import override

from services.runtime.copy_text import CopyText
from services.runtime.dialects import (
    BINARY_ROWS,
    DatabaseOptions,
    Dialect,
    DialectName,
    Fault,
    Insert,
    InsertStatements,
    Rows,
    checked_schema,
)
from services.runtime.exchange import Exchange
from services.runtime.exchange_postgresql import (
    BEGIN,
    ExchangeStatements,
    PostgresqlExchange,
    forget_prepared_names,
    raised_by,
)
from services.runtime.libpq_pipeline import Sent

# Connections are made anew at this age, so that a balancer in front of the server can move them.
_CONNECTION_AGE_MAX_S = 1_800
_PREPARE_AFTER = 5
_READ_ONLY_TRANSACTION = "25006"
# https://www.postgresql.org/docs/current/errcodes-appendix.html; the longest prefix that matches decides.
_FAULTS = {
    "40001": Fault.CONFLICT,
    "40P01": Fault.CONFLICT,
    "57014": Fault.TIMED_OUT,
    "55P03": Fault.TIMED_OUT,
    "08": Fault.CONNECTION_LOST,
    "57P": Fault.CONNECTION_LOST,
    "53": Fault.UNREACHABLE,
    "28": Fault.UNREACHABLE,
    "3D": Fault.UNREACHABLE,
    _READ_ONLY_TRANSACTION: Fault.UNREACHABLE,
}
_CLOCK: ColumnElement[int | None] = literal_column(
    "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint", BigInteger
)
_NOW_US = select(_CLOCK)
_COMPILER = postgresql.dialect()  # type: ignore[no-untyped-call]


class PostgresqlDialect(Dialect):
    """A schema of a PostgreSQL database.

    The driver is in autocommit, and one message starts each transaction and sets the schema and the deadlines for this
    transaction alone (SET LOCAL): no more round trips than a bare BEGIN. That message is also the pool's ping: where
    it finds the connection dead, the transaction is tried on a new one.
    """

    name: DialectName = "postgresql"
    reader_threads = 0
    clock = _CLOCK

    def __init__(self, url: URL, schema: str, options: DatabaseOptions) -> None:
        self._url = url
        self._schema = checked_schema(schema)
        self._options = options
        self._inserts = InsertStatements(_unnest)
        self._copies: dict[tuple[str, tuple[str, ...]], CopyText] = {}
        self._statements = ExchangeStatements(prepared=options.prepared_statements)
        self._settings = (
            f"SELECT set_config('search_path', '{self._schema}', true), "
            "set_config('plan_cache_mode', 'force_custom_plan', true), set_config('statement_timeout', $1, true), "
            "set_config('idle_in_transaction_session_timeout', $1, true)"
        ).encode()
        self.writer_threads = options.pool_size

    @override
    def writer_engine(self) -> Engine:
        engine = create_engine(
            self._url,
            pool_size=self._options.pool_size,
            max_overflow=0,
            pool_recycle=_CONNECTION_AGE_MAX_S,
            # It would ask each new connection about an extension that no schema of ours uses.
            use_native_hstore=False,
            connect_args={
                "autocommit": True,
                "prepare_threshold": _PREPARE_AFTER if self._options.prepared_statements else None,
                "connect_timeout": self._options.connect_timeout_s,
                "application_name": f"llmlab-{self._schema}",
                "keepalives": 1,
                "keepalives_idle": 15,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": 30_000,
            },
        )
        forget_prepared_names(engine)
        event.listen(engine, "before_cursor_execute", _choose_format)
        return engine

    @override
    def reader_engine(self, writer: Engine) -> Engine:
        return writer

    @override
    def begin(self, connection: Connection, *, write: bool, deadline: float) -> None:
        timeout_ms = _timeout_ms(deadline)
        # A reader sees one snapshot for all its statements, as it does on SQLite.
        mode = "" if write else " ISOLATION LEVEL REPEATABLE READ READ ONLY"
        connection.exec_driver_sql(
            f"BEGIN{mode}; SET LOCAL search_path = {self._schema};"
            # A prepared statement is parsed once but planned each time: a plan that was made while a table was small
            # would read all of it when it has grown, until somebody analyses it.
            " SET LOCAL plan_cache_mode = force_custom_plan;"
            f" SET LOCAL statement_timeout = {timeout_ms};"
            # A process that stalls in mid-transaction must not keep its row locks.
            f" SET LOCAL idle_in_transaction_session_timeout = {timeout_ms}"
        )

    @override
    def exchange(self, connection: Connection, *, deadline: float) -> Exchange:
        opening = (BEGIN, Sent(self._settings, [b"%d" % _timeout_ms(deadline)]))
        return PostgresqlExchange(connection, self._statements, self.insert_rows, opening)

    @override
    def exchange_within(self, connection: Connection) -> Exchange:
        return PostgresqlExchange(connection, self._statements, self.insert_rows)

    @override
    def insert(self, table: Table) -> Insert:
        return postgresql.insert(table)

    @override
    def among(self, column: Column[Any], parameter: str) -> ColumnElement[bool]:
        return column == any_(bindparam(parameter, type_=postgresql.ARRAY(column.type)))

    @override
    def one_by_one(
        self, table: Table, column: Column[Any], parameter: str, conditions: Sequence[ColumnElement[bool]]
    ) -> Select[Any]:
        keys = bindparam(parameter, type_=postgresql.ARRAY(column.type))
        wanted = func.unnest(keys).table_valued(Column("key", column.type), name="wanted").render_derived()
        # The planner cannot take the limit apart from the look-up, so it looks up each row by itself.
        row = select(table).where(*conditions, column == wanted.c.key).limit(literal_column("1")).lateral("found")
        return select(row).select_from(wanted.join(row, true()))

    @override
    def insert_rows(self, connection: Connection, table: Table, rows: Rows, on_conflict: str) -> int:
        columns = tuple(rows[0])
        if not on_conflict:
            # A third of an array's CPU for a row of 30 columns, on both sides; it takes one round trip more.
            return self._copy_rows(connection, table, columns, rows)
        statement = self._inserts.statement(table, columns, on_conflict)
        values = tuple([row[name] for row in rows] for name in columns)
        return connection.exec_driver_sql(statement, values, execution_options={"preserve_rowcount": True}).rowcount

    def _copy_rows(self, connection: Connection, table: Table, columns: tuple[str, ...], rows: Rows) -> int:
        key = (table.name, columns)
        text_of = self._copies.get(key) or self._copies.setdefault(key, CopyText(table, columns))
        names = ", ".join(f'"{name}"' for name in columns)
        statement = f'COPY "{table.name}" ({names}) FROM STDIN'
        data = text_of.data(rows)
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        try:
            with driver.cursor() as cursor, cursor.copy(statement) as copy:
                copy.write(data)
        except psycopg.Error as error:
            raise raised_by(connection, driver, statement, error) from error
        return len(rows)

    @override
    def now_us(self, connection: Connection) -> int | None:
        return connection.execute(_NOW_US).scalar_one()

    @override
    def fault_of(self, error: DBAPIError, *, write: bool) -> Fault | None:
        if error.connection_invalidated:
            return Fault.CONNECTION_LOST
        if not isinstance(error.orig, psycopg.Error):
            return None
        state = error.orig.sqlstate
        if state is None:
            # No word from the server: the connection could not even be made.
            return Fault.UNREACHABLE if isinstance(error.orig, psycopg.OperationalError) else None
        if state == _READ_ONLY_TRANSACTION and not write:
            # A statement that writes, inside a read: the program's mistake, not a standby's refusal.
            return None
        for length in (5, 3, 2):
            if state[:length] in _FAULTS:
                return _FAULTS[state[:length]]
        return None


def _choose_format(_connection: Connection, cursor: Any, *statement: Any) -> None:
    context: ExecutionContext | None = statement[2]
    if context is not None and context.execution_options.keys() & BINARY_ROWS.keys():
        cursor.format = psycopg.pq.Format.BINARY


def _timeout_ms(deadline: float) -> int:
    return max(1, int((deadline - monotonic()) * 1_000))


def _unnest(table: Table, columns: tuple[str, ...]) -> str:
    # One array per column in binary form: a quarter of executemany's CPU at 64 rows, on both sides.
    arrays = ", ".join(f"%b::{table.c[name].type.compile(_COMPILER)}[]" for name in columns)
    return f"SELECT * FROM unnest({arrays})"  # noqa: S608 (the names of our own types)
