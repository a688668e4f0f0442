"""The RPCs of the metrics service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from llmlab.api.metrics.v1 import metrics_pb2 as pb
from llmlab.api.metrics.v1 import statistics_pb2 as stats
from llmlab.api.metrics.v1.metrics_pb2_grpc import MetricsServiceServicer
from services.metrics.outside import Origin, Scoring
from services.metrics.registry import SCORERS, ScorerSpec
from services.metrics.rpc.comparisons import comparison_message, read_question
from services.metrics.rpc.ranking import ranking_message, read_games
from services.metrics.rpc.scores import (
    fill,
    read_sample,
    read_specs,
    sample_scores,
    scorer_message,
    template_of,
)
from services.metrics.rpc.statistics import estimate_message, read_series
from services.metrics.statistics import Statistics
from services.runtime.context import bearer_token
from services.runtime.errors import DomainError, InvalidField
from services.runtime.item_spans import ItemSpans, item_spans
from services.runtime.pages import decode_page_token, encode_page_token, filter_fingerprint

if TYPE_CHECKING:
    import grpc

    from services.metrics.scoring import SampleScores
    from services.runtime.spans import Tracer

    Context = grpc.aio.ServicerContext[Any, Any]

_MAX_PAGE_SIZE: Final = 100


class MetricsServicer(MetricsServiceServicer):
    """Serves llmlab.api.metrics.v1.MetricsService."""

    def __init__(self, scoring: Scoring, statistics: Statistics, tracer: Tracer | None = None) -> None:
        self._scoring = scoring
        self._statistics = statistics
        self._tracer = tracer

    async def Score(self, request: pb.ScoreRequest, context: Context) -> pb.ScoreResponse:
        """Scores one answer."""
        specs, samples = read_specs(request.scorers), [read_sample(request.sample)]
        plan, (outcome,) = await self._scoring.score(specs, samples, Origin())
        if isinstance(outcome, DomainError):
            raise outcome
        scored = template_of(plan)
        fill(scored, outcome)
        return pb.ScoreResponse(scores=scored.scores)

    async def ScoreBatch(self, request: pb.ScoreBatchRequest, context: Context) -> pb.ScoreBatchResponse:
        """Scores several answers."""
        specs = read_specs(request.scorers)
        if request.validate_only:
            self._scoring.plan(specs)
            return pb.ScoreBatchResponse()
        if request.HasField("run"):
            raise InvalidField("run", "answers of a run are scored by ScoreRunBatch")
        return pb.ScoreBatchResponse(samples=await self._score(specs, request.samples, Origin()))

    async def ScoreRunBatch(self, request: pb.ScoreRunBatchRequest, context: Context) -> pb.ScoreRunBatchResponse:
        """Scores several answers of a run, at its expense."""
        ids = tuple(sample.sample_id for sample in request.samples)
        origin = Origin(bearer_token(), request.run.run_id, ids, request.run.calls_at_once_max)
        samples = await self._score(read_specs(request.scorers), request.samples, origin)
        return pb.ScoreRunBatchResponse(samples=samples)

    async def ScoreStream(
        self, request: AsyncIterator[pb.ScoreStreamRequest], context: Context
    ) -> AsyncIterator[pb.ScoreStreamResponse]:
        """Scores a stream of answers, one message after another."""
        specs: list[ScorerSpec] | None = None
        async for message in request:
            if specs is None:
                specs = read_specs(message.scorers)
            elif message.scorers:
                raise InvalidField("scorers", "only the first message of a stream chooses the scorers")
            yield pb.ScoreStreamResponse(samples=await self._score(specs, message.samples, Origin()))

    async def _score(
        self, specs: Sequence[ScorerSpec], samples: Sequence[pb.Sample], origin: Origin
    ) -> list[pb.SampleScores]:
        """The scores of each sample, or why it has none."""
        with item_spans(self._tracer, "score", samples) as spans:
            if spans is not None:
                origin = replace(origin, traceparents=tuple(map(spans.traceparent, range(len(samples)))))
            plan, outcomes = await self._scoring.score(specs, [read_sample(sample) for sample in samples], origin)
            if spans is not None:
                _tell(spans, outcomes)
        template = template_of(plan)
        return [
            sample_scores(template, sample.sample_id, outcome)
            for sample, outcome in zip(samples, outcomes, strict=True)
        ]

    async def ListScorers(self, request: pb.ListScorersRequest, context: Context) -> pb.ListScorersResponse:
        """Lists the scorers, by name."""
        fingerprint = filter_fingerprint("ListScorers")
        position = decode_page_token(fingerprint, request.page_token)
        rest = [scorer for name, scorer in SCORERS.items() if position is None or name > str(position[0])]
        page = rest[: request.page_size or _MAX_PAGE_SIZE]
        more = len(page) < len(rest)
        return pb.ListScorersResponse(
            scorers=[scorer_message(scorer, self._scoring.choices.get(scorer.name, {})) for scorer in page],
            next_page_token=encode_page_token(fingerprint, (page[-1].name,)) if more else "",
        )

    async def Summarize(self, request: stats.SummarizeRequest, context: Context) -> stats.SummarizeResponse:
        """Sums numbers up."""
        series = [await read_series(each) for each in request.series]
        summaries = await self._statistics.summarize(series, request.confidence)
        return stats.SummarizeResponse(
            summaries=[
                stats.SeriesSummary(key=each.key, estimates=[estimate_message(estimate) for estimate in estimates])
                for each, estimates in zip(series, summaries, strict=True)
            ]
        )

    async def Compare(self, request: stats.CompareRequest, context: Context) -> stats.CompareResponse:
        """Compares groups in pairs."""
        baseline, compared = await self._statistics.compare(await read_question(request), request.confidence)
        return stats.CompareResponse(baseline=baseline, comparisons=[comparison_message(each) for each in compared])

    async def Rank(self, request: stats.RankRequest, context: Context) -> stats.RankResponse:
        """Ranks players by their games."""
        return ranking_message(await self._statistics.rank(await read_games(request), request.confidence))


def _tell(spans: ItemSpans, outcomes: Sequence[SampleScores | DomainError]) -> None:
    """Put into the recorded answers' spans what came of them."""
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, DomainError):
            spans.fail(index, outcome.reason)
        else:
            spans.set(index, {"llmlab.scores": len(outcome.values)})
