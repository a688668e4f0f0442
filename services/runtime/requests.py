"""Mutations that may be sent twice: a repeat under the same request id gets the first answer.

The memory is a table `request_ids` in the service's own schema, written in the transaction of the mutation itself: the
change and its answer are there together or not at all. Rows live at least 24 hours; each new row removes a few that
are older, so the table stays bounded without a job of its own.

A service puts the table into its MetaData with `request_ids_table(metadata)` and into its first migration with
`op.create_table("request_ids", *request_ids_columns())` and
`op.create_index("request_ids_created_us", "request_ids", ["created_us"])`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
    and_,
    delete,
    select,
    tuple_,
    update,
)

from services.runtime.clock import SYSTEM_CLOCK, Clock
from services.runtime.database import Database
from services.runtime.dialects import picked_once
from services.runtime.errors import AlreadyExists

RETENTION_US = 24 * 3600 * 1_000_000
"""How long an answer is kept at the least."""

PRUNED_PER_REQUEST = 4
"""How many expired rows one new request removes at most: more than one, so that a backlog shrinks."""


@dataclass(frozen=True, slots=True)
class RequestKey:
    """What a request id is unique within: the project and the RPC. An empty request_id is not remembered."""

    project_id: str
    method: str
    request_id: str


def request_ids_columns() -> list[Column[object]]:
    """The columns of the table `request_ids`, for the MetaData and for the migration that creates it."""
    return [
        Column("project_id", Text, primary_key=True),
        Column("method", Text, primary_key=True),
        Column("request_id", Text, primary_key=True),
        Column("payload_hash", LargeBinary, nullable=False),
        Column("answer", LargeBinary, nullable=False),
        Column("created_us", BigInteger, nullable=False),
    ]


def request_ids_table(metadata: MetaData) -> Table:
    """Declare the table `request_ids` in a service's MetaData."""
    table = Table("request_ids", metadata, *request_ids_columns())
    Index("request_ids_created_us", table.c.created_us)
    return table


class RememberedRequests:
    """The answers that a service has given, in its table `request_ids`."""

    def __init__(self, database: Database, table: Table, clock: Clock = SYSTEM_CLOCK) -> None:
        self._database = database
        self._table = table
        self._clock = clock

    def once(self, connection: Connection, key: RequestKey, payload: bytes, do: Callable[[], bytes]) -> bytes:
        """Run `do` unless this request was answered before; returns the (first) answer.

        Runs inside the caller's transaction. `payload` is the request in a canonical form without its request_id; only
        its hash is kept. A second request that arrives while the first is still running waits for it. When `do`
        raises, nothing is remembered. Raises AlreadyExists(REQUEST_ID_REUSED) for another payload under the same key.
        """
        if not key.request_id:
            return do()
        payload_hash = hashlib.sha256(payload).digest()
        if not self._claim(connection, key, payload_hash):
            return self._recall(connection, key, payload_hash)
        self._prune(connection)
        answer = do()
        connection.execute(update(self._table).where(self._matches(key)).values(answer=answer))
        return answer

    def _claim(self, connection: Connection, key: RequestKey, payload_hash: bytes) -> bool:
        row = {
            "project_id": key.project_id,
            "method": key.method,
            "request_id": key.request_id,
            "payload_hash": payload_hash,
            "answer": b"",
            "created_us": self._clock.now_us(),
        }
        insert = self._database.upsert(self._table).values(row).on_conflict_do_nothing()
        # Without the option SQLAlchemy asks for the count of an INSERT after psycopg's cursor is closed, and gets -1.
        return connection.execute(insert, execution_options={"preserve_rowcount": True}).rowcount == 1

    def _recall(self, connection: Connection, key: RequestKey, payload_hash: bytes) -> bytes:
        columns = self._table.c
        row = connection.execute(select(columns.payload_hash, columns.answer).where(self._matches(key))).one()
        if bytes(row.payload_hash) != payload_hash:
            message = f"request_id {key.request_id!r} was used for another {key.method}; send a new request_id"
            raise AlreadyExists("REQUEST_ID_REUSED", message)
        return bytes(row.answer)

    def _prune(self, connection: Connection) -> None:
        columns = self._table.c
        primary_key = (columns.project_id, columns.method, columns.request_id)
        expired = (
            select(*primary_key)
            .where(columns.created_us < self._clock.now_us() - RETENTION_US)
            .order_by(columns.created_us)
            .limit(PRUNED_PER_REQUEST)
            # Two requests at once remove different rows instead of waiting for each other.
            .with_for_update(skip_locked=True)
        )
        connection.execute(delete(self._table).where(tuple_(*primary_key).in_(picked_once(connection, expired))))

    def _matches(self, key: RequestKey) -> ColumnElement[bool]:
        columns = self._table.c
        return and_(
            columns.project_id == key.project_id,
            columns.method == key.method,
            columns.request_id == key.request_id,
        )
