from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from services.cost.store.alerts import AlertStore
from services.cost.store.budgets import BudgetStore
from services.cost.store.spend import SpendStore
from services.runtime.clock import ManualClock
from services.runtime.database import Database
from tests.support.cost import NOVEMBER_US
from tests.support.cost_store import Cost, alert_writer, bookkeeping

OpenDatabase = Callable[..., Awaitable[Database]]


@pytest.fixture
async def cost(open_database: OpenDatabase) -> AsyncIterator[Cost]:
    clock = ManualClock(NOVEMBER_US)
    database = await open_database("cost", migrations="services.cost.migrations", clock=clock)
    spend = SpendStore(database, max_events=10_000, timeout_ms=20_000)
    books = bookkeeping(database)
    writer = alert_writer(database)
    budgets = BudgetStore(database, writer, max_per_project=5, max_per_anchor=3)
    yield Cost(database, books, budgets, spend, AlertStore(database, writer), clock)
    await books.close()
