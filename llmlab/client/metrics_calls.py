"""Calls to the metrics service."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import TYPE_CHECKING, Final

import grpc

from llmlab.api.metrics.v1 import metrics_pb2, statistics_pb2
from llmlab.api.metrics.v1.metrics_pb2_grpc import MetricsServiceStub
from llmlab.client.connection import STREAM_TIMEOUT_S, Connection
from llmlab.client.errors import error_from_rpc

if TYPE_CHECKING:
    from llmlab.api.metrics.v1.metrics_pb2_grpc import MetricsServiceAsyncStub

STREAM_SAMPLES: Final = 64
"""Samples in one message of a stream."""
STREAM_BYTES: Final = 1_000_000
"""Bytes after which a message takes no further sample."""


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

    async def score_run_batch(
        self, run_id: str, samples: Iterable[metrics_pb2.Sample], scorers: Iterable[metrics_pb2.ScorerSpec]
    ) -> list[metrics_pb2.SampleScores]:
        """Scores several answers, also by scorers that call models, whose bills carry the run's id.

        A sample's id is the index of its cell. A sample may be sent again after a lost connection: its calls have the
        ids that they had, and of each verdict only few are ever made.
        """
        run = metrics_pb2.ScoringRun(run_id=run_id)
        request = metrics_pb2.ScoreRunBatchRequest(run=run, samples=samples, scorers=scorers)
        return list((await self._unary("metrics", self._metrics.ScoreRunBatch, request)).samples)

    async def score_stream(
        self, samples: AsyncIterable[metrics_pb2.Sample], scorers: Iterable[metrics_pb2.ScorerSpec] = ()
    ) -> AsyncIterator[metrics_pb2.SampleScores]:
        """Yields the scores of samples as they come, in their order; any number passes through in little memory."""

        async def messages() -> AsyncIterator[metrics_pb2.ScoreStreamRequest]:
            message = metrics_pb2.ScoreStreamRequest(scorers=scorers)
            size = 0
            async for sample in samples:
                message.samples.append(sample)
                size += sample.ByteSize()
                if len(message.samples) == STREAM_SAMPLES or size >= STREAM_BYTES:
                    yield message
                    message, size = metrics_pb2.ScoreStreamRequest(), 0
            if message.samples:
                yield message

        call = self._metrics.ScoreStream(messages(), timeout=STREAM_TIMEOUT_S, metadata=await self._metadata())
        try:
            async for answer in call:
                for scores in answer.samples:
                    yield scores
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, self.endpoints.metrics) from error
        finally:
            call.cancel()  # without effect on a call that has ended

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
