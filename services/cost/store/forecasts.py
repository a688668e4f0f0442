"""What a forecast is made from, read in one snapshot."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from services.cost.budgets import Budget
from services.cost.forecast import HISTORY_MAX_HOURS
from services.cost.insights import HOUR_US
from services.cost.periods import QUARTER_US, Period
from services.cost.spend import SpendFilter
from services.cost.store.spend import series_of, spent_in
from services.cost.windows import Window
from services.runtime.database import Database


@dataclass(frozen=True, slots=True)
class SpendSoFar:
    """Money is nano-USD."""

    period: Period
    spent_at_origin: int
    """What the period had cost at the last full hour (UTC)."""
    spent_now: int
    hours_left: float
    """From the last full hour to the period's end."""
    history: list[int]
    """Whole hours up to the last full one, from the first that cost something."""


class ForecastStore:
    """Reads what was spent, for forecasts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def so_far(self, project_id: str, of: SpendFilter, period_at: Callable[[int], Period]) -> SpendSoFar:
        """What the running period has cost; `period_at` gives the period of a time in microseconds UTC."""
        return await self._database.read(self._so_far, project_id, of, period_at)

    def _so_far(
        self, connection: Connection, project_id: str, of: SpendFilter, period_at: Callable[[int], Period]
    ) -> SpendSoFar:
        now_us = self._database.now_us(connection)
        period = period_at(now_us)
        origin_us = now_us // HOUR_US * HOUR_US
        end_us = -(-now_us // QUARTER_US) * QUARTER_US
        history = series_of(
            connection, project_id, of, Window(origin_us - HISTORY_MAX_HOURS * HOUR_US, origin_us), HOUR_US
        )
        first = next((hour for hour, nano_usd in enumerate(history) if nano_usd), len(history))
        # A period that began within the hour has cost nothing at its beginning.
        origin_us = max(origin_us, period.starts_us)
        spent = 0
        if origin_us > period.starts_us:
            spent = spent_in(connection, project_id, of, Window(period.starts_us, origin_us))
        since = spent_in(connection, project_id, of, Window(origin_us, end_us)) if end_us > origin_us else 0
        return SpendSoFar(period, spent, spent + since, (period.ends_us - origin_us) / HOUR_US, history[first:])


def filter_of(budget: Budget) -> SpendFilter:
    """The usage that a budget counts."""
    scope = budget.scope
    provider, _, model = scope.model.partition("/")
    return SpendFilter(provider, model, scope.user_id, scope.key_id, scope.run_id, scope.tag)
