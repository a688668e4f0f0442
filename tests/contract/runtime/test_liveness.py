"""A lock proves death, and nothing else does: on files and on PostgreSQL."""

import asyncio
import signal
import subprocess

import pytest
from sqlalchemy import Connection, text

from services.runtime.database import Database
from services.runtime.errors import AlreadyExists
from services.runtime.liveness import liveness_of
from tests.conftest import OpenDatabase
from tests.support.processes import module_command, start_child


@pytest.fixture
async def database(open_database: OpenDatabase) -> Database:
    return await open_database("shop")


async def test_a_held_name_is_not_dead_and_a_released_one_is(database: Database) -> None:
    liveness = liveness_of(database)
    async with liveness.hold("worker-1") as held:
        assert not await liveness.is_dead("worker-1")
        assert await liveness.is_dead("worker-2")
        assert not held.lost.is_set()
    assert await liveness.is_dead("worker-1")


async def test_a_name_has_one_holder(database: Database) -> None:
    liveness = liveness_of(database)
    async with liveness.hold("worker-1"):
        with pytest.raises(AlreadyExists, match="worker-1"):
            await liveness.hold("worker-1").__aenter__()
        async with liveness.hold("worker-2"):
            assert not await liveness.is_dead("worker-2")
        assert not await liveness.is_dead("worker-1")


async def test_asking_does_not_disturb_the_holder(database: Database) -> None:
    liveness = liveness_of(database)
    async with liveness.hold("worker-1"):
        answers = await asyncio.gather(*[liveness.is_dead("worker-1") for _ in range(20)])
        assert not any(answers)


async def test_a_killed_process_is_dead_at_once(database: Database, database_url: str) -> None:
    liveness = liveness_of(database)
    command = module_command("tests.support.holder", database_url, "shop", "worker-1")
    with start_child(command, on_parent_death=signal.SIGKILL, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert await asyncio.to_thread(holder.stdout.readline) == b"held\n"
        assert not await liveness.is_dead("worker-1")
        holder.kill()
        holder.wait()
    # The kernel has released a file's lock by now; the server learns of the closed connection in a moment.
    async with asyncio.timeout(30):
        while not await liveness.is_dead("worker-1"):
            pass
    async with liveness.hold("worker-1"):
        assert not await liveness.is_dead("worker-1")


async def test_a_holder_does_not_keep_old_versions_of_rows(database: Database) -> None:
    if database.dialect == "sqlite":
        pytest.skip("a file's lock has nothing to do with its rows")

    def oldest_versions(connection: Connection) -> list[int | None]:
        # In this database alone: a session of another test may be just taking its lock.
        sessions = text(
            "SELECT backend_xmin FROM pg_stat_activity"
            " WHERE application_name = 'llmlab-liveness' AND datname = current_database()"
        )
        return list(connection.execute(sessions).scalars())

    async with liveness_of(database).hold("worker-1"):
        found = await database.read(oldest_versions)
    assert found
    assert set(found) == {None}


async def test_a_holder_whose_connection_is_ended_is_told(database: Database) -> None:
    if database.dialect == "sqlite":
        pytest.skip("a file's lock cannot be taken away from a living process")

    def end_the_session(connection: Connection) -> None:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'llmlab-liveness' AND datname = current_database()"
            )
        )

    liveness = liveness_of(database)
    async with liveness.hold("worker-1") as held:
        await database.read(end_the_session)
        await held.lost.wait()
    assert await liveness.is_dead("worker-1")
