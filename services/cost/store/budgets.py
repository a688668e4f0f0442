"""Budgets in the database. Each method is one transaction."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from sqlalchemy import Connection, delete, func, select, update

from services.cost.alerting.alerts import reached
from services.cost.budgets import Balance, Budget, budget_overlaps
from services.cost.periods import Period, PeriodKind
from services.cost.scopes import Scope
from services.cost.store.alert_writer import AlertKey, AlertWriter
from services.cost.store.openings import SpentBefore, put_opening_balances, spent_before
from services.cost.store.projects import count_change_of_budgets, lock_project
from services.cost.store.rows import budget_of, row_of_budget
from services.cost.store.tables import balances, budgets, request_ids
from services.runtime.database import Database
from services.runtime.errors import NotFound, ResourceExhausted
from services.runtime.requests import RememberedRequests, RequestKey

_KIND: Final = "budget"


class BudgetStore:
    """A project's budgets, with where they stand in the current period."""

    def __init__(self, database: Database, alerts: AlertWriter, *, max_per_project: int, max_per_anchor: int) -> None:
        """A project may have `max_per_project` budgets, and as many as `max_per_anchor` that are looked up together."""
        self._database = database
        self._alerts = alerts
        self._max_per_project = max_per_project
        self._max_per_anchor = max_per_anchor
        self._remembered = RememberedRequests(database, request_ids)
        self._balances = select(balances).where(
            database.among(balances.c.budget_id, "budget_ids"), database.among(balances.c.period, "periods")
        )

    async def create(self, key: RequestKey, payload: bytes, budget: Budget) -> Balance:
        """Add a budget; its times are set here.

        Raises AlreadyExists(BUDGET_OVERLAPS) where one has its scope and kind of period, and
        ResourceExhausted(LIMIT_REACHED) where there are too many.
        """
        before = await self._database.read(self._before, budget)
        balance, raised = await self._database.write(self._create, key, payload, budget, before)
        self._alerts.committed(raised)
        return balance

    def _before(self, connection: Connection, budget: Budget) -> SpentBefore:
        return spent_before(connection, budget, self._database.now_us(connection))

    def _create(
        self, connection: Connection, key: RequestKey, payload: bytes, budget: Budget, before: SpentBefore
    ) -> tuple[Balance, list[AlertKey]]:
        raised: list[AlertKey] = []

        def create() -> bytes:
            locked = lock_project(connection, self._database, budget.project_id)
            self._check_room(connection, budget)
            created = replace(budget, created_us=locked.now_us, since_us=locked.now_us)
            connection.execute(budgets.insert(), row_of_budget(created))
            count_change_of_budgets(connection, budget.project_id, locked)
            put_opening_balances(connection, self._database, created, before)
            return _encode(self._told(connection, created, raised))

        return _decode(self._remembered.once(connection, key, payload, create)), raised

    async def get(self, project_id: str, budget_id: str) -> Balance:
        """One budget; NotFound for an unknown id and for another project's."""
        return await self._database.read(self._get, project_id, budget_id)

    def _get(self, connection: Connection, project_id: str, budget_id: str) -> Balance:
        return self._standing(connection, self._find(connection, project_id, budget_id))

    async def page(self, project_id: str, scope: Scope, *, after_id: str, limit: int) -> list[Balance]:
        """At most `limit` budgets in the order of their creation, after the one named.

        Only those whose own scope has what `scope` names.
        """
        return await self._database.read(self._page, project_id, scope, after_id, limit)

    def _page(self, connection: Connection, project_id: str, scope: Scope, after_id: str, limit: int) -> list[Balance]:
        named = [budgets.c[name] == value for name, value in asdict(scope).items() if value]
        after = (budgets.c.project_id == project_id, budgets.c.budget_id > after_id)
        statement = select(budgets).where(*after, *named).order_by(budgets.c.budget_id).limit(limit)
        return self._standings(connection, [budget_of(row) for row in connection.execute(statement).mappings()])

    async def update(self, key: RequestKey, payload: bytes, budget_id: str, changes: Mapping[str, Any]) -> Balance:
        """Change fields of a budget, by their names in `Budget`; NotFound as in `get`, and as `create` for a scope."""
        before = None
        if "scope" in changes:
            found = await self.get(key.project_id, budget_id)
            before = await self._database.read(self._before, replace(found.budget, **changes))
        balance, raised = await self._database.write(self._update, key, payload, budget_id, changes, before)
        self._alerts.committed(raised)
        return balance

    def _update(
        self,
        connection: Connection,
        key: RequestKey,
        payload: bytes,
        budget_id: str,
        changes: Mapping[str, Any],
        before: SpentBefore | None,
    ) -> tuple[Balance, list[AlertKey]]:
        raised: list[AlertKey] = []

        def change() -> bytes:
            locked = lock_project(connection, self._database, key.project_id)
            found = self._find(connection, key.project_id, budget_id)
            changed = replace(found, **changes)
            opening = before if changed.scope != found.scope else None
            if opening is not None:
                self._check_room(connection, changed)
                changed = replace(changed, since_us=locked.now_us)
            connection.execute(update(budgets).where(budgets.c.budget_id == budget_id).values(row_of_budget(changed)))
            count_change_of_budgets(connection, key.project_id, locked)
            if opening is not None:
                connection.execute(delete(balances).where(balances.c.budget_id == budget_id))
                put_opening_balances(connection, self._database, changed, opening)
            return _encode(self._told(connection, changed, raised))

        return _decode(self._remembered.once(connection, key, payload, change)), raised

    async def delete(self, project_id: str, budget_id: str) -> None:
        """Remove a budget and its balances; NotFound as in `get`."""
        await self._database.write(self._delete, project_id, budget_id)

    def _delete(self, connection: Connection, project_id: str, budget_id: str) -> None:
        locked = lock_project(connection, self._database, project_id)
        self._find(connection, project_id, budget_id)
        count_change_of_budgets(connection, project_id, locked)
        connection.execute(delete(balances).where(balances.c.budget_id == budget_id))
        connection.execute(delete(budgets).where(budgets.c.budget_id == budget_id))

    def _find(self, connection: Connection, project_id: str, budget_id: str) -> Budget:
        own = (budgets.c.budget_id == budget_id, budgets.c.project_id == project_id)
        row = connection.execute(select(budgets).where(*own)).mappings().one_or_none()
        if row is None:
            raise NotFound(_KIND, budget_id)
        return budget_of(row)

    def _check_room(self, connection: Connection, budget: Budget) -> None:
        """Refuse a budget that overlaps another, or is one too many; its own row does not count."""
        others = (budgets.c.project_id == budget.project_id, budgets.c.budget_id != budget.budget_id)
        at_anchor = select(budgets).where(*others, budgets.c.anchor == budget.scope.anchor)
        beside = [budget_of(row) for row in connection.execute(at_anchor).mappings()]
        for other in beside:
            if (other.scope, other.kind) == (budget.scope, budget.kind):
                raise budget_overlaps(other)
        if len(beside) >= self._max_per_anchor:
            raise ResourceExhausted(
                "LIMIT_REACHED",
                f"There are {len(beside)} budgets on {budget.scope.anchor or 'the whole project'} already; delete one, "
                "or raise LLMLAB_COST_MAX_BUDGETS_PER_ANCHOR.",
            )
        if connection.execute(select(func.count()).select_from(budgets).where(*others)).scalar_one() >= (
            self._max_per_project
        ):
            raise ResourceExhausted(
                "LIMIT_REACHED",
                f"The project has {self._max_per_project} budgets already; delete one, or raise "
                "LLMLAB_COST_MAX_BUDGETS_PER_PROJECT.",
            )

    def _told(self, connection: Connection, budget: Budget, raised: list[AlertKey]) -> Balance:
        """Where a new or changed budget stands, with alerts about the thresholds that it has passed already."""
        balance = self._standing(connection, budget)
        now_us = self._database.now_us(connection)
        raised += self._alerts.raise_new(connection, budget.project_id, reached(balance, None), now_us)
        return balance

    def _standing(self, connection: Connection, budget: Budget) -> Balance:
        (balance,) = self._standings(connection, [budget])
        return balance

    def _standings(self, connection: Connection, found: Sequence[Budget]) -> list[Balance]:
        """Where budgets stand in the current period; one without a row stands at 0."""
        now_us = self._database.now_us(connection)
        standing = {(one.budget_id, one.period_at(now_us).key): Balance(one, one.period_at(now_us)) for one in found}
        named = {"budget_ids": [key[0] for key in standing], "periods": list({key[1] for key in standing})}
        for budget_id, period, settled, held in connection.execute(self._balances, named):
            balance = standing.get((budget_id, period))
            if balance is not None:
                balance.settled_nano_usd, balance.held_nano_usd = settled, held
        return list(standing.values())


def _encode(balance: Balance) -> bytes:
    return json.dumps(asdict(balance)).encode()


def _decode(answer: bytes) -> Balance:
    fields: dict[str, Any] = json.loads(answer)
    budget = fields.pop("budget")
    scope, kind = Scope(**budget.pop("scope")), PeriodKind(budget.pop("kind"))
    thresholds = tuple(budget.pop("thresholds_percent"))
    return Balance(
        Budget(**budget, scope=scope, kind=kind, thresholds_percent=thresholds),
        Period(**fields.pop("period")),
        **fields,
    )
