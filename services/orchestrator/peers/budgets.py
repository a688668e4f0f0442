"""Budgets of runs at the cost service, over gRPC."""

from __future__ import annotations

from typing import Final

import grpc

from llmlab.api.cost.v1 import budget_pb2 as pb
from llmlab.api.cost.v1.budget_pb2_grpc import BudgetServiceStub
from services.orchestrator.peers.identity import metadata_for
from services.runtime.auth import ServiceTokenMinter
from services.runtime.channel import Metadata
from services.runtime.status import error_from_rpc

_PERMISSIONS: Final = ("READ", "MANAGE")


class GrpcBudgets:
    """Implements ports.Budgets. Whoever may start a run may limit it: the service asks on its own behalf."""

    def __init__(self, channel: grpc.aio.Channel, minter: ServiceTokenMinter) -> None:
        self._stub = BudgetServiceStub(channel)
        self._minter = minter

    async def limit_run(self, project_id: str, run_id: str, limit_nano_usd: int) -> None:
        budget = pb.Budget(
            name=f"max_cost of {run_id}",
            limit_nano_usd=limit_nano_usd,
            scope=pb.BudgetScope(run_id=run_id),
            period=pb.BUDGET_PERIOD_TOTAL,
        )
        request = pb.CreateBudgetRequest(request_id=run_id, budget=budget)
        try:
            await self._stub.CreateBudget(request, metadata=self._metadata(project_id))
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error

    async def lift_run(self, project_id: str, run_id: str) -> None:
        metadata = self._metadata(project_id)
        try:
            found = await self._stub.ListBudgets(
                pb.ListBudgetsRequest(scope=pb.BudgetScope(run_id=run_id)), metadata=metadata
            )
            for budget in found.budgets:
                await self._stub.DeleteBudget(pb.DeleteBudgetRequest(budget_id=budget.budget_id), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error

    def _metadata(self, project_id: str) -> Metadata:
        return metadata_for(self._minter.token(project_id, permissions=_PERMISSIONS))
