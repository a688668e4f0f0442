from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from services.cost.bookkeeping import Bookkeeping
from services.cost.store.books import BookKeeper
from services.cost.store.budgets import BudgetStore
from services.cost.store.spend import SpendStore
from services.runtime.clock import ManualClock
from services.runtime.database import Database
from tests.support.cost import NOVEMBER_US, PriceList
from tests.support.cost_store import Cost

OpenDatabase = Callable[..., Awaitable[Database]]


@pytest.fixture
async def cost(open_database: OpenDatabase) -> AsyncIterator[Cost]:
    clock = ManualClock(NOVEMBER_US)
    database = await open_database("cost", migrations="services.cost.migrations", clock=clock)
    books = Bookkeeping(BookKeeper(database, PriceList()), max_batch=64, max_queue=10_000)
    yield Cost(database, books, BudgetStore(database, max_per_project=5, max_per_anchor=3), SpendStore(database), clock)
    await books.close()
