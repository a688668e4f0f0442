"""Proof that a process is dead: a lock that only its death, or its will, releases.

A worker holds its name (one that no other incarnation ever bears) from its start to its end. Whoever finds the lock
free knows that the holder is gone and may take over at once, without waiting for a lease to expire. The opposite proves
nothing: a lock that is held may belong to a process that hangs, so leases expire all the same.

On PostgreSQL it is an advisory lock in a transaction that stays open on a connection of its own: the server ends it
with the connection, also behind PgBouncer in transaction mode. On SQLite it is a file beside the database, locked with
flock, which the kernel releases with the process.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

import psycopg
from sqlalchemy import Connection, text

from services.runtime.database import Database
from services.runtime.errors import AlreadyExists, Unavailable


class Hold:
    """A held name.

    `lost` is set when the lock is gone although its holder lives, as after a restart of the server: others may take
    the holder for dead, so it has to stop and start anew under a new name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.lost = asyncio.Event()


class Liveness(Protocol):
    """Where names are held and looked up; every participant uses the same database."""

    def hold(self, name: str) -> AbstractAsyncContextManager[Hold]:
        """Hold `name` inside the `async with` block.

        Raises AlreadyExists when somebody holds it, Unavailable when the database is away.
        """
        ...

    async def is_dead(self, name: str) -> bool:
        """True when nobody holds `name`: its former holder is dead. Ask only about names that have been held."""
        ...


def liveness_of(database: Database) -> Liveness:
    """The proof of death that goes with a database."""
    if database.dialect == "postgresql":
        return PostgresqlLiveness(database)
    return FileLiveness(Path(f"{database.url.database}.alive"))


class FileLiveness:
    """One locked file per name in a directory that all processes share on one machine."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[Hold]:
        """Lock the name's file and remove it at the end."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._remove_dead()
        path = self._path(name)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _held(name) from None
            yield Hold(name)
            path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    async def is_dead(self, name: str) -> bool:
        """True when the name's file is gone or not locked."""
        return _is_free(self._path(name))

    def _path(self, name: str) -> Path:
        return self._directory / hashlib.sha256(name.encode()).hexdigest()[:40]

    def _remove_dead(self) -> None:
        # A killed process leaves its file; nobody has to ask about it ever again.
        for path in self._directory.iterdir():
            if _is_free(path):
                path.unlink(missing_ok=True)


def _is_free(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        # Shared, so that two who ask at once do not take each other for the holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


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
            raise _held(name)
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


def _held(name: str) -> AlreadyExists:
    return AlreadyExists("ALREADY_EXISTS", f"{name} is held by a living process; start under another name")
