"""UsageService and PriceService: what was used and spent, and what models cost."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

from llmlab.api.cost.v1 import spend_pb2 as pb
from llmlab.api.cost.v1.spend_pb2_grpc import UsageServiceServicer
from services.cost.bookkeeping import Bookkeeping
from services.cost.events import UsageReport
from services.cost.rpc.codec import (
    attribution_of,
    cost_message,
    microseconds_of,
    sums_message,
    usage_of,
)
from services.cost.spend import Dimension, SpendQuery, SpendRow, check_groups
from services.cost.store.spend import SpendStore
from services.cost.usage import tier_named
from services.runtime.context import current_principal
from services.runtime.pages import decode_page_token, encode_page_token, filter_fingerprint

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

_PAGE_SIZE_DEFAULT: Final = 100
_EPOCH: Final = date(1970, 1, 1)
_DIMENSIONS: Final = {
    pb.SPEND_DIMENSION_DAY: Dimension.DAY,
    pb.SPEND_DIMENSION_PROVIDER: Dimension.PROVIDER,
    pb.SPEND_DIMENSION_MODEL: Dimension.MODEL,
    pb.SPEND_DIMENSION_TAG: Dimension.TAG,
}


class UsageServicer(UsageServiceServicer):
    """Serves llmlab.api.cost.v1.UsageService."""

    def __init__(self, books: Bookkeeping, spend: SpendStore) -> None:
        self._books = books
        self._spend = spend

    async def RecordUsage(self, request: pb.RecordUsageRequest, context: "Context") -> pb.RecordUsageResponse:
        """Records events, all of them or none."""
        reports = [_report(event) for event in request.events]
        outcome = await self._books.report(current_principal().project_id, reports)
        costs = [cost_message(cost) for cost in outcome.costs]
        return pb.RecordUsageResponse(costs=costs, duplicates=outcome.duplicates)

    async def SummarizeSpend(self, request: pb.SummarizeSpendRequest, context: "Context") -> pb.SummarizeSpendResponse:
        """Sums what was spent."""
        project_id = current_principal().project_id
        group_by = check_groups([_DIMENSIONS[dimension] for dimension in request.group_by])
        start_us = microseconds_of(request.start_time) if request.HasField("start_time") else None
        end_us = microseconds_of(request.end_time) if request.HasField("end_time") else None
        fingerprint = filter_fingerprint("SummarizeSpend", project_id, start_us, end_us, group_by)
        query = SpendQuery(
            start_us=start_us,
            end_us=end_us,
            group_by=group_by,
            page_size=request.page_size or _PAGE_SIZE_DEFAULT,
            after=decode_page_token(fingerprint, request.page_token) or (),
        )
        summary = await self._spend.summarize(project_id, query)
        return pb.SummarizeSpendResponse(
            rows=[_row(group_by, row) for row in summary.rows],
            total=sums_message([], summary.total),
            held_nano_usd=summary.held_nano_usd,
            next_page_token=encode_page_token(fingerprint, summary.rows[-1].keys) if summary.more else "",
        )


def _report(event: pb.UsageEvent) -> UsageReport:
    return UsageReport(
        event.event_id,
        event.source,
        event.provider,
        event.model,
        usage_of(event.usage),
        attribution_of(event.attribution),
        microseconds_of(event.occurred_at) if event.HasField("occurred_at") else None,
        tier_named(event.service_tier),
    )


def _row(group_by: Sequence[Dimension], row: SpendRow) -> pb.SpendRow:
    keys = [
        (_EPOCH + timedelta(days=int(key))).isoformat() if dimension is Dimension.DAY else str(key)
        for dimension, key in zip(group_by, row.keys, strict=True)
    ]
    return sums_message(keys, row.sums)
