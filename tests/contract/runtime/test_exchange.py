"""A transaction whose statements travel together does what a plain one does, on SQLite and on PostgreSQL alike."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import BigInteger, Boolean, Column, LargeBinary, MetaData, Table, Text, bindparam, select, text, update
from sqlalchemy.exc import IntegrityError

from services.runtime.database import Database
from services.runtime.dialects import DatabaseOptions
from services.runtime.errors import InvalidField, NotFound
from services.runtime.exchange import Exchange, Question
from tests.conftest import OpenDatabase

METADATA = MetaData()
ITEMS = Table(
    "items",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("amount", BigInteger, nullable=False),
    Column("good", Boolean),
    Column("body", LargeBinary),
)
ALL = select(ITEMS).order_by(ITEMS.c.id)
MORE = update(ITEMS).where(ITEMS.c.id == bindparam("named")).values(amount=ITEMS.c.amount + bindparam("more"))
PUT = "(id) DO UPDATE SET amount = items.amount + excluded.amount"
STRANGE = ['a "quoted" one', r"back\slash", "{a,b}", "tab\tand\nline", "NULL", r"\N", "ünïcödé", "", "100 %s $1"]


@pytest.fixture(params=[True, False], ids=["prepared", "plain"])
async def database(open_database: OpenDatabase, request: pytest.FixtureRequest) -> Database:
    return await open_database(
        "shop", metadata=METADATA, options=DatabaseOptions(pool_size=1, prepared_statements=request.param)
    )


def rows(*names: str, amount: int = 1) -> list[dict[str, Any]]:
    return [{"id": name, "amount": amount, "good": True, "body": b"\x00\\\xff"} for name in names]


async def everything(database: Database) -> Sequence[Sequence[Any]]:
    (answer,) = await database.exchange(lambda exchange: exchange.ask(Question(ALL, {})))
    return answer


@pytest.mark.parametrize("count", [1, 100], ids=["few", "many"])
async def test_values_come_back_as_they_were(database: Database, count: int) -> None:
    names = [f"{name}{number}" for name in STRANGE for number in range(count)]

    def work(exchange: Exchange) -> Sequence[Sequence[Any]]:
        for name in names[:: len(STRANGE)]:
            exchange.insert_rows(ITEMS, rows(name))
        exchange.insert_rows(ITEMS, [row for row in rows(*names) if row["id"] not in names[:: len(STRANGE)]])
        among = select(ITEMS).where(database.among(ITEMS.c.id, "names"))
        (found,) = exchange.ask(Question(among, {"names": names}))
        return found

    found = await database.exchange(work)
    assert {row[0] for row in found} == set(names)
    assert {tuple(row[1:]) for row in found} == {(1, True, b"\x00\\\xff")}
    assert len(await everything(database)) == len(names)


async def test_statements_run_in_their_order_whatever_they_travel_with(database: Database) -> None:
    def work(exchange: Exchange) -> list[int]:
        exchange.insert_rows(ITEMS, [])
        exchange.insert_rows(ITEMS, rows("a", amount=2**62))
        exchange.tell(MORE, {"named": "a", "more": -(2**62)})
        exchange.insert_rows(ITEMS, [{"id": "a", "amount": 5}, {"id": "b", "amount": 7}], on_conflict=PUT)
        amounts = [row.amount for row in exchange.connection.execute(ALL)]
        exchange.tell(MORE, {"named": "b", "more": 1})
        first, second = exchange.ask(Question(ALL, {}), Question(ALL, {}))
        assert list(first) == list(second)
        return [*amounts, *(row[1] for row in first)]

    assert await database.exchange(work) == [5, 7, 5, 8]
    assert [row[:3] for row in await everything(database)] == [("a", 5, True), ("b", 8, None)]


async def test_nothing_is_written_where_the_work_or_a_statement_fails(database: Database) -> None:
    def refuse(exchange: Exchange) -> None:
        exchange.insert_rows(ITEMS, rows("a"))
        exchange.flush()
        raise InvalidField("name", "no")

    def break_a_key(exchange: Exchange) -> None:
        exchange.insert_rows(ITEMS, rows("b"))
        exchange.insert_rows(ITEMS, rows("b"))
        exchange.insert_rows(ITEMS, rows("c"))

    def find_nothing(connection: Any) -> None:
        connection.execute(text("SELECT 1"))
        raise NotFound("item", "x")

    # Between them the only connection works: it remembers nothing that its session has been made to forget.
    for _ in range(3):
        with pytest.raises(InvalidField):
            await database.exchange(refuse)
        assert list(await everything(database)) == []
        with pytest.raises(IntegrityError):
            await database.exchange(break_a_key)
        assert list(await everything(database)) == []
        with pytest.raises(NotFound):
            await database.read(find_nothing)
    await database.exchange(lambda exchange: exchange.insert_rows(ITEMS, rows("d")))
    assert [row[0] for row in await everything(database)] == ["d"]


async def test_an_exchange_within_a_plain_transaction_is_part_of_it(database: Database) -> None:
    def work(connection: Any) -> None:
        with database.exchange_within(connection) as exchange:
            exchange.insert_rows(ITEMS, rows("a"))
        assert connection.execute(select(ITEMS.c.id)).scalars().all() == ["a"]
        raise InvalidField("name", "no")

    with pytest.raises(InvalidField):
        await database.write(work)
    assert list(await everything(database)) == []


async def test_a_commit_that_unlocks_early_is_a_commit(database: Database) -> None:
    def work(exchange: Exchange) -> None:
        exchange.unlock_early()
        exchange.insert_rows(ITEMS, rows("a"))

    await database.exchange(work)
    assert [row[0] for row in await everything(database)] == ["a"]
