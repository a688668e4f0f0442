"""Budgets in the database. Each method is one transaction."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Final

from sqlalchemy import Connection, delete, func, select, update

from services.cost.budgets import Balance, Budget
from services.cost.periods import Month
from services.cost.store.books import balance_of, lock_project
from services.cost.store.rows import budget_of
from services.cost.store.tables import balances, budgets, request_ids
from services.runtime.database import Database
from services.runtime.errors import NotFound, ResourceExhausted
from services.runtime.requests import RememberedRequests, RequestKey

_KIND: Final = "budget"


class BudgetStore:
    """A project's budgets, with where they stand in the current period."""

    def __init__(self, database: Database, *, max_per_project: int) -> None:
        self._database = database
        self._max_per_project = max_per_project
        self._remembered = RememberedRequests(database, request_ids)

    async def create(self, key: RequestKey, payload: bytes, budget: Budget) -> Balance:
        """Add a budget; `created_us` is set here. ResourceExhausted(LIMIT_REACHED) where the project has too many."""
        return await self._database.write(self._create, key, payload, budget)

    def _create(self, connection: Connection, key: RequestKey, payload: bytes, budget: Budget) -> Balance:
        def create() -> bytes:
            lock_project(connection, self._database, budget.project_id)
            own = budgets.c.project_id == budget.project_id
            if connection.execute(select(func.count()).select_from(budgets).where(own)).scalar_one() >= (
                self._max_per_project
            ):
                raise ResourceExhausted(
                    "LIMIT_REACHED",
                    f"The project has {self._max_per_project} budgets already; delete one, or raise "
                    "LLMLAB_COST_MAX_BUDGETS_PER_PROJECT.",
                )
            created = replace(budget, created_us=self._database.now_us(connection))
            connection.execute(budgets.insert(), asdict(created))
            return _encode(self._standing(connection, created))

        return _decode(self._remembered.once(connection, key, payload, create))

    async def get(self, project_id: str, budget_id: str) -> Balance:
        """One budget; NotFound for an unknown id and for another project's."""
        return await self._database.read(self._get, project_id, budget_id)

    def _get(self, connection: Connection, project_id: str, budget_id: str) -> Balance:
        return self._standing(connection, self._find(connection, project_id, budget_id))

    async def page(self, project_id: str, *, after_id: str, limit: int) -> list[Balance]:
        """At most `limit` budgets in the order of their creation, after the one named."""
        return await self._database.read(self._page, project_id, after_id, limit)

    def _page(self, connection: Connection, project_id: str, after_id: str, limit: int) -> list[Balance]:
        after = (budgets.c.project_id == project_id, budgets.c.budget_id > after_id)
        statement = select(budgets).where(*after).order_by(budgets.c.budget_id).limit(limit)
        found = [budget_of(row) for row in connection.execute(statement).mappings()]
        return [self._standing(connection, budget) for budget in found]

    async def update(
        self, key: RequestKey, payload: bytes, budget_id: str, changes: Mapping[str, str | int]
    ) -> Balance:
        """Change fields of a budget; NotFound as in `get`."""
        return await self._database.write(self._update, key, payload, budget_id, changes)

    def _update(
        self, connection: Connection, key: RequestKey, payload: bytes, budget_id: str, changes: Mapping[str, str | int]
    ) -> Balance:
        def change() -> bytes:
            lock_project(connection, self._database, key.project_id)
            self._find(connection, key.project_id, budget_id)
            connection.execute(update(budgets).where(budgets.c.budget_id == budget_id).values(**changes))
            return _encode(self._get(connection, key.project_id, budget_id))

        return _decode(self._remembered.once(connection, key, payload, change))

    async def delete(self, project_id: str, budget_id: str) -> None:
        """Remove a budget and its balances; NotFound as in `get`."""
        await self._database.write(self._delete, project_id, budget_id)

    def _delete(self, connection: Connection, project_id: str, budget_id: str) -> None:
        lock_project(connection, self._database, project_id)
        self._find(connection, project_id, budget_id)
        connection.execute(delete(balances).where(balances.c.budget_id == budget_id))
        connection.execute(delete(budgets).where(budgets.c.budget_id == budget_id))

    def _find(self, connection: Connection, project_id: str, budget_id: str) -> Budget:
        own = (budgets.c.budget_id == budget_id, budgets.c.project_id == project_id)
        row = connection.execute(select(budgets).where(*own)).mappings().one_or_none()
        if row is None:
            raise NotFound(_KIND, budget_id)
        return budget_of(row)

    def _standing(self, connection: Connection, budget: Budget) -> Balance:
        month = budget.month_at(self._database.now_us(connection))
        settled, held = balance_of(connection, budget, month)
        return Balance(budget, month, settled, held)


def _encode(balance: Balance) -> bytes:
    return json.dumps(asdict(balance)).encode()


def _decode(answer: bytes) -> Balance:
    fields: dict[str, Any] = json.loads(answer)
    budget, month = Budget(**fields.pop("budget")), Month(**fields.pop("month"))
    return Balance(budget, month, **fields)
