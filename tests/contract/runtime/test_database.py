"""What a store may rely on, on SQLite and on PostgreSQL alike."""

import asyncio
import threading
from typing import Any

import pytest
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    LargeBinary,
    MetaData,
    Table,
    Text,
    bindparam,
    func,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

from services.runtime import telemetry
from services.runtime.clock import ManualClock
from services.runtime.database import Database
from services.runtime.dialects import DatabaseOptions
from services.runtime.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from tests.conftest import OpenDatabase

METADATA = MetaData()
ITEMS = Table(
    "items",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("amount", BigInteger, nullable=False),
    Column("share", Float),
    Column("good", Boolean),
    Column("body", LargeBinary),
)

ENDLESS = {
    "sqlite": "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT count(*) FROM r",
    "postgresql": "SELECT pg_sleep(600)",
}


@pytest.fixture
async def database(open_database: OpenDatabase) -> Database:
    return await open_database("shop", metadata=METADATA)


def put(connection: Connection, identifier: str, amount: int) -> None:
    connection.execute(ITEMS.insert(), {"id": identifier, "amount": amount})


def amounts(connection: Connection) -> dict[str, int]:
    return {row.id: row.amount for row in connection.execute(select(ITEMS.c.id, ITEMS.c.amount))}


async def test_a_write_commits_and_returns_what_its_function_returns(database: Database) -> None:
    def add(connection: Connection, first: str, second: str) -> int:
        put(connection, first, 2**62)
        put(connection, second, -1)
        return connection.execute(select(func.count()).select_from(ITEMS)).scalar_one()

    times = telemetry.histogram("database_ms", schema=database.schema, kind="write")
    before = times.count
    assert await database.write(add, "a", "b") == 2
    assert times.count == before + 1
    assert await database.read(amounts) == {"a": 2**62, "b": -1}


async def test_a_write_that_raises_leaves_nothing(database: Database) -> None:
    def fail(connection: Connection) -> None:
        put(connection, "a", 1)
        raise KeyError("why")

    with pytest.raises(KeyError, match="why"):
        await database.write(fail)
    assert await database.read(amounts) == {}


async def test_a_broken_constraint_reaches_the_store_as_it_is(database: Database) -> None:
    await database.write(put, "a", 1)
    with pytest.raises(IntegrityError):
        await database.write(put, "a", 2)


async def test_a_read_cannot_write(database: Database) -> None:
    with pytest.raises(DBAPIError):
        await database.read(put, "a", 1)
    assert await database.read(amounts) == {}


async def test_a_read_sees_one_snapshot(database: Database) -> None:
    looked, written = threading.Event(), threading.Event()

    def look_twice(connection: Connection) -> tuple[dict[str, int], dict[str, int]]:
        before = amounts(connection)
        looked.set()
        assert written.wait(30)
        return before, amounts(connection)

    reading = asyncio.create_task(database.read(look_twice))
    assert await asyncio.to_thread(looked.wait, 30)
    await database.write(put, "a", 1)
    written.set()
    assert await reading == ({}, {})
    assert await database.read(amounts) == {"a": 1}


async def test_concurrent_writers_lose_no_update(database: Database) -> None:
    await database.write(put, "a", 0)

    def add_one(connection: Connection) -> None:
        row = connection.execute(select(ITEMS.c.amount).where(ITEMS.c.id == "a").with_for_update()).one()
        connection.execute(ITEMS.update().where(ITEMS.c.id == "a").values(amount=row.amount + 1))

    await asyncio.gather(*[database.write(add_one) for _ in range(50)])
    assert await database.read(amounts) == {"a": 50}


async def test_a_statement_that_takes_too_long_is_stopped(database: Database) -> None:
    def stall(connection: Connection) -> Any:
        return connection.execute(text(ENDLESS[database.dialect])).all()

    with pytest.raises(DeadlineExceeded):
        await database.read(stall, timeout_s=0.1)
    with pytest.raises(DeadlineExceeded):
        await database.write(stall, timeout_s=0.1)
    await database.check()


async def test_a_cancelled_writer_leaves_and_its_transaction_ends_cleanly(database: Database) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        put(connection, "a", 1)
        entered.set()
        assert go_on.wait(30)

    writing = asyncio.create_task(database.write(slow))
    assert await asyncio.to_thread(entered.wait, 30)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    go_on.set()
    # It had begun, so it commits; its connection serves the next one.
    await asyncio.gather(*[database.write(put, f"b{number}", 1) for number in range(20)])
    assert "a" in await database.read(amounts)


async def test_waiting_transactions_are_bounded(open_database: OpenDatabase) -> None:
    database = await open_database("shop", options=DatabaseOptions(pool_size=1, sqlite_readers=1, max_waiting=2))
    entered, go_on = threading.Event(), threading.Event()

    def slow(_: Connection) -> None:
        entered.set()
        assert go_on.wait(30)

    running = asyncio.create_task(database.write(slow))
    assert await asyncio.to_thread(entered.wait, 30)
    waiting = [asyncio.create_task(database.write(lambda _: None)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted) as raised:
        await database.write(lambda _: None)
    assert raised.value.reason == "OVERLOADED"
    go_on.set()
    await asyncio.gather(running, *waiting)


async def test_a_closed_database_refuses_work(open_database: OpenDatabase) -> None:
    database = await open_database("shop")
    await database.close()
    with pytest.raises(Unavailable) as raised:
        await database.check()
    assert raised.value.reason == "SHUTTING_DOWN"


async def test_upsert_and_its_conflict_clauses(database: Database) -> None:
    def upsert(connection: Connection, amount: int) -> None:
        insert = database.upsert(ITEMS).values(id="a", amount=amount)
        added = ITEMS.c.amount + insert.excluded.amount
        connection.execute(insert.on_conflict_do_update(index_elements=[ITEMS.c.id], set_={"amount": added}))
        connection.execute(database.upsert(ITEMS).values(id="a", amount=99).on_conflict_do_nothing())

    await database.write(upsert, 2)
    await database.write(upsert, 3)
    assert await database.read(amounts) == {"a": 5}


ROWS = [
    {"id": "a", "amount": 2**62, "share": 0.5, "good": True, "body": b"\x00\xff"},
    {"id": "ü '\"\\", "amount": -1, "share": None, "good": False, "body": None},
    {"id": "c", "amount": 0, "share": -1e300, "good": None, "body": b""},
]


async def test_insert_rows_keeps_every_value(database: Database) -> None:
    assert await database.write(database.insert_rows, ITEMS, ROWS) == 3
    found = await database.read(lambda connection: connection.execute(select(ITEMS)).mappings().all())
    assert sorted(map(dict, found), key=lambda row: row["id"]) == sorted(ROWS, key=lambda row: str(row["id"]))


async def test_insert_rows_keeps_every_value_of_many_rows(database: Database) -> None:
    texts = ["\\", "\\N", "\\.", "a\tb", "a\nb", "a\r\nb", "", "ü '\"", "{}", "%s", "NULL", "None", "\\x41"]
    rows = [
        {**ROWS[number % 3], "id": f"{number}{text}", "body": None if number % 5 == 0 else text.encode()}
        for number, text in enumerate(texts * 20)
    ]
    assert await database.write(database.insert_rows, ITEMS, rows) == len(rows)
    found = await database.read(lambda connection: connection.execute(select(ITEMS)).mappings().all())
    assert sorted(map(dict, found), key=lambda row: row["id"]) == sorted(rows, key=lambda row: str(row["id"]))


async def test_insert_rows_refuses_many_rows_as_it_refuses_few(database: Database) -> None:
    rows = [{"id": str(number), "amount": number} for number in range(200)]
    await database.write(put, "199", 1)
    with pytest.raises(IntegrityError):
        await database.write(database.insert_rows, ITEMS, rows)
    assert await database.read(amounts) == {"199": 1}
    assert await database.write(database.insert_rows, ITEMS, rows[:199]) == 199


async def test_insert_rows_takes_columns_of_nothing_but_null(database: Database) -> None:
    rows = [{"id": str(number), "amount": number, "share": None, "good": None, "body": None} for number in range(3)]
    assert await database.write(database.insert_rows, ITEMS, rows) == 3
    assert await database.write(database.insert_rows, ITEMS, []) == 0


async def test_insert_rows_with_conflicts(database: Database) -> None:
    def insert(connection: Connection, rows: list[dict[str, Any]], on_conflict: str) -> int:
        return database.insert_rows(connection, ITEMS, rows, on_conflict=on_conflict)

    await database.write(put, "a", 1)
    rows = [{"id": "a", "amount": 10}, {"id": "b", "amount": 20}]
    assert await database.write(insert, rows, "DO NOTHING") == 1
    assert await database.read(amounts) == {"a": 1, "b": 20}
    await database.write(insert, rows, "(id) DO UPDATE SET amount = items.amount + excluded.amount")
    assert await database.read(amounts) == {"a": 11, "b": 40}
    with pytest.raises(IntegrityError):
        await database.write(insert, rows, "")


@pytest.mark.parametrize("wanted", [[], ["a"], [f"item-{number}" for number in range(2_000)]])
async def test_among_finds_the_values_of_a_list(database: Database, wanted: list[str]) -> None:
    statement = select(func.count()).select_from(ITEMS).where(database.among(ITEMS.c.id, "wanted"))

    def count(connection: Connection) -> int:
        return int(connection.execute(statement, {"wanted": wanted}).scalar_one())

    await database.write(put, "a", 1)
    await database.write(put, "item-7", 1)
    assert await database.read(count) == len({"a", "item-7"} & set(wanted))


async def test_one_by_one_finds_the_rows_of_a_list(database: Database) -> None:
    statement = database.one_by_one(ITEMS, ITEMS.c.id, "wanted", ITEMS.c.amount == bindparam("amount"))

    def find(connection: Connection, wanted: list[str]) -> list[tuple[str, int]]:
        rows = connection.execute(statement, {"wanted": wanted, "amount": 1}).mappings()
        return sorted((row["id"], row["amount"]) for row in rows)

    for name, amount in (("a", 1), ("b", 2), ("c", 1), ("d", 1)):
        await database.write(put, name, amount)
    assert await database.read(find, ["a", "b", "c", "e"]) == [("a", 1), ("c", 1)]
    assert await database.read(find, []) == []


async def test_the_clock_can_be_read_beside_a_row(open_database: OpenDatabase, database: Database) -> None:
    def read(connection: Connection, own: Database) -> tuple[int, int, int]:
        name, server_us = connection.execute(select(ITEMS.c.amount, own.clock)).one()
        return name, own.time_of(server_us), own.now_us(connection)

    await database.write(put, "a", 5)
    amount, then_us, later_us = await database.read(read, database)
    assert amount == 5
    assert then_us <= later_us < then_us + 3_600_000_000
    moved = await open_database("shop", clock=ManualClock(now_us=42))
    assert (await moved.read(read, moved))[1] == 42


async def test_a_statement_that_is_prepared_is_run_again_and_again(database: Database) -> None:
    statement = select(ITEMS.c.amount).where(database.among(ITEMS.c.id, "wanted"))

    def find(connection: Connection, wanted: list[str]) -> list[int]:
        return sorted(connection.execute(statement, {"wanted": wanted}).scalars())

    names = [f"i{number}" for number in range(20)]
    for number, name in enumerate(names):
        await database.write(put, name, number)
        assert await database.write(find, names) == list(range(number + 1))


async def test_plain_sql_needs_no_schema_name(database: Database) -> None:
    await database.write(put, "a", 1)
    assert (
        await database.read(lambda connection: connection.execute(text("SELECT amount FROM items")).scalar_one()) == 1
    )


async def test_schemas_do_not_see_each_other(open_database: OpenDatabase, database: Database) -> None:
    if database.dialect == "sqlite":
        pytest.skip("on SQLite each service has a file of its own")
    other = await open_database("depot", metadata=METADATA)
    await database.write(put, "a", 1)
    assert await other.read(amounts) == {}


async def test_the_clock_is_the_databases_or_the_injected_one(open_database: OpenDatabase) -> None:
    real = await open_database("shop")
    earlier_us, later_us = [await real.read(real.now_us) for _ in range(2)]
    assert 1_700_000_000_000_000 < earlier_us <= later_us
    moved = await open_database("shop", clock=ManualClock(now_us=42))
    assert await moved.read(moved.now_us) == 42
