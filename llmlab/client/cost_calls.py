"""Calls to the cost service."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from llmlab.api.cost.v1 import price_pb2, spend_pb2
from llmlab.api.cost.v1.price_pb2_grpc import PriceServiceStub
from llmlab.api.cost.v1.spend_pb2_grpc import UsageServiceStub
from llmlab.client.connection import Connection

if TYPE_CHECKING:
    from llmlab.api.cost.v1.price_pb2_grpc import PriceServiceAsyncStub
    from llmlab.api.cost.v1.spend_pb2_grpc import UsageServiceAsyncStub

SPEND_PAGE_SIZE = 1000


class CostCalls(Connection):
    """Usage, spend and prices."""

    @property
    def _usage(self) -> UsageServiceAsyncStub:
        return UsageServiceStub(self._channel("cost"))

    @property
    def _prices(self) -> PriceServiceAsyncStub:
        return PriceServiceStub(self._channel("cost"))

    async def record_usage(self, events: Iterable[spend_pb2.UsageEvent]) -> spend_pb2.RecordUsageResponse:
        """Records usage events, all or none; they are durable when this returns."""
        request = spend_pb2.RecordUsageRequest(events=events)
        return await self._unary("cost", self._usage.RecordUsage, request)

    async def summarize_spend(
        self,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        group_by: Iterable[spend_pb2.SpendDimension.ValueType] = (),
    ) -> spend_pb2.SummarizeSpendResponse:
        """Sums what was spent; the rows of all pages in one answer.

        Args:
            start: From this time (with a zone); 30 days before `end` if absent.
            end: Before this time; now if absent.
            group_by: Dimensions of the rows.
        """
        request = spend_pb2.SummarizeSpendRequest(group_by=group_by, page_size=SPEND_PAGE_SIZE)
        if start is not None:
            request.start_time.FromDatetime(start)
        if end is not None:
            request.end_time.FromDatetime(end)
        joined: spend_pb2.SummarizeSpendResponse | None = None
        async for page in self._pages("cost", self._usage.SummarizeSpend, request):
            if joined is None:
                joined = page
            else:
                joined.rows.extend(page.rows)
        assert joined is not None  # paging yields at least one page
        joined.next_page_token = ""
        return joined

    async def get_model_price(self, model: str) -> price_pb2.GetModelPriceResponse:
        """Returns the current price of "provider/model"."""
        request = price_pb2.GetModelPriceRequest(model=model)
        return await self._unary("cost", self._prices.GetModelPrice, request)
