"""What a budget begins with when it is made, or gets another scope, in the middle of a period."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Select, TextClause, bindparam, func, select

from services.cost.budgets import Budget
from services.cost.ledger import AHEAD_MAX_US
from services.cost.periods import Period
from services.cost.scopes import Target
from services.cost.spend import SpendFilter
from services.cost.store.events import matching
from services.cost.store.rows import attribution_of
from services.cost.store.spend import spent_in
from services.cost.store.tables import CHARGED, LIVE, balances, holds, projects, usage_events
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


_SEQUENCE: Final = select(projects.c.event_sequence).where(projects.c.project_id == bindparam("project_id"))
_LIVE_HOLDS: Final = _made_in_period(LIVE)
_CHARGED_HOLDS: Final = _made_in_period(CHARGED)


@dataclass(frozen=True, slots=True)
class SpentBefore:
    """What a budget's scope had spent in its periods at one moment, read while everybody else went on."""

    sequence: int
    """The number of the last event that is counted in."""
    nano_usd: Mapping[str, int]
    """By the keys of the periods."""


def spent_before(connection: Connection, budget: Budget, now_us: int) -> SpentBefore:
    """Sum what a new scope has spent. It may have to read every event of a period: not under the project's lock."""
    sequence = connection.execute(_SEQUENCE, {"project_id": budget.project_id}).scalar_one_or_none() or 0
    scope = _filter_of(budget)
    sums = {
        period.key: spent_in(connection, budget.project_id, scope, Window(period.starts_us, period.ends_us))
        for period in _periods(budget, now_us)
    }
    return SpentBefore(sequence, sums)


def put_opening_balances(connection: Connection, database: Database, budget: Budget, before: SpentBefore) -> None:
    """Write the balance of the current period, and of the next where usage could have been reported for it already.

    The caller holds the project's lock, so nothing is charged meanwhile.
    """
    rows = [
        {
            "budget_id": budget.budget_id,
            "period": period.key,
            "settled_nano_usd": _spent(connection, budget, period, before)
            + _reserved(connection, budget, period, _CHARGED_HOLDS),
            "held_nano_usd": _reserved(connection, budget, period, _LIVE_HOLDS),
        }
        for period in _periods(budget, budget.since_us)
    ]
    database.insert_rows(connection, balances, rows)


def _periods(budget: Budget, now_us: int) -> list[Period]:
    periods = {period.key: period for period in map(budget.period_at, (now_us, now_us + AHEAD_MAX_US))}
    return list(periods.values())


def _filter_of(budget: Budget) -> SpendFilter:
    scope = budget.scope
    provider, _, model = scope.model.partition("/")
    return SpendFilter(provider, model, scope.user_id, scope.key_id, scope.run_id, scope.tag)


def _spent(connection: Connection, budget: Budget, period: Period, before: SpentBefore) -> int:
    """What was spent before, and by the few events since."""
    known = before.nano_usd.get(period.key)
    if known is None:
        # The period has come within reach since then: there is not much in it.
        window = Window(period.starts_us, period.ends_us)
        return spent_in(connection, budget.project_id, _filter_of(budget), window)
    since = select(func.coalesce(func.sum(usage_events.c.cost_nano_usd), 0)).where(
        usage_events.c.project_id == budget.project_id,
        usage_events.c.sequence > before.sequence,
        usage_events.c.occurred_us >= period.starts_us,
        usage_events.c.occurred_us < period.ends_us,
        *matching(_filter_of(budget)),
    )
    return known + int(connection.execute(since).scalar_one())


def _reserved(connection: Connection, budget: Budget, period: Period, statement: Select[Any]) -> int:
    named = {"project_id": budget.project_id, "starts_us": period.starts_us, "ends_us": period.ends_us}
    return sum(
        amount
        for amount, provider, model, *attribution in connection.execute(statement, named)
        if budget.scope.matches(Target(provider, model, attribution_of(*attribution)))
    )
