import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest

from services.cost.bookkeeping import Bookkeeping
from services.cost.holds import ExpiryPolicy
from services.cost.posting import Posting
from services.cost.reconciler import Reconciler, repeat
from services.runtime.errors import Unavailable


class TroubledStore:
    """Fails as it is told, then has nothing left to expire."""

    def __init__(self, *troubles: Exception) -> None:
        self._troubles = list(troubles)
        self.quiet = asyncio.Event()

    async def post(self, postings: Sequence[Posting[Any]], pass_on: Callable[[], None]) -> list[Any]:
        raise AssertionError("nothing is due")

    async def expired_holds(self, limit: int, without: Collection[str]) -> list[tuple[str, str]]:
        if self._troubles:
            raise self._troubles.pop(0)
        self.quiet.set()
        return []


async def test_the_reconciler_outlives_an_absent_database_and_its_own_faults(caplog: pytest.LogCaptureFixture) -> None:
    store = TroubledStore(Unavailable("DEPENDENCY_UNAVAILABLE", "the database is away"), RuntimeError("a fault"))
    books = Bookkeeping(store, max_batch=1, max_queue=1, max_in_flight=1)
    reconciler = Reconciler(books, policy=ExpiryPolicy.CHARGE)
    task = asyncio.create_task(repeat(reconciler.run_once, interval_s=0.001, max_batch=10, name="expiry"))
    async with asyncio.timeout(20):
        await store.quiet.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "the database is away" in caplog.text
    assert "RuntimeError: a fault" in caplog.text


class StoreWithABrokenProject:
    """Three holds are due for ever in one project, whose books cannot be written, and one in each of two others."""

    def __init__(self) -> None:
        self.due = [("broken", "a"), ("broken", "b"), ("broken", "c"), ("prj_1", "d"), ("prj_2", "e")]

    async def post(self, postings: Sequence[Posting[Any]], pass_on: Callable[[], None]) -> list[Any]:
        projects = {posting.project_id for posting in postings}
        if "broken" in projects:
            raise RuntimeError("its books cannot be written")
        self.due = [(project_id, attempt_id) for project_id, attempt_id in self.due if project_id not in projects]
        return [None] * len(postings)

    async def expired_holds(self, limit: int, without: Collection[str]) -> list[tuple[str, str]]:
        return [one for one in self.due if one[0] not in without][:limit]


async def test_a_project_that_cannot_be_written_does_not_keep_back_the_others(caplog: pytest.LogCaptureFixture) -> None:
    store = StoreWithABrokenProject()
    reconciler = Reconciler(Bookkeeping(store, max_batch=1, max_queue=1, max_in_flight=1), policy=ExpiryPolicy.CHARGE)
    # Its holds are the oldest and fill the first look; the next is for the others, and then it is tried again.
    assert [await reconciler.run_once(3) for _ in range(4)] == [0, 2, 0, 0]
    assert {project_id for project_id, _ in store.due} == {"broken"}
    assert "holds of project broken could not be expired" in caplog.text
