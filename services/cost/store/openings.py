"""What a budget begins with when it is made, or gets another scope, in the middle of a period."""

from typing import Any, Final

from sqlalchemy import Connection, Select, TextClause, bindparam, select

from services.cost.budgets import Budget
from services.cost.ledger import AHEAD_MAX_US
from services.cost.periods import Period
from services.cost.scopes import Target
from services.cost.spend import SpendFilter
from services.cost.store.rows import attribution_of
from services.cost.store.spend import spent_in
from services.cost.store.tables import CHARGED, LIVE, balances, holds
from services.cost.windows import Window
from services.runtime.database import Database


def _made_in_period(condition: TextClause) -> Select[Any]:
    """Holds of a project in a state that has a partial index of its own."""
    columns = holds.c
    charged_to = (columns.provider, columns.model, columns.user_id, columns.key_id, columns.run_id, columns.tags)
    return select(columns.held_nano_usd, *charged_to).where(
        condition,
        columns.project_id == bindparam("project_id"),
        columns.created_us >= bindparam("starts_us"),
        columns.created_us < bindparam("ends_us"),
    )


_LIVE_HOLDS: Final = _made_in_period(LIVE)
_CHARGED_HOLDS: Final = _made_in_period(CHARGED)


def put_opening_balances(connection: Connection, database: Database, budget: Budget) -> None:
    """Write the balance of the current period, and of the next where usage could have been reported for it already.

    The caller holds the project's lock, so nothing is charged meanwhile.
    """
    times_us = (budget.since_us, budget.since_us + AHEAD_MAX_US)
    periods = {period.key: period for period in map(budget.period_at, times_us)}
    rows = []
    for period in periods.values():
        charged_nano_usd = _reserved(connection, budget, period, _CHARGED_HOLDS)
        rows.append(
            {
                "budget_id": budget.budget_id,
                "period": period.key,
                "settled_nano_usd": _spent(connection, budget, period) + charged_nano_usd,
                "held_nano_usd": _reserved(connection, budget, period, _LIVE_HOLDS),
            }
        )
    database.insert_rows(connection, balances, rows)


def _spent(connection: Connection, budget: Budget, period: Period) -> int:
    scope = budget.scope
    provider, _, model = scope.model.partition("/")
    filtered = SpendFilter(provider, model, scope.user_id, scope.key_id, scope.run_id, scope.tag)
    return spent_in(connection, budget.project_id, filtered, Window(period.starts_us, period.ends_us))


def _reserved(connection: Connection, budget: Budget, period: Period, statement: Select[Any]) -> int:
    named = {"project_id": budget.project_id, "starts_us": period.starts_us, "ends_us": period.ends_us}
    return sum(
        amount
        for amount, provider, model, *attribution in connection.execute(statement, named)
        if budget.scope.matches(Target(provider, model, attribution_of(*attribution)))
    )
