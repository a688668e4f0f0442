"""Calls about prices: what models cost, what calls will cost, and a project's own prices."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from llmlab.api.cost.v1 import price_pb2
from llmlab.api.cost.v1.price_pb2_grpc import PriceServiceStub
from llmlab.client.connection import Connection

if TYPE_CHECKING:
    from llmlab.api.cost.v1.price_pb2_grpc import PriceServiceAsyncStub

PRICES_PAGE_SIZE = 500


class PriceCalls(Connection):
    """Prices. Times have a zone."""

    @property
    def _prices(self) -> PriceServiceAsyncStub:
        return PriceServiceStub(self._channel("cost"))

    async def get_model_price(
        self, model: str, *, service_tier: str = "", at: datetime | None = None
    ) -> price_pb2.GetModelPriceResponse:
        """Returns the price of "provider/model" now or at a time, with all that the catalogue has of it."""
        request = price_pb2.GetModelPriceRequest(model=model, service_tier=service_tier)
        if at is not None:
            request.at.FromDatetime(at)
        return await self._unary("cost", self._prices.GetModelPrice, request)

    async def list_prices(self, *, provider: str = "", name_contains: str = "") -> AsyncIterator[price_pb2.ModelPrice]:
        """Yields models that have a price by name, each with the prices in force now."""
        request = price_pb2.ListPricesRequest(
            provider=provider, name_contains=name_contains, page_size=PRICES_PAGE_SIZE
        )
        async for page in self._pages("cost", self._prices.ListPrices, request):
            for model in page.models:
                yield model

    async def estimate_cost(
        self, items: Iterable[price_pb2.EstimateItem], *, at: datetime | None = None
    ) -> price_pb2.EstimateCostResponse:
        """Returns what 1 - 1,000 kinds of calls are likely to cost, and can cost at most; UNPRICED without a price."""
        request = price_pb2.EstimateCostRequest(items=items)
        if at is not None:
            request.at.FromDatetime(at)
        return await self._unary("cost", self._prices.EstimateCost, request)

    async def price_usage(
        self, items: Iterable[price_pb2.PriceItem], *, price_version: str = ""
    ) -> price_pb2.PriceUsageResponse:
        """Returns what the usage of 1 - 1,000 calls costs, without recording it.

        Args:
            items: What the calls used.
            price_version: A version of the catalogue; the prices in force for the project if empty.
        """
        request = price_pb2.PriceUsageRequest(items=items, price_version=price_version)
        return await self._unary("cost", self._prices.PriceUsage, request)

    async def create_price_override(
        self, override: price_pb2.PriceOverride, *, request_id: str = ""
    ) -> price_pb2.PriceOverride:
        """States a price of the project's own, and returns it with its id."""
        request = price_pb2.CreatePriceOverrideRequest(request_id=request_id, override=override)
        return (await self._unary("cost", self._prices.CreatePriceOverride, request)).override

    async def list_price_overrides(self) -> AsyncIterator[price_pb2.PriceOverride]:
        """Yields the project's overrides in the order of their creation, ended ones too."""
        request = price_pb2.ListPriceOverridesRequest()
        async for page in self._pages("cost", self._prices.ListPriceOverrides, request):
            for override in page.overrides:
                yield override

    async def delete_price_override(self, override_id: str) -> price_pb2.PriceOverride:
        """Ends an override: calls from now on are priced without it."""
        request = price_pb2.DeletePriceOverrideRequest(override_id=override_id)
        return (await self._unary("cost", self._prices.DeletePriceOverride, request)).override
