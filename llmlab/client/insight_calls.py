"""Calls about what is unusual about spending, and where it is going."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING

from llmlab.api.cost.v1 import budget_pb2, insight_pb2
from llmlab.api.cost.v1.insight_pb2_grpc import InsightServiceStub
from llmlab.client.connection import Connection

if TYPE_CHECKING:
    from llmlab.api.cost.v1.insight_pb2_grpc import InsightServiceAsyncStub

ANOMALY_PAGE_SIZE = 1000


class InsightCalls(Connection):
    """Anomalies and forecasts."""

    @property
    def _insights(self) -> InsightServiceAsyncStub:
        return InsightServiceStub(self._channel("cost"))

    async def list_anomalies(
        self,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        provider: str = "",
        model: str = "",
        impact_min_nano_usd: int = 0,
    ) -> AsyncIterator[insight_pb2.Anomaly]:
        """Yields hours whose spending was out of the ordinary, newest first.

        Args:
            start: Hours that begin at this time or later (with a zone); 30 days before `end` if absent.
            end: Hours that begin before this time; now if absent.
            provider: Only of this provider and its models.
            model: Only of this model, by the provider's name of it.
            impact_min_nano_usd: Only those that differ at least this much from what was expected.
        """
        request = insight_pb2.ListAnomaliesRequest(
            provider=provider, model=model, impact_min_nano_usd=impact_min_nano_usd, page_size=ANOMALY_PAGE_SIZE
        )
        if start is not None:
            request.start_time.FromDatetime(start)
        if end is not None:
            request.end_time.FromDatetime(end)
        async for page in self._pages("cost", self._insights.ListAnomalies, request):
            for anomaly in page.anomalies:
                yield anomaly

    def watch_anomalies(self, *, after_sequence: int = 0) -> AsyncGenerator[insight_pb2.Anomaly, None]:
        """Yields anomalies in the order in which they are found, each once.

        A stream that is cut (a replica that stops, a network that breaks) is resumed behind the last anomaly.

        Raises:
            LlmlabError: The sequence is no longer kept, or nobody answered 30 times in a row.
        """

        def request_after(sequence: int) -> insight_pb2.WatchAnomaliesRequest:
            return insight_pb2.WatchAnomaliesRequest(after_sequence=sequence)

        return self._watched(
            "cost", self._insights.WatchAnomalies, request_after, lambda message: message.anomalies, after_sequence
        )

    async def get_forecast(
        self,
        *,
        budget_id: str = "",
        period: budget_pb2.BudgetPeriod.ValueType = budget_pb2.BUDGET_PERIOD_UNSPECIFIED,
        time_zone: str = "",
        level_percent: int | None = None,
    ) -> insight_pb2.Forecast:
        """Returns what the running period will have cost at its end.

        Args:
            budget_id: The budget whose period and scope are meant, instead of the whole project.
            period: The calendar period, without a budget; the month if unspecified.
            time_zone: Whose calendar makes the period, without a budget; UTC if empty.
            level_percent: The share of totals that the interval is meant to hold, 50 - 99; 80 if absent.
        """
        request = insight_pb2.GetForecastRequest(
            budget_id=budget_id, period=period, time_zone=time_zone, level_percent=level_percent
        )
        return (await self._unary("cost", self._insights.GetForecast, request)).forecast
