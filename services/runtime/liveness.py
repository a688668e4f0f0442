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
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

from services.runtime.database import Database
from services.runtime.errors import AlreadyExists


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
        # Embedded services do without its driver.
        from services.runtime.liveness_postgresql import PostgresqlLiveness

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
                raise already_held(name) from None
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


def already_held(name: str) -> AlreadyExists:
    """The error of a name that somebody holds."""
    return AlreadyExists("ALREADY_EXISTS", f"{name} is held by a living process; start under another name")
