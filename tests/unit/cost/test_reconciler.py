import asyncio
from collections.abc import Sequence
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

    async def post(self, postings: Sequence[Posting[Any]]) -> list[Any]:
        raise AssertionError("nothing is due")

    async def expired_holds(self, limit: int) -> list[tuple[str, str]]:
        if self._troubles:
            raise self._troubles.pop(0)
        self.quiet.set()
        return []


async def test_the_reconciler_outlives_an_absent_database_and_its_own_faults(caplog: pytest.LogCaptureFixture) -> None:
    store = TroubledStore(Unavailable("DEPENDENCY_UNAVAILABLE", "the database is away"), RuntimeError("a fault"))
    books = Bookkeeping(store, max_batch=1, max_queue=1)
    reconciler = Reconciler(books, policy=ExpiryPolicy.CHARGE)
    task = asyncio.create_task(repeat(reconciler.run_once, interval_s=0.001, max_batch=10, name="expiry"))
    async with asyncio.timeout(20):
        await store.quiet.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "the database is away" in caplog.text
    assert "RuntimeError: a fault" in caplog.text
