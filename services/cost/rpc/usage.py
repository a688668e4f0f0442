"""UsageService: usage that is reported and found again, and what was spent."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from llmlab.api.common.v1 import usage_pb2
from llmlab.api.cost.v1 import spend_pb2 as pb
from llmlab.api.cost.v1.spend_pb2_grpc import UsageServiceServicer
from services.cost.bookkeeping import Bookkeeping
from services.cost.events import EventQuery, UsageEvent, UsageReport
from services.cost.rpc.codec import (
    attribution_message,
    attribution_of,
    check_texts,
    cost_message,
    entries_of,
    microseconds_of,
    timestamp_of,
    usage_message,
    usage_of,
)
from services.cost.rpc.spend import export_of, filter_of, query_of, summary_message
from services.cost.store.events import EventStore
from services.cost.store.spend import SpendStore
from services.cost.usage import tier_named
from services.runtime.context import current_principal
from services.runtime.errors import InvalidField
from services.runtime.pages import decode_page_token, encode_page_token, filter_fingerprint

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

_PAGE_SIZE_DEFAULT: Final = 100
_CHUNK_BYTES: Final = 256 * 1024
_ON_LOOP_MAX: Final = 200
"""Events that are read on the event loop: they take about a millisecond."""


class UsageServicer(UsageServiceServicer):
    """Serves llmlab.api.cost.v1.UsageService."""

    def __init__(self, books: Bookkeeping, events: EventStore, spend: SpendStore, *, export_page_size: int) -> None:
        """Exports read `export_page_size` groups at a time."""
        self._books = books
        self._events = events
        self._spend = spend
        self._export_page_size = export_page_size

    async def RecordUsage(self, request: pb.RecordUsageRequest, context: "Context") -> pb.RecordUsageResponse:
        """Records events, all of them or none."""
        outcome = await self._books.report(current_principal().project_id, await _reports(request.events))
        costs = [cost_message(cost) for cost in outcome.costs]
        return pb.RecordUsageResponse(costs=costs, duplicates=outcome.duplicates)

    async def StreamUsage(
        self, request: AsyncIterator[pb.StreamUsageRequest], context: "Context"
    ) -> pb.StreamUsageResponse:
        """Records one message after another, each durable before the next is taken: gRPC holds the sender back."""
        project_id = current_principal().project_id
        acknowledged = duplicates = nano_usd = unpriced = 0
        async for message in request:
            outcome = await self._books.report(project_id, await _reports(message.events))
            acknowledged += len(outcome.costs)
            duplicates += outcome.duplicates
            nano_usd += sum(cost.nano_usd for cost in outcome.costs)
            unpriced += sum(1 for cost in outcome.costs if not cost.priced)
        cost = usage_pb2.Cost(cost_nano_usd=nano_usd, unpriced_calls=unpriced)
        return pb.StreamUsageResponse(acknowledged=acknowledged, duplicates=duplicates, cost=cost)

    async def GetUsageEvent(self, request: pb.GetUsageEventRequest, context: "Context") -> pb.GetUsageEventResponse:
        """Gives one event."""
        event = await self._events.get(current_principal().project_id, request.source, request.event_id)
        return pb.GetUsageEventResponse(usage=_recorded(event))

    async def ListUsageEvents(
        self, request: pb.ListUsageEventsRequest, context: "Context"
    ) -> pb.ListUsageEventsResponse:
        """Lists events, the latest first."""
        project_id = current_principal().project_id
        asked = filter_of(request.filter, "filter")
        start_us = microseconds_of(request.start_time) if request.HasField("start_time") else None
        end_us = microseconds_of(request.end_time) if request.HasField("end_time") else None
        if start_us is not None and end_us is not None and start_us >= end_us:
            raise InvalidField("start_time", "The window is empty: its start has to be before its end.")
        fingerprint = filter_fingerprint(
            "ListUsageEvents", project_id, asked.conditions(), request.source, start_us, end_us
        )
        after = decode_page_token(fingerprint, request.page_token) or ()
        page_size = request.page_size or _PAGE_SIZE_DEFAULT
        page = await self._events.page(
            project_id, EventQuery(asked, request.source, start_us, end_us, page_size, after)
        )
        return pb.ListUsageEventsResponse(
            usage=[_recorded(event) for event in page.events],
            next_page_token=encode_page_token(fingerprint, page.position) if page.position else "",
        )

    async def SummarizeSpend(self, request: pb.SummarizeSpendRequest, context: "Context") -> pb.SummarizeSpendResponse:
        """Sums what was spent."""
        project_id = current_principal().project_id
        summary = await self._spend.summarize(project_id, query_of(request, project_id))
        return summary_message(request, project_id, summary)

    async def ExportSpend(
        self, request: pb.ExportSpendRequest, context: "Context"
    ) -> AsyncIterator[pb.ExportSpendResponse]:
        """Writes what was spent into a file."""
        project_id = current_principal().project_id
        query, writer = export_of(request, project_id, self._export_page_size)
        pending = writer.begin().encode()
        written = 0
        async for rows in self._spend.pages(project_id, query):
            written += len(rows)
            pending += writer.rows(rows).encode()
            while len(pending) >= _CHUNK_BYTES:
                yield pb.ExportSpendResponse(data=pending[:_CHUNK_BYTES], rows=written)
                pending = pending[_CHUNK_BYTES:]
        yield pb.ExportSpendResponse(data=pending, rows=written)


async def _reports(events: Sequence[pb.UsageEvent]) -> list[UsageReport]:
    """Many are read in a thread: nothing may hold the event loop for as long as they take."""
    if len(events) > _ON_LOOP_MAX:
        return await asyncio.to_thread(lambda: list(map(_report, events)))
    return list(map(_report, events))


def _report(event: pb.UsageEvent) -> UsageReport:
    event_id, source, provider, model = event.event_id, event.source, event.provider, event.model
    metadata = entries_of(event.metadata)
    check_texts(event_id, source, provider, model, *chain.from_iterable(metadata))
    return UsageReport(
        event_id,
        source,
        provider,
        model,
        usage_of(event.usage),
        attribution_of(event.attribution),
        microseconds_of(event.occurred_at) if event.HasField("occurred_at") else None,
        tier_named(event.service_tier),
        metadata,
    )


def _recorded(event: UsageEvent) -> pb.RecordedUsage:
    return pb.RecordedUsage(
        event=pb.UsageEvent(
            event_id=event.event_id,
            source=event.source,
            provider=event.provider,
            model=event.model,
            usage=usage_message(event.usage),
            attribution=attribution_message(event.attribution),
            occurred_at=timestamp_of(event.occurred_us),
            service_tier=event.service_tier,
            metadata=dict(event.metadata),
        ),
        cost=cost_message(event.cost),
        cost_parts=event.breakdown.parts(),
        provider_model=event.provider_model,
        succeeded=event.succeeded,
        recorded_at=timestamp_of(event.recorded_us),
    )
