"""A mutation that is sent twice happens once, on both dialects."""

import asyncio

import pytest
from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, Text, func, select

from services.runtime.clock import ManualClock
from services.runtime.database import Database
from services.runtime.errors import AlreadyExists
from services.runtime.requests import (
    PRUNED_PER_REQUEST,
    RETENTION_US,
    RememberedRequests,
    RequestKey,
    request_ids_table,
)
from tests.conftest import OpenDatabase

METADATA = MetaData()
REQUEST_IDS = request_ids_table(METADATA)
THINGS = Table("things", METADATA, Column("number", BigInteger, primary_key=True), Column("name", Text, nullable=False))

KEY = RequestKey("prj_1", "CreateThing", "req-1")


class Shop:
    """A service with one idempotent mutation."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        self.database = database
        self.clock = clock
        self._requests = RememberedRequests(database, REQUEST_IDS, clock)

    async def create(self, key: RequestKey, name: str) -> bytes:
        return await self.database.write(self._create, key, name)

    def _create(self, connection: Connection, key: RequestKey, name: str) -> bytes:
        def create() -> bytes:
            number = connection.execute(select(func.count()).select_from(THINGS)).scalar_one()
            connection.execute(THINGS.insert(), {"number": number, "name": name})
            if name == "broken":
                raise ValueError(name)
            return f"{number}:{name}".encode()

        return self._requests.once(connection, key, name.encode(), create)

    async def count(self, table: Table) -> int:
        return await self.database.read(
            lambda connection: connection.execute(select(func.count()).select_from(table)).scalar_one()
        )


@pytest.fixture
async def shop(open_database: OpenDatabase) -> Shop:
    return Shop(await open_database("shop", metadata=METADATA), ManualClock())


async def test_a_repeat_gets_the_first_answer(shop: Shop) -> None:
    assert await shop.create(KEY, "lamp") == b"0:lamp"
    assert await shop.create(KEY, "lamp") == b"0:lamp"
    assert await shop.count(THINGS) == 1


async def test_another_payload_under_the_same_id_is_refused(shop: Shop) -> None:
    await shop.create(KEY, "lamp")
    with pytest.raises(AlreadyExists) as raised:
        await shop.create(KEY, "chair")
    assert raised.value.reason == "REQUEST_ID_REUSED"
    assert await shop.count(THINGS) == 1


@pytest.mark.parametrize(
    "other",
    [
        RequestKey("prj_2", "CreateThing", "req-1"),
        RequestKey("prj_1", "DeleteThing", "req-1"),
        RequestKey("prj_1", "CreateThing", "req-2"),
    ],
)
async def test_an_id_counts_within_its_project_and_method(shop: Shop, other: RequestKey) -> None:
    await shop.create(KEY, "lamp")
    assert await shop.create(other, "chair") == b"1:chair"


async def test_a_request_without_an_id_is_done_every_time(shop: Shop) -> None:
    key = RequestKey("prj_1", "CreateThing", "")
    assert [await shop.create(key, "lamp"), await shop.create(key, "lamp")] == [b"0:lamp", b"1:lamp"]
    assert await shop.count(REQUEST_IDS) == 0


async def test_a_failed_request_is_not_remembered(shop: Shop) -> None:
    with pytest.raises(ValueError, match="broken"):
        await shop.create(KEY, "broken")
    assert await shop.create(KEY, "lamp") == b"0:lamp"


async def test_requests_that_arrive_together_get_one_answer(shop: Shop) -> None:
    answers = await asyncio.gather(*[shop.create(KEY, "lamp") for _ in range(10)])
    assert set(answers) == {b"0:lamp"}
    assert await shop.count(THINGS) == 1


async def test_answers_are_kept_for_a_day_and_removed_a_few_at_a_time(shop: Shop) -> None:
    old = PRUNED_PER_REQUEST + 2
    for number in range(old):
        await shop.create(RequestKey("prj_1", "CreateThing", f"old-{number}"), "lamp")
    shop.clock.advance(RETENTION_US / 1_000_000)
    await shop.create(RequestKey("prj_1", "CreateThing", "new-1"), "lamp")
    assert await shop.count(REQUEST_IDS) == old + 1
    shop.clock.advance(1)
    await shop.create(RequestKey("prj_1", "CreateThing", "new-2"), "lamp")
    assert await shop.count(REQUEST_IDS) == old + 2 - PRUNED_PER_REQUEST
    await shop.create(RequestKey("prj_1", "CreateThing", "new-3"), "lamp")
    assert await shop.count(REQUEST_IDS) == 3
