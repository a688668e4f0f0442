"""Calls to the cost service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmlab.api.cost.v1 import price_pb2
from llmlab.api.cost.v1.price_pb2_grpc import PriceServiceStub
from llmlab.client.connection import Connection

if TYPE_CHECKING:
    from llmlab.api.cost.v1.price_pb2_grpc import PriceServiceAsyncStub


class CostCalls(Connection):
    """Prices."""

    @property
    def _prices(self) -> PriceServiceAsyncStub:
        return PriceServiceStub(self._channel("cost"))

    async def get_model_price(self, model: str) -> price_pb2.GetModelPriceResponse:
        """Returns the current price of "provider/model"."""
        request = price_pb2.GetModelPriceRequest(model=model)
        return await self._unary("cost", self._prices.GetModelPrice, request)
