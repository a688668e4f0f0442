"""A transaction whose statements travel together: as few round trips as its questions need, and no more.

A hot path asks for all that it needs at once, and tells what it has to write without waiting for an answer; what was
told travels with the next question, or with the commit. On SQLite, where nothing travels, it is a plain transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Connection, Select, Table, Update

from services.runtime.dialects import Rows

Statement = Select[Any] | Update
Answer = Sequence[Sequence[Any]]
"""Rows, each with the values of the statement's columns in their order."""


class Question(NamedTuple):
    """A statement that gives rows, and the values of its parameters; built once, because its text is kept."""

    statement: Statement
    values: Mapping[str, Any]


class Exchange(Protocol):
    """One transaction that writes. Errors of what was told arrive with the next question, or with the commit."""

    @property
    def connection(self) -> Connection:
        """The transaction's connection, for every other statement; what was told is sent before it."""
        ...

    def ask(self, *questions: Question) -> Sequence[Answer]:
        """Run the questions in their order; returns the answer to each."""
        ...

    def tell(self, statement: Statement, values: Mapping[str, Any]) -> None:
        """Run a statement, built once, whose rows nobody wants, sooner or later."""
        ...

    def insert_rows(self, table: Table, rows: Rows, *, on_conflict: str = "") -> None:
        """As `Database.insert_rows`, sooner or later."""
        ...

    def unlock_early(self) -> None:
        """Let the commit's locks go before the change is durable; whoever waits for the commit waits for that too.

        Others can then see, for the time that the disk takes, what a crash of the server would undo. A transaction
        that builds upon it is undone with it, because the log is durable up to a point and lost from there on.
        """
        ...

    def flush(self) -> None:
        """Send what was told."""
        ...

    def commit(self) -> None:
        """Send what was told, and commit; for the Database alone."""
        ...


class PlainExchange:
    """An exchange with a database in this process."""

    def __init__(self, connection: Connection, insert_rows: InsertRows) -> None:
        """The transaction has begun."""
        self.connection = connection
        self._insert_rows = insert_rows

    def ask(self, *questions: Question) -> Sequence[Answer]:
        """Run the questions in their order; returns the answer to each."""
        return [self.connection.execute(question.statement, question.values).all() for question in questions]

    def tell(self, statement: Statement, values: Mapping[str, Any]) -> None:
        """Run a statement."""
        self.connection.execute(statement, values)

    def insert_rows(self, table: Table, rows: Rows, *, on_conflict: str = "") -> None:
        """As `Database.insert_rows`."""
        if rows:
            self._insert_rows(self.connection, table, rows, on_conflict)

    def unlock_early(self) -> None:
        """Nobody waits for the lock but threads of this process, one after the other."""

    def flush(self) -> None:
        """Nothing waits."""

    def commit(self) -> None:
        """The connection's own commit follows."""


class InsertRows(Protocol):
    """A dialect's `insert_rows`."""

    def __call__(self, connection: Connection, table: Table, rows: Rows, on_conflict: str) -> int:
        """Insert plain values; returns the rows written."""
        ...
