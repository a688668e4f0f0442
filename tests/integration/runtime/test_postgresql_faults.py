"""A PostgreSQL that restarts, dies, deadlocks or is not there, as a service meets it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, Text, select, text, update

from services.cost.settings import CostSettings
from services.cost.wiring import build as build_cost
from services.identity.settings import IdentitySettings
from services.identity.wiring import build as build_identity
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.wiring import build as build_orchestrator
from services.runtime.database import Database
from services.runtime.dialects import DatabaseOptions
from services.runtime.errors import Conflict, Unavailable
from services.runtime.exchange import Exchange, Question
from tests.support.databases import create_tables
from tests.support.postgres import PostgresServer

Status = health_pb2.HealthCheckResponse
METADATA = MetaData()
ROWS = Table("rows", METADATA, Column("id", Text, primary_key=True), Column("amount", BigInteger, nullable=False))
LOCKED = select(ROWS.c.amount).where(ROWS.c.id == "total").with_for_update()
RAISE = update(ROWS).where(ROWS.c.id == "total").values(amount=ROWS.c.amount + 1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server of this module's own, since it is killed."""
    server = PostgresServer(tmp_path_factory.mktemp("p") / "pg", durable=True)
    server.start()
    yield server
    server.delete()


@pytest.fixture
async def database(server: PostgresServer) -> AsyncIterator[Database]:
    async with Database.open(server.url, schema="shop", options=DatabaseOptions(pool_size=4)) as database:
        await database.write(lambda connection: connection.execute(text("DROP SCHEMA IF EXISTS shop CASCADE")))
        await create_tables(database, METADATA)
        yield database


def add(connection: Connection, identifier: str, amount: int) -> None:
    insert = ROWS.insert().values(id=identifier, amount=amount)
    connection.execute(insert)


def total(connection: Connection) -> int:
    return sum(connection.execute(select(ROWS.c.amount)).scalars())


async def fill_the_pool(database: Database) -> None:
    """Give every thread its connection."""
    barrier = threading.Barrier(database.options.pool_size)
    await asyncio.gather(
        *[database.read(lambda _: barrier.wait(timeout=30)) for _ in range(database.options.pool_size)]
    )


@pytest.mark.parametrize("crash", [False, True])
async def test_a_restart_heals_by_itself(database: Database, server: PostgresServer, crash: bool) -> None:
    await fill_the_pool(database)
    await database.write(add, "a", 1)
    if crash:
        server.kill()
    else:
        server.stop()
    with pytest.raises(Unavailable) as raised:
        await database.write(add, "b", 1)
    assert raised.value.reason == "DEPENDENCY_UNAVAILABLE"
    assert "LLMLAB_SHOP_DATABASE_URL" in raised.value.message
    server.start()
    await database.check()
    await asyncio.gather(*[database.write(add, str(number), 1) for number in range(8)])
    assert await database.read(total) == 9


async def test_a_restart_between_transactions_is_not_noticed(database: Database, server: PostgresServer) -> None:
    await fill_the_pool(database)
    server.restart()
    await asyncio.gather(*[database.write(add, str(number), 1) for number in range(8)])
    assert await database.read(total) == 8


async def test_a_connection_that_is_lost_in_mid_transaction_is_tried_again(database: Database) -> None:
    attempts: list[int] = []

    def lose_the_first(connection: Connection) -> None:
        attempts.append(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
        add(connection, "a", 1)
        if len(attempts) == 1:
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    await database.write(lose_the_first)
    assert len(set(attempts)) == 2
    assert await database.read(total) == 1


async def test_a_deadlock_is_tried_again(database: Database) -> None:
    await database.write(add, "a", 0)
    await database.write(add, "b", 0)
    both_hold_one = threading.Barrier(2)
    attempts = {"ab": 0, "ba": 0}

    def add_in_order(connection: Connection, order: str) -> None:
        attempts[order] += 1
        for identifier in order:
            connection.execute(ROWS.update().where(ROWS.c.id == identifier).values(amount=ROWS.c.amount + 1))
            if attempts[order] == 1 and identifier == order[0]:
                both_hold_one.wait(timeout=30)

    await asyncio.gather(database.write(add_in_order, "ab"), database.write(add_in_order, "ba"))
    # More than once where the loser comes back to the free row before the winner has woken: they are stuck anew.
    assert sum(attempts.values()) > len(attempts)
    assert await database.read(total) == 4


async def test_conflicts_end_after_a_bounded_number_of_attempts(database: Database) -> None:
    attempts: list[int] = []

    def conflict(connection: Connection) -> None:
        attempts.append(1)
        connection.execute(text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$"))

    with pytest.raises(Conflict):
        await database.write(conflict)
    assert len(attempts) == database.options.max_attempts


async def test_a_connection_that_breaks_in_the_commit_leaves_the_outcome_open(database: Database) -> None:
    attempts: list[int] = []

    def die_in_the_commit(connection: Connection) -> None:
        attempts.append(1)
        # A deferred trigger runs inside COMMIT; it ends the session that commits.
        connection.execute(
            text(
                "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
            )
        )
        connection.execute(
            text(
                "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON rows DEFERRABLE INITIALLY DEFERRED"
                " FOR EACH ROW EXECUTE FUNCTION die()"
            )
        )
        add(connection, "a", 1)

    with pytest.raises(Unavailable, match="during the commit"):
        await database.write(die_in_the_commit)
    assert attempts == [1]
    assert await database.read(total) == 0


async def test_a_stalled_transaction_does_not_keep_its_locks(database: Database) -> None:
    await database.write(add, "a", 0)
    holding, go_on = threading.Event(), threading.Event()

    def stall(connection: Connection) -> None:
        connection.execute(ROWS.update().values(amount=5))
        holding.set()
        assert go_on.wait(30)
        connection.execute(select(1))

    stalled = asyncio.create_task(database.write(stall, timeout_s=0.5))
    assert await asyncio.to_thread(holding.wait, 30)
    # It waits for the row until the server ends the stalled session.
    await database.write(lambda connection: connection.execute(ROWS.update().values(amount=7)))
    go_on.set()
    with pytest.raises(Unavailable):
        await stalled
    assert await database.read(total) == 7


async def test_an_unreachable_server_is_named_without_its_password(
    tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = tmp_path_factory.mktemp("n")
    with pytest.raises(Unavailable) as raised:
        async with Database.open(f"postgresql://me:pa55word@/db?host={nowhere}", schema="shop"):
            pass
    assert "LLMLAB_SHOP_DATABASE_URL" in raised.value.message
    assert "pa55word" not in raised.value.message + caplog.text


@pytest.mark.parametrize("crash", [False, True])
async def test_an_exchange_finds_its_way_after_a_restart(
    database: Database, server: PostgresServer, crash: bool
) -> None:
    def put(exchange: Exchange, identifier: str) -> None:
        exchange.ask(Question(LOCKED, {}))
        exchange.insert_rows(ROWS, [{"id": identifier, "amount": 1}])

    await asyncio.gather(*[database.exchange(put, f"before {number}") for number in range(8)])
    server.kill() if crash else server.stop()
    server.start()
    await asyncio.gather(*[database.exchange(put, str(number)) for number in range(8)])
    assert await database.read(total) == 16


async def test_a_commit_that_unlocks_early_is_over_when_it_is_durable(
    database: Database, server: PostgresServer
) -> None:
    """Its lock is free at once; killed right after an answer, the server has all that was answered."""

    def count(exchange: Exchange, number: int) -> int:
        (((amount,),),) = exchange.ask(Question(LOCKED, {}))
        exchange.insert_rows(ROWS, [{"id": str(number), "amount": amount}])
        exchange.tell(RAISE, {})
        exchange.unlock_early()
        return int(amount)

    await database.write(add, "total", 0)
    answered: list[int] = []

    async def work(worker: int) -> None:
        for number in range(1_000):
            answered.append(await database.exchange(count, worker * 1_000 + number))
            if len(answered) == 100:
                server.kill()

    outcomes = await asyncio.gather(*[work(worker) for worker in range(4)], return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    server.start()
    kept = await database.read(lambda connection: connection.execute(select(ROWS.c.amount)).scalars().all())
    # "total" is the number of the rows beside it: what is lost is lost from some point on.
    assert max(kept) == len(kept) - 1
    assert set(answered) <= set(kept)


async def test_probes_tell_the_truth_when_the_database_stops(server: PostgresServer, tmp_path: Path) -> None:
    common = {
        "database_url": server.url,
        "home": tmp_path,
        "port": 0,
        "auth_service_key": "5e" * 32,
        "health_port": 0,
        "health_interval_s": 0.05,
        "health_timeout_s": 30,
    }
    async with (
        build_identity(IdentitySettings.model_validate(common)) as identity,
        build_cost(CostSettings.model_validate(common)) as cost,
        build_orchestrator(OrchestratorSettings.model_validate({**common, "workers": 1})) as orchestrator,
    ):

        async def become(name: str, wanted: int) -> None:
            """Follows the health of a name until every service is as wanted."""
            for running in (identity, cost, orchestrator):
                async with grpc.aio.insecure_channel(f"127.0.0.1:{running.health_port}") as channel:
                    stub: Any = health_pb2_grpc.HealthStub(channel)
                    async for answer in stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=30):
                        if answer.status == wanted:
                            break

        await become("readiness", Status.SERVING)
        server.stop()
        try:
            await become("readiness", Status.NOT_SERVING)
            await become("liveness", Status.SERVING)
        finally:
            server.start()
        await become("readiness", Status.SERVING)
        await become("liveness", Status.SERVING)
