"""Calls about budgets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from google.protobuf import field_mask_pb2

from llmlab.api.cost.v1 import budget_pb2
from llmlab.api.cost.v1.budget_pb2_grpc import BudgetServiceStub
from llmlab.client.connection import Connection

if TYPE_CHECKING:
    from llmlab.api.cost.v1.budget_pb2_grpc import BudgetServiceAsyncStub


class BudgetCalls(Connection):
    """Limits on spending."""

    @property
    def _budgets(self) -> BudgetServiceAsyncStub:
        return BudgetServiceStub(self._channel("cost"))

    async def create_budget(
        self,
        name: str,
        limit_nano_usd: int,
        *,
        scope: budget_pb2.BudgetScope | None = None,
        period: budget_pb2.BudgetPeriod.ValueType = budget_pb2.BUDGET_PERIOD_MONTHLY,
        time_zone: str = "",
        soft: bool = False,
        thresholds_percent: Iterable[int] = (),
        request_id: str = "",
    ) -> budget_pb2.Budget:
        """Creates a budget.

        Args:
            name: For people.
            limit_nano_usd: The limit in each period.
            scope: The calls that it counts: those that have all that it names; absent for the whole project.
            period: How long a period is.
            time_zone: The IANA zone whose calendar makes the periods; empty for UTC.
            soft: Whether it refuses nothing and only raises alerts.
            thresholds_percent: Parts of the limit that raise an alert; none for 50, 80 and 100.
            request_id: Makes a repeat answer as the first did; empty for none.
        """
        budget = budget_pb2.Budget(
            name=name,
            limit_nano_usd=limit_nano_usd,
            scope=scope,
            period=period,
            time_zone=time_zone,
            soft=soft,
            thresholds_percent=thresholds_percent,
        )
        request = budget_pb2.CreateBudgetRequest(request_id=request_id, budget=budget)
        return (await self._unary("cost", self._budgets.CreateBudget, request)).budget

    async def get_budget(self, budget_id: str) -> budget_pb2.Budget:
        """Returns one budget with its status."""
        request = budget_pb2.GetBudgetRequest(budget_id=budget_id)
        return (await self._unary("cost", self._budgets.GetBudget, request)).budget

    async def list_budgets(self, scope: budget_pb2.BudgetScope | None = None) -> AsyncIterator[budget_pb2.Budget]:
        """Yields the project's budgets with their status, oldest first; with `scope`, those that have what it names."""
        request = budget_pb2.ListBudgetsRequest(scope=scope)
        async for page in self._pages("cost", self._budgets.ListBudgets, request):
            for budget in page.budgets:
                yield budget

    async def update_budget(
        self, budget: budget_pb2.Budget, fields: Iterable[str], *, request_id: str = ""
    ) -> budget_pb2.Budget:
        """Changes the named fields to those of `budget`.

        They are "name", "limit_nano_usd", "scope", "soft" and "thresholds_percent".
        """
        request = budget_pb2.UpdateBudgetRequest(
            request_id=request_id,
            budget_id=budget.budget_id,
            budget=budget,
            update_mask=field_mask_pb2.FieldMask(paths=list(fields)),
        )
        return (await self._unary("cost", self._budgets.UpdateBudget, request)).budget

    async def delete_budget(self, budget_id: str) -> None:
        """Deletes a budget."""
        request = budget_pb2.DeleteBudgetRequest(budget_id=budget_id)
        await self._unary("cost", self._budgets.DeleteBudget, request)
