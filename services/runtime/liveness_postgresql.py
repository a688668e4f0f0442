"""Names held as advisory locks on PostgreSQL, also behind PgBouncer in transaction mode."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psycopg
from sqlalchemy import Connection, text

from services.runtime.database import Database
from services.runtime.errors import Unavailable
from services.runtime.liveness import Hold, already_held


class PostgresqlLiveness:
    """One advisory lock per name, each on a connection of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection_info = database.url.set(drivername="postgresql").render_as_string(hide_password=False)

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[Hold]:
        """Lock the name's key in a transaction that stays open."""
        try:
            connection = await self._connect(name)
        except psycopg.OperationalError as error:
            message = f"the database of {self._database.schema} is not available for a liveness lock; try again"
            raise Unavailable("DEPENDENCY_UNAVAILABLE", message) from error
        if connection is None:
            raise already_held(name)
        held = Hold(name)
        loop = asyncio.get_running_loop()
        socket = connection.fileno()

        def server_spoke() -> None:
            # The server says nothing to an open, idle transaction but that it ends it.
            loop.remove_reader(socket)
            held.lost.set()

        loop.add_reader(socket, server_spoke)
        try:
            yield held
        finally:
            loop.remove_reader(socket)
            await asyncio.to_thread(_unlock, connection)

    async def _connect(self, name: str) -> psycopg.Connection | None:
        locking = asyncio.create_task(asyncio.to_thread(_lock, self._connection_info, self._key(name)))
        try:
            return await asyncio.shield(locking)
        except asyncio.CancelledError:
            # A thread cannot be cancelled: what it opens has to be closed.
            connection = await locking
            if connection is not None:
                await asyncio.to_thread(_unlock, connection)
            raise

    async def is_dead(self, name: str) -> bool:
        """True when the server knows of no such lock."""
        return await self._database.read(_no_lock, self._key(name))

    def _key(self, name: str) -> int:
        digest = hashlib.sha256(f"{self._database.schema} {name}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)


def _lock(connection_info: str, key: int) -> psycopg.Connection | None:
    connection = psycopg.connect(
        connection_info, autocommit=True, prepare_threshold=None, connect_timeout=5, application_name="llmlab-liveness"
    )
    # This session is meant to be idle, and a holder whose machine vanished has to be found out within half a minute.
    connection.execute(
        "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL tcp_keepalives_idle = 10;"
        " SET LOCAL tcp_keepalives_interval = 5; SET LOCAL tcp_keepalives_count = 3"
    )
    # Without parameters, so that no portal stays open: its snapshot would keep the server from removing old versions of
    # rows, in every table, for as long as the lock is held.
    row = connection.execute(f"SELECT pg_try_advisory_xact_lock({key:d})").fetchone()
    if row is not None and row[0]:
        return connection
    connection.close()
    return None


def _unlock(connection: psycopg.Connection) -> None:
    # Closing alone releases it too, but some time after this side has gone on.
    with suppress(psycopg.Error):
        connection.rollback()
    connection.close()


def _no_lock(connection: Connection, key: int) -> bool:
    # Looked up, not tried: trying would lock the name for a moment. A bigint key shows as its two halves.
    unsigned = key & 0xFFFF_FFFF_FFFF_FFFF
    found = connection.execute(
        text(
            "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND classid = CAST(:high AS oid) AND objid = CAST(:low AS oid)"
        ),
        {"high": str(unsigned >> 32), "low": str(unsigned & 0xFFFF_FFFF)},
    ).first()
    return found is None
