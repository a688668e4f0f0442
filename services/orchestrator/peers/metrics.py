"""The metrics service over gRPC."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import grpc
from google.protobuf.message import Message

from llmlab.api.common.v1.error_pb2 import ERROR_CLASS_INVALID_REQUEST, ERROR_CLASS_SERVER_ERROR
from llmlab.api.metrics.v1 import metrics_pb2 as pb
from llmlab.api.metrics.v1 import statistics_pb2
from llmlab.api.metrics.v1.brands_pb2_grpc import BrandServiceStub
from llmlab.api.metrics.v1.metrics_pb2_grpc import MetricsServiceStub
from services.orchestrator.brands import BrandColumns, Names
from services.orchestrator.estimates import Comparison, Estimate, Question, Series
from services.orchestrator.experiment import BrandTarget, ScorerTarget
from services.orchestrator.peers.brands import detect_request, summarize_request
from services.orchestrator.peers.identity import DelegatedTokens, metadata_for
from services.orchestrator.ports import Sample, ScorerGroup, ScoringRun
from services.orchestrator.rpc.codec import reason_number
from services.orchestrator.rpc.specs import scorer_message
from services.orchestrator.scores import Scored, ScorerDeclaration
from services.runtime.auth import ServiceTokenMinter
from services.runtime.errors import DomainError
from services.runtime.status import error_from_rpc

R = TypeVar("R")

_NO_SAMPLE: Final = Sample(0, "", "", (), "")
_KINDS: Final = {
    "mean": statistics_pb2.SERIES_KIND_MEAN,
    "rate": statistics_pb2.SERIES_KIND_RATE,
    "quantiles": statistics_pb2.SERIES_KIND_QUANTILES,
}
_SERIES_MAX: Final = 1_000
_VALUES_MAX: Final = 200_000
"""Numbers of one request, values and clusters together: about 3 MB."""
_CALLS_AT_ONCE_MAX: Final = 1_024
_NO_LONGER_ALLOWED: Final = frozenset({"PERMISSION_DENIED", "DELEGATION_ENDED"})
"""Reasons why a run may not pay any more: its other scores go on."""
_MAIN_SCORE: Final = "quality"
_SIGNS: Final = {pb.DIRECTION_HIGHER_IS_BETTER: 1.0, pb.DIRECTION_LOWER_IS_BETTER: -1.0}
_READ: Final = ("SERVICE", "READ")


class GrpcMetrics:
    """Implements ports.Metrics."""

    def __init__(
        self, channel: grpc.aio.Channel, minter: ServiceTokenMinter, tokens: DelegatedTokens, *, timeout_s: float
    ) -> None:
        """`timeout_s` is for scores that models give."""
        self._stub = MetricsServiceStub(channel)
        self._brands = BrandServiceStub(channel)
        self._minter = minter
        self._tokens = tokens
        self._timeout_s = timeout_s

    async def score_batch(
        self, run: ScoringRun, groups: Sequence[ScorerGroup], samples: Sequence[Sample]
    ) -> list[Scored]:
        answers: list[Sequence[pb.SampleScores]] = []
        for number, group in enumerate(groups):
            request = pb.ScoreBatchRequest(scorers=[scorer_message(target) for target in group.scorers])
            for sample in samples:
                request.samples.add(
                    sample_id=str(sample.cell),
                    prompt=sample.prompt,
                    answer=sample.answer,
                    references=[sample.references[number]] if group.has_reference else (),
                    finish_reason=sample.finish_reason,
                    traceparent=sample.traceparent,
                )
            if group.needs_model:
                answers.append(await self._paid(run, request))
            else:
                token = self._minter.token(run.credential.project_id, permissions=_READ)
                answers.append((await self._ask(self._stub.ScoreBatch, request, token)).samples)
        if len(answers) == 1:
            return [_packed(scored) for scored in answers[0]]
        return [_merged([answer[index] for answer in answers]) for index in range(len(samples))]

    async def _paid(self, run: ScoringRun, batch: pb.ScoreBatchRequest) -> Sequence[pb.SampleScores]:
        """Scores that the run pays for, asked for with its own credential; absent once that is no longer good."""
        request = pb.ScoreRunBatchRequest(samples=batch.samples, scorers=batch.scorers)
        request.run.run_id = run.run_id
        request.run.calls_at_once_max = min(run.calls_at_once, _CALLS_AT_ONCE_MAX)
        try:
            metadata = metadata_for(await self._tokens.token(run.credential))
            try:
                return (await self._stub.ScoreRunBatch(request, metadata=metadata, timeout=self._timeout_s)).samples
            except grpc.aio.AioRpcError as error:
                raise error_from_rpc(error) from error
        except DomainError as error:
            if error.reason.startswith("CREDENTIAL_"):
                self._tokens.forget(run.credential)
            if error.reason not in _NO_LONGER_ALLOWED:
                raise
            absent = [pb.Score(name=each.label or each.name, absent_reason=error.message) for each in request.scorers]
            return [pb.SampleScores(scores=absent)] * len(request.samples)

    async def check_scorers(self, token: str, targets: Sequence[ScorerTarget]) -> None:
        request = pb.ScoreBatchRequest(scorers=[scorer_message(target) for target in targets], validate_only=True)
        request.samples.add()
        await self._ask(self._stub.ScoreBatch, request, token)

    async def check_brands(self, token: str, brands: Sequence[BrandTarget]) -> None:
        await self._ask(self._brands.DetectBrands, detect_request(brands, [_NO_SAMPLE]), token)

    async def detect_brands(
        self, project_id: str, brands: Sequence[BrandTarget], samples: Sequence[Sample]
    ) -> list[bytes]:
        token = self._minter.token(project_id, permissions=_READ)
        answer = await self._ask(self._brands.DetectBrands, detect_request(brands, samples), token)
        return [sample.SerializeToString() for sample in answer.samples]

    async def summarize_brands(
        self, token: str, names: Names, run: BrandColumns, baseline: BrandColumns | None
    ) -> list[bytes]:
        request = summarize_request(names, run, baseline)
        answer = await self._ask(self._brands.SummarizeBrands, request, token)
        return [brand.SerializeToString() for brand in answer.brands]

    @staticmethod
    async def _ask(method: Callable[..., Awaitable[R]], request: Message, token: str) -> R:
        try:
            return await method(request, metadata=metadata_for(token))
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error

    def refused(self, error: DomainError) -> Scored:
        scored = pb.SampleScores()
        scored.error.reason = reason_number(error.reason)
        blame = error.code in ("INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED")
        scored.error.error_class = ERROR_CLASS_SERVER_ERROR if blame else ERROR_CLASS_INVALID_REQUEST
        scored.error.message = error.message
        return Scored(scored.SerializeToString())

    async def list_scorers(self, token: str) -> list[ScorerDeclaration]:
        scorers: list[ScorerDeclaration] = []
        page_token = ""
        while True:
            try:
                page = await self._stub.ListScorers(
                    pb.ListScorersRequest(page_token=page_token), metadata=metadata_for(token)
                )
            except grpc.aio.AioRpcError as error:
                raise error_from_rpc(error) from error
            scorers.extend(_declaration(scorer) for scorer in page.scorers)
            page_token = page.next_page_token
            if not page_token:
                return scorers

    async def summarize(self, token: str, series: Sequence[Series]) -> list[tuple[Estimate, ...]]:
        figures: list[tuple[Estimate, ...]] = []
        for request in _requests(series):
            try:
                answer = await self._stub.Summarize(request, metadata=metadata_for(token))
            except grpc.aio.AioRpcError as error:
                raise error_from_rpc(error) from error
            figures.extend(
                tuple(Estimate(estimate.SerializeToString()) for estimate in summary.estimates)
                for summary in answer.summaries
            )
        return figures

    async def compare(self, token: str, question: Question) -> list[Comparison]:
        request = statistics_pb2.CompareRequest(
            kind=_KINDS[question.kind],
            against=statistics_pb2.COMPARE_AGAINST_BASELINE
            if question.baseline
            else statistics_pb2.COMPARE_AGAINST_BEST,
            baseline=question.baseline,
            lower_is_better=question.lower_is_better,
            minimum=question.minimum,
            maximum=question.maximum,
        )
        for group in question.groups:
            request.groups.add(key=group.key, values=group.values, units=group.units, missing_units=group.missing_units)
        try:
            answer = await self._stub.Compare(request, metadata=metadata_for(token))
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        return [Comparison(each.first, each.SerializeToString()) for each in answer.comparisons]


def _packed(scored: pb.SampleScores) -> Scored:
    scored.ClearField("sample_id")
    return Scored(scored.SerializeToString(), merit_of(scored))


def merit_of(scored: pb.SampleScores) -> float | None:
    """See `scores.Scored`. An answer of which some scorers failed has none: another score might come first."""
    if scored.HasField("error"):
        return None
    main = None
    for score in scored.scores:
        if score.name == _MAIN_SCORE:
            main = score
            break
        if main is None and score.direction in _SIGNS:
            main = score
    if main is None or not main.HasField("value") or not math.isfinite(main.value):
        return None
    return _SIGNS.get(main.direction, 1.0) * main.value


def _merged(parts: Sequence[pb.SampleScores]) -> Scored:
    """The scores of several requests in one, in the order of the groups; an error of one request stands for itself."""
    merged = pb.SampleScores()
    for part in parts:
        merged.scores.extend(part.scores)
        if part.HasField("error") and not merged.HasField("error"):
            merged.error.CopyFrom(part.error)
    return Scored(merged.SerializeToString(), merit_of(merged))


def _declaration(scorer: pb.Scorer) -> ScorerDeclaration:
    return ScorerDeclaration(
        name=scorer.name,
        needs_reference=scorer.needs_reference,
        parameters=frozenset(parameter.name for parameter in scorer.parameters),
        required_parameters=frozenset(
            parameter.name for parameter in scorer.parameters if not parameter.HasField("default_value")
        ),
        needs_model=scorer.needs_model,
    )


def _requests(series: Sequence[Series]) -> list[statistics_pb2.SummarizeRequest]:
    """Requests of bounded size, in order."""
    requests: list[statistics_pb2.SummarizeRequest] = []
    numbers = _VALUES_MAX
    for each in series:
        size = len(each.values) * (2 if each.clusters else 1)
        if not requests or numbers + size > _VALUES_MAX or len(requests[-1].series) >= _SERIES_MAX:
            requests.append(statistics_pb2.SummarizeRequest())
            numbers = 0
        numbers += size
        requests[-1].series.add(
            kind=_KINDS[each.kind],
            values=each.values,
            clusters=each.clusters or (),
            missing=each.missing,
            minimum=each.minimum,
            maximum=each.maximum,
            quantiles=each.quantiles,
        )
    return requests
