"""Exchanges with PostgreSQL: what is told and asked travels in one message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGresult
from sqlalchemy import Connection, Engine, Table, event
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from services.runtime.dialects import InsertStatements, Rows
from services.runtime.exchange import Answer, InsertRows, Question, Statement
from services.runtime.libpq_pipeline import PreparedNames, Sent, run_together

_FEW_ROWS: Final = 6
"""So many rows are inserted one by one, without a wait; for more COPY is worth its two round trips."""
_NAMES: Final = "prepared_names"
_BACKSLASH: Final = "\\"
_QUOTE: Final = '"'
_COMPILER: Final = postgresql.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]

BEGIN: Final = Sent(b"BEGIN")
_COMMIT: Final = Sent(b"COMMIT")
_UNLOCK_EARLY: Final = Sent(b"SET LOCAL synchronous_commit = off")
# A record in the log, committed as the server is configured to: all that is before it in the log is as durable then.
_MAKE_DURABLE: Final = Sent(b"SELECT pg_logical_emit_message(true, 'llmlab', '')")


class ExchangeStatements:
    """The texts of statements, each built once; as many as the program has call sites."""

    def __init__(self, *, prepared: bool) -> None:
        """Whether to prepare each on the server at its first use."""
        self._prepared = prepared
        self._single = InsertStatements(_values)
        self._arrays = InsertStatements(_unnest)
        self._compiled: dict[Statement, tuple[bytes, Sequence[tuple[str, Any]]]] = {}

    def names_of(self, connection: Connection) -> PreparedNames | None:
        """What the connection's session has prepared; None where nothing is to be."""
        return connection.info.setdefault(_NAMES, PreparedNames()) if self._prepared else None

    def of(self, statement: Statement, values: Mapping[str, Any]) -> Sent:
        """A statement of SQLAlchemy with the values of its parameters."""
        known = self._compiled.get(statement)
        if known is None:
            compiled = statement.compile(dialect=_COMPILER)
            fixed = compiled.params
            in_order = [(name, fixed[name]) for name in compiled.positiontup or ()]
            known = self._compiled[statement] = (str(compiled).encode(), in_order)
        text, places = known
        return Sent(text, [_text_of(values.get(name, fixed)) for name, fixed in places])

    def inserts(self, table: Table, rows: Rows, on_conflict: str) -> list[Sent]:
        """One statement a row, or one for all where they may be in conflict with what is there."""
        columns = tuple(rows[0])
        if on_conflict:
            text = self._arrays.statement(table, columns, on_conflict).encode()
            return [Sent(text, [_text_of([row[name] for row in rows]) for name in columns])]
        text = self._single.statement(table, columns, "").encode()
        return [Sent(text, [_text_of(row[name]) for name in columns]) for row in rows]


class PostgresqlExchange:
    """One transaction that writes; `opening` begins it, unless it has begun."""

    def __init__(
        self,
        connection: Connection,
        statements: ExchangeStatements,
        copy_rows: InsertRows,
        opening: Sequence[Sent] = (),
    ) -> None:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        self._driver = driver
        self._connection = connection
        self._statements = statements
        self._copy_rows = copy_rows
        self._told: list[Sent] = list(opening)
        self._unlock_early = False
        self._names = statements.names_of(connection)

    @property
    def connection(self) -> Connection:
        """The transaction's connection, for every other statement; what was told is sent before it."""
        self.flush()
        return self._connection

    def ask(self, *questions: Question) -> Sequence[Answer]:
        """Run the questions in their order, in one round trip; returns the answer to each."""
        return self._send([self._statements.of(each.statement, each.values) for each in questions])

    def tell(self, statement: Statement, values: Mapping[str, Any]) -> None:
        """Run a statement with the next question or the commit."""
        self._told.append(self._statements.of(statement, values))

    def insert_rows(self, table: Table, rows: Rows, *, on_conflict: str = "") -> None:
        """As `Database.insert_rows`; a few rows travel with the next question or the commit."""
        if len(rows) > _FEW_ROWS and not on_conflict:
            self._copy_rows(self.connection, table, rows, on_conflict)
        elif rows:
            self._told.extend(self._statements.inserts(table, rows, on_conflict))

    def unlock_early(self) -> None:
        """Let the commit's locks go before the change is durable; the commit is over when it is."""
        self._unlock_early = True

    def flush(self) -> None:
        """Send what was told."""
        if self._told:
            self._send(())

    def commit(self) -> None:
        """Send what was told, and commit.

        With the locks gone early the transaction commits without waiting for the disk, and another one in the same
        session, which therefore is later in the log of the same server, waits for both.
        """
        self._told.extend((_UNLOCK_EARLY, _COMMIT, _MAKE_DURABLE) if self._unlock_early else (_COMMIT,))
        self._send(())

    def _send(self, asked: Sequence[Sent]) -> Sequence[Answer]:
        """Send what was told and is asked; returns the answers."""
        sent, self._told = [*self._told, *asked], []
        try:
            results = run_together(self._driver, self._names, sent)
        except psycopg.Error as error:
            raise raised_by(self._connection, self._driver, sent[-1].text.decode(), error) from error
        return [self._rows_of(result) for result in results[len(results) - len(asked) :]]

    def _rows_of(self, result: PGresult) -> Answer:
        transformer = Transformer.from_context(self._driver)
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, tuple)


def raised_by(connection: Connection, driver: psycopg.Connection[Any], text: str, error: psycopg.Error) -> DBAPIError:
    """What SQLAlchemy would have raised of an error of the driver; it forgets broken connections, as it would have."""
    broken = driver.broken
    if broken:
        # A server that is gone has taken the others with it: they are closed when they are looked for next. SQLAlchemy
        # does this for its own statements; it has no public name for it.
        connection.engine.pool._invalidate(connection.connection, error)  # noqa: SLF001
        connection.invalidate(error)
    raised = DBAPIError.instance(
        text, None, error, psycopg.Error, connection_invalidated=broken, dialect=connection.dialect
    )
    assert isinstance(raised, DBAPIError)
    return raised


def forget_prepared_names(engine: Engine) -> None:
    """Have the connections of an engine forget what is prepared when they roll back: the driver deallocates it all."""

    @event.listens_for(engine, "rollback")
    def rolled_back(connection: Connection) -> None:
        if not connection.invalidated:
            _forget(connection.info)

    @event.listens_for(engine, "reset")
    def given_back(driver: psycopg.Connection[Any], record: Any, _state: Any) -> None:
        if driver.pgconn.transaction_status != TransactionStatus.IDLE:
            _forget(record.info)


def _forget(info: dict[Any, Any]) -> None:
    names = info.get(_NAMES)
    if names is not None:
        names.forget()


def _values(_table: Table, columns: tuple[str, ...]) -> str:
    return f"VALUES ({', '.join(f'${place}' for place in range(1, len(columns) + 1))})"


def _unnest(table: Table, columns: tuple[str, ...]) -> str:
    types = [table.c[name].type.compile(_COMPILER) for name in columns]
    arrays = ", ".join(f"${place}::{type_}[]" for place, type_ in enumerate(types, 1))
    return f"SELECT * FROM unnest({arrays})"  # noqa: S608 (the names of our own types)


def _text_of(value: Any) -> bytes | None:
    """A plain value, or a list of texts or numbers, in the text format of PostgreSQL."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return b"\\x" + value.hex().encode()
    if not isinstance(value, list):
        return str(value).encode()
    # https://www.postgresql.org/docs/current/arrays.html, "Array Input and Output Syntax".
    quoted = [
        f'"{str(each).replace(_BACKSLASH, _BACKSLASH * 2).replace(_QUOTE, _BACKSLASH + _QUOTE)}"' for each in value
    ]
    return f"{{{','.join(quoted)}}}".encode()
