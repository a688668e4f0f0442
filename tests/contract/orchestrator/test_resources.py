"""Resources on SQLite and on PostgreSQL: one of each name and one of each content in a project, whatever their kind."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from services.orchestrator.resources import BRAND_SET, DATASET, PROMPT, ResourceKind, ResourceRecord
from services.orchestrator.store.resources import SqlResources
from services.runtime.database import Database
from services.runtime.errors import AlreadyExists, NotFound, ResourceExhausted
from services.runtime.requests import RequestKey
from tests.support.ledger import NO_KEY, PROJECT

MOST = 4


@pytest.fixture
def brand_sets(database: Database) -> SqlResources:
    return SqlResources(database, BRAND_SET, max_per_project=MOST, max_setting="THE_LIMIT")


@pytest.mark.parametrize("kind", [PROMPT, DATASET])
async def test_every_kind_is_kept_apart(database: Database, brand_sets: SqlResources, kind: ResourceKind) -> None:
    others = SqlResources(database, kind, max_per_project=MOST, max_setting="THE_LIMIT")
    assert await create(brand_sets, record(1)) == await create(others, record(1)) == "bset_1"
    await brand_sets.delete(PROJECT, "bset_1")
    assert await others.get(PROJECT, "bset_1") == (record(1), b"hash 1")
    with pytest.raises(AlreadyExists, match=f"'set 1' with other {kind.parts}"):
        await create(others, record(2, name="set 1"))


def record(number: int, *, content: str = "", name: str = "", project_id: str = PROJECT) -> ResourceRecord:
    return ResourceRecord(
        f"bset_{number}", project_id, name or f"set {number}", content or f"hash {number}", number, number, number
    )


async def create(brand_sets: SqlResources, made: ResourceRecord, key: RequestKey = NO_KEY) -> str:
    """The id that the answer is about."""
    encoded = made.content_hash.encode()
    answer = await brand_sets.create(
        made, encoded, key=key, payload=encoded, answer=lambda kept: kept.resource_id.encode()
    )
    return answer.decode()


async def test_the_same_content_is_kept_once_in_a_project(brand_sets: SqlResources) -> None:
    assert await create(brand_sets, record(1)) == "bset_1"
    assert await create(brand_sets, record(2, content="hash 1")) == "bset_1"
    assert await create(brand_sets, record(3, content="hash 1", name="set 1")) == "bset_1"
    with pytest.raises(AlreadyExists, match="'set 1' with other brands"):
        await create(brand_sets, record(4, name="set 1"))
    assert await create(brand_sets, record(5, content="hash 1", name="set 1", project_id="prj_2")) == "bset_5"

    assert await brand_sets.get(PROJECT, "bset_1") == (record(1), b"hash 1")
    for project_id, brand_set_id in (("prj_2", "bset_1"), (PROJECT, "bset_5"), (PROJECT, "bset_9")):
        with pytest.raises(NotFound):
            await brand_sets.get(project_id, brand_set_id)
        with pytest.raises(NotFound):
            await brand_sets.delete(project_id, brand_set_id)


async def test_many_who_create_the_same_at_once_get_one_set(brand_sets: SqlResources) -> None:
    answers = await asyncio.gather(*(create(brand_sets, record(number, content="same")) for number in range(8)))
    assert len(set(answers)) == 1
    assert [each.resource_id for each in await brand_sets.page(PROJECT, "", "", 10)] == answers[:1]


async def test_a_repeat_gets_the_first_answer_even_after_a_delete(brand_sets: SqlResources) -> None:
    key = RequestKey(PROJECT, "CreateBrandSet", "once")
    assert await create(brand_sets, record(1), key) == "bset_1"
    await brand_sets.delete(PROJECT, "bset_1")
    assert await create(brand_sets, record(2, content="hash 1"), key) == "bset_1"
    with pytest.raises(AlreadyExists, match="request_id"):
        await create(brand_sets, record(3), key)
    assert await brand_sets.page(PROJECT, "", "", 10) == []


async def test_a_project_has_so_many_sets_and_no_more(brand_sets: SqlResources) -> None:
    for number in range(MOST):
        await create(brand_sets, record(number))
    with pytest.raises(ResourceExhausted, match="THE_LIMIT"):
        await create(brand_sets, record(MOST))
    assert await create(brand_sets, record(MOST, content="hash 0")) == "bset_0"
    assert await create(brand_sets, record(MOST, project_id="prj_2")) == f"bset_{MOST}"
    await brand_sets.delete(PROJECT, "bset_0")
    assert await create(brand_sets, record(5)) == "bset_5"


async def test_sets_are_listed_newest_first_in_pages_and_by_name(brand_sets: SqlResources) -> None:
    for number in range(3):
        await create(brand_sets, record(number))
    await create(brand_sets, record(7, project_id="prj_2"))
    assert await brand_sets.page(PROJECT, "", "", 2) == [record(2), record(1)]
    assert await brand_sets.page(PROJECT, "", "bset_1", 2) == [record(0)]
    assert await brand_sets.page(PROJECT, "set 1", "", 2) == [record(1)]
    assert await brand_sets.page(PROJECT, "set 7", "", 2) == []


async def test_a_set_changes_unless_another_has_the_name_or_the_content(brand_sets: SqlResources) -> None:
    async def update(resource_id: str, encoded: bytes | None = None, **values: Any) -> bytes:
        return await brand_sets.update(
            resource_id,
            lambda known: replace(known, **values),
            encoded,
            key=NO_KEY,
            payload=b"",
            answer=lambda kept: kept.name.encode(),
        )

    await create(brand_sets, record(1))
    await create(brand_sets, record(2))
    assert await update("bset_1", name="renamed") == b"renamed"
    assert await brand_sets.get(PROJECT, "bset_1") == (record(1, name="renamed"), b"hash 1")
    await update("bset_1", b"new", content_hash="new")
    assert await brand_sets.get(PROJECT, "bset_1") == (record(1, name="renamed", content="new"), b"new")
    for taken in ({"name": "set 2"}, {"content_hash": "hash 2"}):
        with pytest.raises(AlreadyExists, match="Another brand set"):
            await update("bset_1", b"taken", **taken)
    assert await brand_sets.get(PROJECT, "bset_1") == (record(1, name="renamed", content="new"), b"new")
    with pytest.raises(NotFound):
        await update("bset_9", name="x")
