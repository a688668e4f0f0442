"""Databases that tests take in turn: creating and migrating one costs more than most tests that use it.

Tests of one folder are of one service, so they share a pool: what the first test migrated is there for the next one,
without its rows. Tests of migrations themselves take `fresh_database` instead.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg
from psycopg import sql

from tests.support.databases import fresh_database

_VERSIONS = "alembic_version"
_BUSY_S = 5


@dataclass(slots=True)
class DatabasePool:
    """Databases of this process, by who may take them and by dialect; all are gone when `opened` is closed."""

    directory: Path
    opened: ExitStack
    idle: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    numbers: Iterator[int] = field(default_factory=count)

    @contextmanager
    def database(self, dialect: str, user: str) -> Iterator[str]:
        """The URL of a database without rows, which may have the tables of an earlier test of the same `user`."""
        idle = self.idle[dialect, user]
        url = idle.pop() if idle else self._create(dialect)
        yield url
        if _empty_sqlite(url) if dialect == "sqlite" else _empty_postgresql(url):
            idle.append(url)

    def _create(self, dialect: str) -> str:
        directory = self.directory / str(next(self.numbers))
        directory.mkdir()
        return self.opened.enter_context(fresh_database(dialect, directory))


def _empty_sqlite(url: str) -> bool:
    """Delete all rows; False when something still holds the file, or it is not migrated."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("BEGIN EXCLUSIVE")
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
            for name in tables - {_VERSIONS}:
                connection.execute(f'DELETE FROM "{name}"')
            connection.execute("COMMIT")
        except sqlite3.OperationalError:
            return False
    return _VERSIONS in tables


def _empty_postgresql(url: str) -> bool:
    """End what the test left connected, drop schemas that are not migrated, and delete the rows of the others."""
    with psycopg.connect(url, options=f"-c lock_timeout={_BUSY_S}s") as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        found = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        migrated = {schema for schema, table in found if table == _VERSIONS}
        for schema in {schema for schema, _ in found} - migrated:
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
        # Rows of all tables at once, whatever refers to what. TRUNCATE would take longer than a migration.
        connection.execute("SET LOCAL session_replication_role = replica")
        tables = [sql.Identifier(*name) for name in found if name[0] in migrated and name[1] != _VERSIONS]
        connection.execute(sql.SQL("; ").join(sql.SQL("DELETE FROM {}").format(table) for table in tables))
    return True
