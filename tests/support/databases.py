"""Fresh databases for tests, on both dialects."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from psycopg import sql
from sqlalchemy import Connection, MetaData, make_url

from services.runtime.database import Database
from services.runtime.ids import new_id
from tests.support.redis import DATABASES
from tests.support.servers import shared_server_url

DIALECTS = ("sqlite", "postgresql")


def postgres_server_url() -> str:
    """URL of a server on which tests may create databases: LLMLAB_TEST_POSTGRES_URL, or the session's own server."""
    return os.environ.get("LLMLAB_TEST_POSTGRES_URL") or shared_server_url("postgres")


@contextmanager
def fresh_database(dialect: str, directory: Path) -> Iterator[str]:
    """The URL of an empty database that is gone at the end: a file in `directory`, or one on the test server."""
    if dialect == "sqlite":
        yield f"sqlite:///{directory / 'test.db'}"
        return
    server = make_url(postgres_server_url())
    name = new_id("llmlab_test")
    with psycopg.connect(server.render_as_string(hide_password=False), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        try:
            yield server.set(database=name).render_as_string(hide_password=False)
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def fresh_redis_url() -> str:
    """The URL of an empty Redis database: LLMLAB_TEST_REDIS_URL as it is, flushed, or a number of its own on the
    session's server."""
    import redis

    url = os.environ.get("LLMLAB_TEST_REDIS_URL")
    if not url:
        server = shared_server_url("redis")
        with redis.Redis.from_url(server) as admin:
            # Database 0 holds the counter; the others are handed out in turn.
            url = f"{server}?db={1 + int(admin.incr('next')) % (DATABASES - 1)}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


async def create_tables(database: Database, metadata: MetaData) -> None:
    """Create the schema and the tables of a schema-less MetaData, for tests of mechanism that has no migrations."""

    def create(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {database.schema}")
        metadata.create_all(connection, checkfirst=False)

    await database.write(create)


async def schema_differences(database: Database, metadata: MetaData) -> list[Any]:
    """What Alembic would change to turn the migrated schema into `metadata`: an empty list when they agree."""

    def compare(connection: Connection) -> list[Any]:
        # Alembic compares the schema that it takes for the default one.
        connection.dialect.default_schema_name = database.schema if database.dialect == "postgresql" else "main"
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": False})
        return list(compare_metadata(context, metadata))

    return await database.read(compare)
