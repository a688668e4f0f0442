"""Calls about usage and spend."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from datetime import datetime
from typing import TYPE_CHECKING

import grpc

from llmlab.api.cost.v1 import spend_pb2
from llmlab.api.cost.v1.spend_pb2_grpc import UsageServiceStub
from llmlab.client.connection import STREAM_TIMEOUT_S, Connection
from llmlab.client.errors import error_from_rpc

if TYPE_CHECKING:
    from llmlab.api.cost.v1.spend_pb2_grpc import UsageServiceAsyncStub

SPEND_PAGE_SIZE = 1000


class UsageCalls(Connection):
    """Usage that is reported and found again, and what was spent."""

    @property
    def _usage(self) -> UsageServiceAsyncStub:
        return UsageServiceStub(self._channel("cost"))

    async def record_usage(self, events: Iterable[spend_pb2.UsageEvent]) -> spend_pb2.RecordUsageResponse:
        """Records usage events, all or none; they are durable when this returns."""
        request = spend_pb2.RecordUsageRequest(events=events)
        return await self._unary("cost", self._usage.RecordUsage, request)

    async def stream_usage(
        self, batches: AsyncIterable[Iterable[spend_pb2.UsageEvent]]
    ) -> spend_pb2.StreamUsageResponse:
        """Records batches of 1 - 1,000 events, each all or none, and returns what is durable.

        After a failure, send everything again: what is on record counts as a duplicate.
        """

        async def messages() -> AsyncIterator[spend_pb2.StreamUsageRequest]:
            async for events in batches:
                yield spend_pb2.StreamUsageRequest(events=events)

        try:
            return await self._usage.StreamUsage(messages(), timeout=STREAM_TIMEOUT_S, metadata=await self._metadata())
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, self.endpoints.cost) from error

    async def get_usage_event(self, source: str, event_id: str) -> spend_pb2.RecordedUsage:
        """Returns one usage event; the source of settled calls is "gateway"."""
        request = spend_pb2.GetUsageEventRequest(source=source, event_id=event_id)
        return (await self._unary("cost", self._usage.GetUsageEvent, request)).usage

    async def list_usage_events(
        self,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        usage_filter: spend_pb2.SpendFilter | None = None,
        source: str = "",
    ) -> AsyncIterator[spend_pb2.RecordedUsage]:
        """Yields usage events, the latest first.

        Args:
            start: From this time (with a zone); without beginning if absent.
            end: Before this time; without end if absent.
            usage_filter: Only what fits.
            source: Only of this reporter.
        """
        request = spend_pb2.ListUsageEventsRequest(filter=usage_filter, source=source)
        if start is not None:
            request.start_time.FromDatetime(start)
        if end is not None:
            request.end_time.FromDatetime(end)
        async for page in self._pages("cost", self._usage.ListUsageEvents, request):
            for usage in page.usage:
                yield usage

    async def summarize_spend(
        self,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        group_by: Iterable[spend_pb2.SpendDimension.ValueType] = (),
        question: spend_pb2.SummarizeSpendRequest | None = None,
        limit: int | None = None,
    ) -> spend_pb2.SummarizeSpendResponse:
        """Sums what was spent; the rows of all pages in one answer.

        Args:
            start: From this time (with a zone); 30 days before `end` if absent.
            end: Before this time; now if absent.
            group_by: Dimensions of the rows.
            question: Everything else that can be asked: period, zone, filter, order, comparison.
            limit: Stop after so many rows; `next_page_token` then says that there are more.
        """
        request = spend_pb2.SummarizeSpendRequest()
        if question is not None:
            request.CopyFrom(question)
        request.group_by.extend(group_by)
        request.page_size = min(limit or SPEND_PAGE_SIZE, SPEND_PAGE_SIZE)
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
                joined.next_page_token = page.next_page_token
            if limit is not None and len(joined.rows) >= limit:
                break
        assert joined is not None  # paging yields at least one page
        return joined

    async def export_spend(
        self, question: spend_pb2.SummarizeSpendRequest, file_format: spend_pb2.SpendFormat.ValueType
    ) -> AsyncIterator[spend_pb2.ExportSpendResponse]:
        """Yields the pieces of a file of what was spent."""
        request = spend_pb2.ExportSpendRequest(question=question, format=file_format)
        async for piece in self._stream("cost", self._usage.ExportSpend, request):
            yield piece
