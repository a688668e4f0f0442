"""InsightService: what is unusual about spending, and where it is going."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from llmlab.api.cost.v1 import budget_pb2
from llmlab.api.cost.v1 import insight_pb2 as pb
from llmlab.api.cost.v1.insight_pb2_grpc import InsightServiceServicer
from services.cost.forecast import LEVEL_DEFAULT_PERCENT, METHOD, forecast
from services.cost.insights import Anomaly, AnomalyQuery
from services.cost.periods import Period, PeriodKind, check_zone, period_at
from services.cost.rpc.codec import microseconds_of, timestamp_of
from services.cost.spend import EVERYTHING
from services.cost.store.anomalies import AnomalyStore
from services.cost.store.budgets import BudgetStore
from services.cost.store.forecasts import ForecastStore, filter_of
from services.cost.windows import AskedWindow, window_of
from services.runtime.clock import Clock
from services.runtime.context import current_principal, endless
from services.runtime.errors import InvalidField
from services.runtime.feeds import Watching
from services.runtime.pages import decode_page_token, encode_page_token, filter_fingerprint

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

_PAGE_SIZE_DEFAULT: Final = 100
_KINDS: Final = {
    budget_pb2.BUDGET_PERIOD_UNSPECIFIED: PeriodKind.MONTHLY,
    budget_pb2.BUDGET_PERIOD_DAILY: PeriodKind.DAILY,
    budget_pb2.BUDGET_PERIOD_WEEKLY: PeriodKind.WEEKLY,
    budget_pb2.BUDGET_PERIOD_MONTHLY: PeriodKind.MONTHLY,
    budget_pb2.BUDGET_PERIOD_QUARTERLY: PeriodKind.QUARTERLY,
    budget_pb2.BUDGET_PERIOD_YEARLY: PeriodKind.YEARLY,
    budget_pb2.BUDGET_PERIOD_TOTAL: PeriodKind.TOTAL,
}


class InsightServicer(InsightServiceServicer):
    """Serves llmlab.api.cost.v1.InsightService."""

    def __init__(
        self,
        anomalies: AnomalyStore,
        watching: Watching[Anomaly, pb.WatchAnomaliesResponse],
        forecasts: ForecastStore,
        budgets: BudgetStore,
        clock: Clock,
    ) -> None:
        self._anomalies = anomalies
        self._watching = watching
        self._forecasts = forecasts
        self._budgets = budgets
        self._clock = clock

    async def ListAnomalies(self, request: pb.ListAnomaliesRequest, context: "Context") -> pb.ListAnomaliesResponse:
        """Lists anomalies, newest first."""
        project_id = current_principal().project_id
        start_us = microseconds_of(request.start_time) if request.HasField("start_time") else None
        end_us = microseconds_of(request.end_time) if request.HasField("end_time") else None
        fingerprint = filter_fingerprint(
            "ListAnomalies", project_id, start_us, end_us, request.provider, request.model, request.impact_min_nano_usd
        )
        window = window_of(AskedWindow(start_us, end_us), self._clock.now_us())
        query = AnomalyQuery(
            window.start_us, window.end_us, request.provider, request.model, request.impact_min_nano_usd
        )
        after = decode_page_token(fingerprint, request.page_token)
        before = (int(after[0]), int(after[1])) if after else None
        size = request.page_size or _PAGE_SIZE_DEFAULT
        found = await self._anomalies.page(project_id, query, before=before, limit=size + 1)
        page = found[:size]
        more = len(found) > size
        return pb.ListAnomaliesResponse(
            anomalies=map(_anomaly_message, page),
            next_page_token=encode_page_token(fingerprint, [page[-1].found.start_us, page[-1].sequence])
            if more
            else "",
        )

    @endless
    async def WatchAnomalies(
        self, request: pb.WatchAnomaliesRequest, context: "Context"
    ) -> AsyncIterator[pb.WatchAnomaliesResponse]:
        """Streams anomalies."""
        project_id = current_principal().project_id
        async with aclosing(self._watching.watch(project_id, request.after_sequence, _watch_message)) as messages:
            async for message in messages:
                yield message

    async def GetForecast(self, request: pb.GetForecastRequest, context: "Context") -> pb.GetForecastResponse:
        """Forecasts the total of a period."""
        project_id = current_principal().project_id
        of, limit_nano_usd = EVERYTHING, 0
        if request.budget_id:
            if request.period or request.time_zone:
                raise InvalidField("budget_id", "A budget has its own period and zone; ask for it, or for a period.")
            budget = (await self._budgets.get(project_id, request.budget_id)).budget
            kind, zone, of, limit_nano_usd = budget.kind, budget.time_zone, filter_of(budget), budget.limit_nano_usd
            field = "budget_id"
        else:
            kind, zone, field = _KINDS[request.period], check_zone(request.time_zone, "time_zone"), "period"
        if kind is PeriodKind.TOTAL:
            raise InvalidField(field, "A period that never ends has no total to forecast; ask for a calendar period.")
        so_far = await self._forecasts.so_far(project_id, of, _period_of(kind, zone))
        level = request.level_percent if request.HasField("level_percent") else LEVEL_DEFAULT_PERCENT
        found = forecast(
            so_far.history,
            spent=so_far.spent_at_origin,
            spent_now=so_far.spent_now,
            hours_left=so_far.hours_left,
            level_percent=level,
        )
        return pb.GetForecastResponse(
            forecast=pb.Forecast(
                period=so_far.period.key,
                start_time=timestamp_of(so_far.period.starts_us),
                end_time=timestamp_of(so_far.period.ends_us),
                spent_nano_usd=so_far.spent_now,
                total_nano_usd=found.point_nano_usd,
                lower_nano_usd=found.lower_nano_usd,
                upper_nano_usd=found.upper_nano_usd,
                level_percent=found.level_percent,
                method=METHOD,
                history_hours=found.history_hours,
                origins=found.origins,
                limit_nano_usd=limit_nano_usd,
            )
        )


def _period_of(kind: PeriodKind, zone: str) -> Callable[[int], Period]:
    return lambda at_us: period_at(at_us, kind, zone)


def _watch_message(events: Sequence[Anomaly], latest: int) -> pb.WatchAnomaliesResponse:
    return pb.WatchAnomaliesResponse(anomalies=map(_anomaly_message, events), latest_sequence=latest)


def _anomaly_message(anomaly: Anomaly) -> pb.Anomaly:
    found = anomaly.found
    return pb.Anomaly(
        sequence=anomaly.sequence,
        provider=found.provider,
        model=found.model,
        start_time=timestamp_of(found.start_us),
        observed_nano_usd=found.observed,
        expected_nano_usd=found.expected,
        lower_nano_usd=found.lower,
        upper_nano_usd=found.upper,
        score=found.score,
        impact_nano_usd=found.impact,
        create_time=timestamp_of(anomaly.created_us),
    )
