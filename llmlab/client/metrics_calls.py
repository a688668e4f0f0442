"""Calls to the metrics service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from llmlab.api.metrics.v1 import metrics_pb2, statistics_pb2
from llmlab.api.metrics.v1.metrics_pb2_grpc import MetricsServiceStub
from llmlab.client.connection import Connection

if TYPE_CHECKING:
    from llmlab.api.metrics.v1.metrics_pb2_grpc import MetricsServiceAsyncStub


class MetricsCalls(Connection):
    """Scores and statistics."""

    @property
    def _metrics(self) -> MetricsServiceAsyncStub:
        return MetricsServiceStub(self._channel("metrics"))

    async def score(
        self, sample: metrics_pb2.Sample, scorers: Iterable[metrics_pb2.ScorerSpec] = ()
    ) -> list[metrics_pb2.Score]:
        """Scores one answer; without scorers, by the default set."""
        request = metrics_pb2.ScoreRequest(sample=sample, scorers=scorers)
        return list((await self._unary("metrics", self._metrics.Score, request)).scores)

    async def score_batch(
        self, samples: Iterable[metrics_pb2.Sample], scorers: Iterable[metrics_pb2.ScorerSpec] = ()
    ) -> list[metrics_pb2.SampleScores]:
        """Scores several answers; one that can't be scored says so and spoils no other."""
        request = metrics_pb2.ScoreBatchRequest(samples=samples, scorers=scorers)
        return list((await self._unary("metrics", self._metrics.ScoreBatch, request)).samples)

    async def list_scorers(self) -> AsyncIterator[metrics_pb2.Scorer]:
        """Yields the scorers, by name."""
        async for page in self._pages("metrics", self._metrics.ListScorers, metrics_pb2.ListScorersRequest()):
            for scorer in page.scorers:
                yield scorer

    async def summarize(
        self, series: Iterable[statistics_pb2.Series], *, confidence: float = 0.95
    ) -> list[statistics_pb2.SeriesSummary]:
        """Sums numbers up, each figure with its interval."""
        request = statistics_pb2.SummarizeRequest(series=series, confidence=confidence)
        return list((await self._unary("metrics", self._metrics.Summarize, request)).summaries)

    async def compare(self, question: statistics_pb2.CompareRequest) -> statistics_pb2.CompareResponse:
        """Compares groups of numbers in pairs, unit by unit."""
        return await self._unary("metrics", self._metrics.Compare, question)

    async def rank(self, games: statistics_pb2.RankRequest) -> statistics_pb2.RankResponse:
        """Ranks players by their games against each other."""
        return await self._unary("metrics", self._metrics.Rank, games)
