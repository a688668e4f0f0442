"""Stored results as messages, as rows of files, and as numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from llmlab.api.common.v1 import error_pb2
from llmlab.api.gateway.v1 import gateway_pb2
from llmlab.api.metrics.v1 import judge_pb2, metrics_pb2, statistics_pb2
from llmlab.api.orchestrator.v1 import run_pb2 as pb
from services.orchestrator.calls import Timing
from services.orchestrator.estimates import Estimate
from services.orchestrator.exports import ExportRow, judgements_of
from services.orchestrator.records import EARLIER, AttemptRecord, ResultRecord
from services.orchestrator.rpc.brand_messages import mentioned_brands, result_brands
from services.orchestrator.rpc.codec import (
    answer_parts,
    answer_text,
    fill_values,
    money_message,
    money_of,
    reason_number,
    request_messages,
    timestamp_of,
    usage_message,
)
from services.orchestrator.rpc.runs import CELL_STATUSES
from services.orchestrator.scores import Direction, Scale, Score
from services.orchestrator.spec_view import SpecView
from services.orchestrator.states import CellStatus
from services.orchestrator.store import StoredResult
from services.orchestrator.summary import PointFigures

_SCALES: Final[dict[int, Scale]] = {
    metrics_pb2.SCALE_BINARY: "binary",
    metrics_pb2.SCALE_UNIT: "unit",
    metrics_pb2.SCALE_COUNT: "count",
    metrics_pb2.SCALE_REAL: "real",
}
_DIRECTIONS: Final[dict[int, Direction]] = {
    metrics_pb2.DIRECTION_HIGHER_IS_BETTER: "higher",
    metrics_pb2.DIRECTION_LOWER_IS_BETTER: "lower",
    metrics_pb2.DIRECTION_NEUTRAL: "neutral",
}
_SCALE_NUMBERS: Final = {scale: metrics_pb2.Scale.ValueType(number) for number, scale in _SCALES.items()}
DIRECTION_NUMBERS: Final = {
    direction: metrics_pb2.Direction.ValueType(number) for number, direction in _DIRECTIONS.items()
}

_LOST: Final = {
    CellStatus.UNKNOWN: (
        "the call may have reached the provider and may have been paid for, but its answer was lost; run it again, "
        "or retry the run with its unknown outcomes too (`llmlab retry RUN --unknown`)"
    ),
    CellStatus.CANCELLED: "the call was under way when the run was cancelled",
}
_GRPC_UNAVAILABLE: Final = 14
_GRPC_CANCELLED: Final = 1


def result_message(stored: StoredResult, view: SpecView, *, full: bool) -> pb.Result:
    """A result on the wire; `full` with request and response."""
    record = stored.record
    address = view.address(record.cell)
    message = pb.Result(
        run_id=record.run_id,
        cell_index=record.cell,
        status=CELL_STATUSES[record.status],
        prompt_name=view.spec.prompts[address.prompt].name,
        row_index=address.row,
        model=view.spec.models[address.model].model,
        repeat_index=address.repeat,
        attempts=record.attempts,
        finish_reason=_finish_reason(record.finish_reason),
        usage=usage_message(record.usage),
        cost=money_message(record.cost),
        create_time=timestamp_of(record.created_us),
        sequence=record.sequence,
    )
    fill_values(message.parameters, view.parameters(address.model, address.point))
    if record.status is CellStatus.DONE:
        message.timing.CopyFrom(_timing(record.timing))
    if stored.bodies.scores:
        message.scores.extend(metrics_pb2.SampleScores.FromString(stored.bodies.scores).scores)
        if not full:
            for score in message.scores:
                if score.HasField("judgement"):
                    score.judgement.ClearField("samples")
    if stored.bodies.brands:
        message.brands.extend(result_brands(stored.bodies.brands, view, full=full))
    error = _error(stored)
    if error is not None:
        message.error.CopyFrom(error)
    if full:
        message.request.extend(request_messages(view.messages(address.prompt, address.row)))
        message.response.extend(answer_parts(stored.bodies.answer))
    return message


def attempt_message(attempt: AttemptRecord, at_us: int) -> pb.ResultAttempt:
    """An attempt that did not give its cell's result."""
    return pb.ResultAttempt(
        attempt=attempt.attempt,
        outcome=attempt.outcome.removesuffix(EARLIER),
        error_reason=reason_number(attempt.reason),
        usage=usage_message(attempt.usage),
        cost=money_message(attempt.cost),
        create_time=timestamp_of(at_us),
    )


def _finish_reason(name: str) -> gateway_pb2.FinishReason.ValueType:
    return gateway_pb2.FinishReason.Value(f"FINISH_REASON_{name or 'UNSPECIFIED'}")


def _timing(timing: Timing) -> gateway_pb2.Timing:
    return gateway_pb2.Timing(
        latency_us=timing.latency_us,
        ttft_any_us=timing.ttft_any_us,
        ttft_output_us=timing.ttft_output_us,
        queue_us=timing.queue_us,
        chunks=timing.chunks,
        streamed=timing.streamed,
    )


def _error(stored: StoredResult) -> error_pb2.CallError | None:
    """How the last attempt failed; of a lost call nobody is left to say more than that."""
    record = stored.record
    if record.status is CellStatus.DONE:
        return None
    if stored.bodies.error:
        return error_pb2.CallError.FromString(stored.bodies.error)
    cancelled = record.status is CellStatus.CANCELLED
    return error_pb2.CallError(
        reason=reason_number(record.error_reason),
        error_class=error_pb2.ERROR_CLASS_SERVER_ERROR,
        message=_LOST.get(record.status, "the call failed"),
        grpc_code=_GRPC_CANCELLED if cancelled else _GRPC_UNAVAILABLE,
        dispatched=True,
    )


def scores_of(packed: bytes) -> list[Score]:
    """A cell's stored scores; none while they are not there."""
    return [_score(score) for score in metrics_pb2.SampleScores.FromString(packed).scores]


def _score(message: metrics_pb2.Score) -> Score:
    score = Score(
        name=message.name,
        value=message.value if message.HasField("value") else None,
        scale=_SCALES.get(message.scale, "real"),
        direction=_DIRECTIONS.get(message.direction, "neutral"),
        absent_reason=message.absent_reason,
    )
    if message.HasField("cost"):
        score = replace(score, cost=money_of(message.cost))
    if message.HasField("judgement"):
        judgement = message.judgement
        interval = judgement.score
        verdict = judge_pb2.RubricVerdict.Name(judgement.verdict).removeprefix("RUBRIC_VERDICT_").lower()
        low, high = (getattr(interval, end) if interval.HasField(end) else None for end in ("low", "high"))
        reasons = tuple(sample.evidence.reasons for sample in judgement.samples if sample.evidence.reasons)
        score = replace(score, verdict=verdict, low=low, high=high, reasons=reasons)
    return score


def export_row(stored: StoredResult, view: SpecView) -> ExportRow:
    """A result as a row of a file."""
    record: ResultRecord = stored.record
    address = view.address(record.cell)
    error = _error(stored)
    scores = scores_of(stored.bodies.scores)
    return ExportRow(
        run_id=record.run_id,
        cell_index=record.cell,
        status=record.status.value,
        prompt_name=view.spec.prompts[address.prompt].name,
        row_index=address.row,
        model=view.spec.models[address.model].model,
        parameters=view.parameters(address.model, address.point),
        repeat_index=address.repeat,
        attempts=record.attempts,
        finish_reason=record.finish_reason,
        usage=record.usage,
        cost=record.cost,
        timing=record.timing,
        error_reason=record.error_reason,
        error_message=error.message if error is not None else "",
        created_us=record.created_us,
        scores={score.name: score.value for score in scores},
        judgements=judgements_of(scores),
        request=view.messages(address.prompt, address.row),
        response=answer_text(stored.bodies.answer),
        brands=mentioned_brands(stored.bodies.brands, view),
    )


def point_message(figures: PointFigures, view: SpecView) -> pb.PointSummary:
    """One model at one point of the grid, with its figures."""
    point = figures.point
    message = pb.PointSummary(
        model=view.spec.models[point.model].model,
        cells_total=point.cells,
        cells_done=point.done,
        cells_missing=point.missing,
        success_rate=estimate_message(figures.success_rate),
        latency_us=[estimate_message(estimate) for estimate in figures.latency_us],
        ttft_us=[estimate_message(estimate) for estimate in figures.ttft_us],
        usage=usage_message(point.usage),
        cost=money_message(point.cost),
        scoring_cost=money_message(point.scoring_cost) if any(point.scoring_cost) else None,
    )
    fill_values(message.parameters, view.parameters(point.model, point.point))
    for score, estimate, against_best in figures.scores:
        added = message.scores.add(
            name=score.name,
            direction=DIRECTION_NUMBERS[score.direction],
            scale=_SCALE_NUMBERS[score.scale],
            estimate=estimate_message(estimate),
        )
        if against_best is not None:
            added.against_best.MergeFromString(against_best.encoded)
    return message


def estimate_message(estimate: Estimate) -> statistics_pb2.Estimate:
    """A figure of the metrics service, as it came."""
    return statistics_pb2.Estimate.FromString(estimate.encoded)
