"""The domain of the cost service on a real database, for contract tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from services.cost.alerting.alerts import AlertLimits
from services.cost.bookkeeping import Bookkeeping
from services.cost.budgets import Balance
from services.cost.holds import HoldState
from services.cost.ledger import HoldOutcome
from services.cost.rollups import DAY_US
from services.cost.spend import SpendQuery, Sums
from services.cost.store.alert_writer import AlertWriter
from services.cost.store.alerts import AlertStore
from services.cost.store.books import BookKeeper
from services.cost.store.budgets import BudgetStore
from services.cost.store.spend import SpendStore
from services.cost.store.tables import balances, holds, usage_events
from services.cost.windows import AskedWindow
from services.runtime.clock import ManualClock
from services.runtime.database import Database
from services.runtime.hints import Hints, LocalHints
from services.runtime.requests import RequestKey
from tests.support.cost import HOUR_US, NOVEMBER_US, PriceList, budget

PROJECT = "prj_1"
EVERYTHING = SpendQuery(AskedWindow(NOVEMBER_US - 20 * DAY_US, NOVEMBER_US + 20 * DAY_US))


def alert_writer(database: Database, hints: Hints | None = None) -> AlertWriter:
    """Raises alerts, three a day about unpriced models, whose deliveries are tried for an hour."""
    return AlertWriter(database, hints or LocalHints(), AlertLimits(unpriced_per_day=3, delivery_window_us=HOUR_US))


def bookkeeping(database: Database, *, max_batch: int = 64) -> Bookkeeping:
    """Books on a database, as a replica of the service keeps them."""
    keeper = BookKeeper(database, PriceList(), alert_writer(database))
    return Bookkeeping(keeper, max_batch=max_batch, max_queue=10_000, max_in_flight=4)


@dataclass
class Cost:
    """The domain on a real database, with a clock that the test moves."""

    database: Database
    books: Bookkeeping
    budgets: BudgetStore
    spend: SpendStore
    alerts: AlertStore
    clock: ManualClock

    async def budget(self, limit_nano_usd: int, *, number: int = 1, **more: Any) -> str:
        made = budget(limit_nano_usd, budget_id=f"bud_{number}", **more)
        await self.budgets.create(RequestKey(PROJECT, "CreateBudget", ""), b"", made)
        return made.budget_id

    async def standing(self, budget_id: str) -> tuple[int, int]:
        balance = await self.budgets.get(PROJECT, budget_id)
        return balance.settled_nano_usd, balance.held_nano_usd

    async def total(self, project_id: str = PROJECT) -> Sums:
        return (await self.spend.summarize(project_id, EVERYTHING)).total

    async def update(self, budget_id: str, **changes: Any) -> Balance:
        return await self.budgets.update(RequestKey(PROJECT, "UpdateBudget", ""), b"", budget_id, changes)

    async def balances(self) -> dict[tuple[str, str], tuple[int, int]]:
        """What is on record of each budget and period."""

        def load(connection: Connection) -> dict[tuple[str, str], tuple[int, int]]:
            rows = connection.execute(select(balances))
            return {(budget_id, period): (settled, held) for budget_id, period, settled, held in rows}

        return await self.database.read(load)

    async def counted(self) -> tuple[int, int, int]:
        """Events, their cost, and money of live holds, counted from the raw rows."""

        def count(connection: Connection) -> tuple[int, int, int]:
            columns = usage_events.c
            own = columns.project_id == PROJECT
            events = connection.execute(select(func.count(), func.sum(columns.cost_nano_usd)).where(own)).one()
            live = (holds.c.project_id == PROJECT, holds.c.state == HoldState.HELD.value)
            held = connection.execute(select(func.sum(holds.c.held_nano_usd)).where(*live)).scalar_one()
            return int(events[0]), int(events[1] or 0), int(held or 0)

        return await self.database.read(count)


def reasons(outcomes: list[HoldOutcome]) -> list[str | None]:
    """Why each hold was refused; None where it was not."""
    return [None if one.error is None else one.error.reason for one in outcomes]
