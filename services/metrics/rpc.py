"""The metrics service on the wire: protobuf to domain and back, and nothing else."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from llmlab.api.common.v1.error_pb2 import CallError, ErrorClass, ErrorReason
from llmlab.api.common.v1.value_pb2 import Value, ValueList
from llmlab.api.metrics.v1 import metrics_pb2 as pb
from llmlab.api.metrics.v1.metrics_pb2_grpc import MetricsServiceServicer
from services.metrics.declarations import Direction, Scale, ScoreDeclaration, Scorer
from services.metrics.engine import Engine
from services.metrics.registry import SCORERS, Plan, ScorerSpec
from services.metrics.scoring import SampleScores, SampleTexts
from services.metrics.summaries import Estimate, Series, SeriesKind
from services.runtime.errors import DomainError, InvalidField
from services.runtime.pages import decode_page_token, encode_page_token, filter_fingerprint
from services.runtime.status import code_of

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

_MAX_PAGE_SIZE: Final = 100
# Numbers that are copied out of a message before the loop may do something else: about a millisecond's worth.
_NUMBERS_PER_STEP: Final = 20_000

_SCALES: Final = {
    Scale.BINARY: pb.SCALE_BINARY,
    Scale.UNIT: pb.SCALE_UNIT,
    Scale.COUNT: pb.SCALE_COUNT,
    Scale.REAL: pb.SCALE_REAL,
}
_DIRECTIONS: Final = {
    Direction.HIGHER_IS_BETTER: pb.DIRECTION_HIGHER_IS_BETTER,
    Direction.LOWER_IS_BETTER: pb.DIRECTION_LOWER_IS_BETTER,
    Direction.NEUTRAL: pb.DIRECTION_NEUTRAL,
}
_KINDS: Final = {
    pb.SERIES_KIND_MEAN: SeriesKind.MEAN,
    pb.SERIES_KIND_RATE: SeriesKind.RATE,
    pb.SERIES_KIND_QUANTILES: SeriesKind.QUANTILES,
}


class MetricsServicer(MetricsServiceServicer):
    """Serves llmlab.api.metrics.v1.MetricsService."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def Score(self, request: pb.ScoreRequest, context: Context) -> pb.ScoreResponse:
        """Scores one answer."""
        plan, (outcome,) = await self._engine.score(_specs(request.scorers), [_sample_texts(request.sample)])
        if isinstance(outcome, DomainError):
            raise outcome
        scored = _template(plan)
        _fill(scored, outcome)
        return pb.ScoreResponse(scores=scored.scores)

    async def ScoreBatch(self, request: pb.ScoreBatchRequest, context: Context) -> pb.ScoreBatchResponse:
        """Scores several answers."""
        texts = [_sample_texts(sample) for sample in request.samples]
        plan, outcomes = await self._engine.score(_specs(request.scorers), texts)
        template = _template(plan)
        response = pb.ScoreBatchResponse()
        for sample, outcome in zip(request.samples, outcomes, strict=True):
            scored = response.samples.add()
            if isinstance(outcome, DomainError):
                scored.error.CopyFrom(_call_error(outcome))
            else:
                scored.CopyFrom(template)
                _fill(scored, outcome)
            scored.sample_id = sample.sample_id
        return response

    async def ListScorers(self, request: pb.ListScorersRequest, context: Context) -> pb.ListScorersResponse:
        """Lists the scorers, by name."""
        fingerprint = filter_fingerprint("ListScorers")
        position = decode_page_token(fingerprint, request.page_token)
        rest = [scorer for name, scorer in SCORERS.items() if position is None or name > str(position[0])]
        page = rest[: request.page_size or _MAX_PAGE_SIZE]
        more = len(page) < len(rest)
        return pb.ListScorersResponse(
            scorers=[_scorer(scorer) for scorer in page],
            next_page_token=encode_page_token(fingerprint, (page[-1].name,)) if more else "",
        )

    async def Summarize(self, request: pb.SummarizeRequest, context: Context) -> pb.SummarizeResponse:
        """Sums numbers up."""
        series = [await _series(each) for each in request.series]
        summaries = await self._engine.summarize(series, request.confidence)
        return pb.SummarizeResponse(
            summaries=[
                pb.SeriesSummary(key=each.key, estimates=[_estimate(estimate) for estimate in estimates])
                for each, estimates in zip(series, summaries, strict=True)
            ]
        )


def _specs(specs: Iterable[pb.ScorerSpec]) -> list[ScorerSpec]:
    return [
        ScorerSpec(
            name=spec.name,
            parameters={
                name: _plain(value, f"scorers[{index}].parameters.{name}") for name, value in spec.parameters.items()
            },
            label=spec.label,
        )
        for index, spec in enumerate(specs)
    ]


def _plain(value: Value, path: str) -> object:
    """The Python value inside a Value."""
    kind = value.WhichOneof("kind")
    if kind is None:
        return None
    if kind != "list_value":
        return getattr(value, kind)
    items = value.list_value.values
    if any(item.HasField("list_value") for item in items):
        raise InvalidField(path, "must not hold a list inside a list", reason="SCORER_PARAMETERS")
    return [_plain(item, path) for item in items]


def _value(plain: object) -> Value:
    """A scorer's default as a Value."""
    match plain:
        case bool():
            return Value(bool_value=plain)
        case int():
            return Value(int_value=plain)
        case float():
            return Value(double_value=plain)
        case str():
            return Value(string_value=plain)
        case list():
            return Value(list_value=ValueList(values=[_value(item) for item in plain]))
        case _:
            raise TypeError(f"no parameter has a default of type {type(plain).__name__}")


def _sample_texts(sample: pb.Sample) -> SampleTexts:
    return (sample.answer, sample.prompt, tuple(sample.references), sample.finish_reason)


def _template(plan: Plan) -> pb.SampleScores:
    """The scores of a plan without their values. Copying it is several times faster than building each anew."""
    return pb.SampleScores(
        scores=[
            pb.Score(
                name=column.name,
                scale=_SCALES[column.declaration.scale],
                direction=_DIRECTIONS[column.declaration.direction],
                signature=column.signature,
            )
            for column in plan.columns
        ]
    )


def _fill(scored: pb.SampleScores, scores: SampleScores) -> None:
    for score, value in zip(scored.scores, scores.values, strict=True):
        if value is not None:
            score.value = value
    for index, reason in scores.absent:
        scored.scores[index].absent_reason = reason


def _call_error(error: DomainError) -> CallError:
    code = code_of(error).value[0]
    ours = error.code == "INTERNAL"
    return CallError(
        reason=ErrorReason.Value(f"ERROR_REASON_{error.reason}"),
        error_class=ErrorClass.ERROR_CLASS_SERVER_ERROR if ours else ErrorClass.ERROR_CLASS_INVALID_REQUEST,
        message=error.message,
        grpc_code=code,
    )


def _scorer(scorer: Scorer) -> pb.Scorer:
    return pb.Scorer(
        name=scorer.name,
        version=scorer.version,
        description=scorer.description,
        scores=[_declaration(scorer, declaration) for declaration in scorer.scores],
        parameters=_parameters(scorer),
        needs_reference=scorer.needs_reference,
        needs_prompt=scorer.needs_prompt,
        in_default_set=scorer.in_default_set,
        citation=scorer.citation,
    )


def _declaration(scorer: Scorer, declaration: ScoreDeclaration) -> pb.ScoreDeclaration:
    return pb.ScoreDeclaration(
        name=scorer.score_name(declaration.part),
        scale=_SCALES[declaration.scale],
        direction=_DIRECTIONS[declaration.direction],
        description=declaration.description,
        minimum=declaration.minimum,
        maximum=declaration.maximum,
    )


def _parameters(scorer: Scorer) -> list[pb.ScorerParameter]:
    return [
        pb.ScorerParameter(
            name=parameter.name,
            type=parameter.type,
            description=parameter.description,
            default_value=None if parameter.required else _value(parameter.default),
        )
        for parameter in scorer.parameters.describe()
    ]


async def _series(series: pb.Series) -> Series:
    return Series(
        key=series.key,
        kind=_KINDS[series.kind],
        values=await _packed("d", series.values),
        clusters=await _packed("q", series.clusters),
        missing=series.missing,
        minimum=series.minimum if series.HasField("minimum") else None,
        maximum=series.maximum if series.HasField("maximum") else None,
        quantiles=tuple(series.quantiles),
    )


async def _packed(type_code: str, numbers: Sequence[float]) -> bytes:
    """The numbers as machine words, copied in steps between which the loop runs."""
    packed: array[Any] = array(type_code)
    for start in range(0, len(numbers), _NUMBERS_PER_STEP):
        if start:
            await asyncio.sleep(0)
        packed.extend(numbers[start : start + _NUMBERS_PER_STEP])
    return packed.tobytes()


def _estimate(estimate: Estimate) -> pb.Estimate:
    interval, if_missing = estimate.interval, estimate.if_missing
    return pb.Estimate(
        value=estimate.value,
        low=interval.low,
        high=interval.high,
        method=estimate.method,
        count=estimate.count,
        clusters=estimate.clusters,
        missing=estimate.missing,
        low_if_missing=if_missing.low,
        high_if_missing=if_missing.high,
        quantile=estimate.quantile,
        withheld_reason=estimate.withheld_reason,
    )
