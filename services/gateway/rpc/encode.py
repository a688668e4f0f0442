"""Answers, failures and chunks on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import grpc

from llmlab.api.common.v1 import content_pb2, error_pb2, usage_pb2, value_pb2
from llmlab.api.gateway.v1 import gateway_pb2
from services.gateway.attempts import AttemptRecord, CallOutcome, Cause, Completion, Cost, FailedCall, Reuse
from services.gateway.calls import (
    ImagePart,
    OptionValue,
    Parameters,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from services.gateway.catalogue import ModelInfo
from services.gateway.catalogue_file import Capability
from services.gateway.chunks import (
    FinishReason,
    Read,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageSoFar,
)
from services.gateway.failures import Failure, FallbackKind
from services.gateway.peers import encode_usage
from services.gateway.timing import Timing
from services.runtime.errors import DomainError, FieldViolation, error_of_code

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

_CODE_NUMBERS = {code.name: code.value[0] for code in grpc.StatusCode}
_CODE_NAMES = {number: name for name, number in _CODE_NUMBERS.items()}
_CLASSES = {
    "network_error": error_pb2.ERROR_CLASS_NETWORK_ERROR,
    "rate_limit": error_pb2.ERROR_CLASS_RATE_LIMIT,
    "invalid_request": error_pb2.ERROR_CLASS_INVALID_REQUEST,
    "server_error": error_pb2.ERROR_CLASS_SERVER_ERROR,
}
_CAUSES = {
    Cause.FIRST: gateway_pb2.ATTEMPT_CAUSE_FIRST,
    Cause.RETRY: gateway_pb2.ATTEMPT_CAUSE_RETRY,
    Cause.REROUTE: gateway_pb2.ATTEMPT_CAUSE_REROUTE,
    Cause.FALLBACK: gateway_pb2.ATTEMPT_CAUSE_FALLBACK,
    Cause.HEDGE: gateway_pb2.ATTEMPT_CAUSE_HEDGE,
}
_FINISH_REASONS = {
    FinishReason.STOP: gateway_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: gateway_pb2.FINISH_REASON_LENGTH,
    FinishReason.TOOL_CALLS: gateway_pb2.FINISH_REASON_TOOL_CALLS,
    FinishReason.CONTENT_FILTER: gateway_pb2.FINISH_REASON_CONTENT_FILTER,
    FinishReason.PAUSE: gateway_pb2.FINISH_REASON_PAUSE,
}
_REUSE_SOURCES = {"cache": gateway_pb2.REUSE_SOURCE_CACHE, "flight": gateway_pb2.REUSE_SOURCE_FLIGHT}
# A status travels as metadata, of which many clients take 8 KiB: message (three times) and partial text have to fit.
_STATUS_MESSAGE_MAX = 600
_STATUS_PARTIAL_TEXT_MAX = 400


def encode_outcome(outcome: CallOutcome) -> gateway_pb2.CallOutcome:
    """How one call of a batch ended."""
    if isinstance(outcome, Completion):
        return gateway_pb2.CallOutcome(call_id=outcome.call_id, completion=encode_completion(outcome))
    return gateway_pb2.CallOutcome(
        call_id=outcome.call_id,
        error=encode_failure(outcome.failure),
        attempts=[_attempt(record) for record in outcome.attempts],
    )


def encode_completion(completion: Completion, *, with_parts: bool = True) -> gateway_pb2.Completion:
    """A completion; without its parts at the end of a stream, where they came before."""
    return gateway_pb2.Completion(
        call_id=completion.call_id,
        model=completion.model,
        provider_model=completion.provider_model,
        parts=[encode_part(part) for part in completion.parts] if with_parts else (),
        finish_reason=_FINISH_REASONS[completion.finish_reason],
        usage=encode_usage(completion.usage),
        timing=_timing(completion.timing),
        cost=None if completion.cost is None else _cost(completion.cost),
        attempts=[_attempt(record) for record in completion.attempts],
        raw=completion.raw,
        reuse=None if completion.reuse is None else _reuse(completion.reuse),
    )


def encode_failure(failure: Failure) -> error_pb2.CallError:
    """A failure as a value."""
    rule = failure.rule
    return error_pb2.CallError(
        reason=error_pb2.ErrorReason.Value(f"ERROR_REASON_{failure.reason}"),
        error_class=_CLASSES[rule.error_class],
        message=failure.message,
        grpc_code=_CODE_NUMBERS[rule.code],
        retryable=failure.retryable,
        retry_after_ms=failure.retry_after_ms,
        provider_status=failure.provider_status,
        provider_request_id=failure.provider_request_id,
        dispatched=failure.dispatched,
        partial_text=failure.partial_text,
        usage=None if failure.usage is None else encode_usage(failure.usage),
    )


def error_of(failed: FailedCall) -> DomainError:
    """A failure as the status of a unary or streamed completion, with the CallError among its details."""
    return error_of_call(failed.call_id, encode_failure(failed.failure), field=failed.failure.field)


def error_of_call(call_id: str, failure: error_pb2.CallError, *, field: str = "") -> DomainError:
    """The same for a failure that is a value already; it is cut to what a status takes."""
    failure.message = failure.message[:_STATUS_MESSAGE_MAX]
    failure.partial_text = failure.partial_text[:_STATUS_PARTIAL_TEXT_MAX]
    retry_after_ms = failure.retry_after_ms or None
    if failure.reason == error_pb2.ERROR_REASON_RATE_LIMITED and retry_after_ms is None:
        # The contract promises RetryInfo for a rate limit, also where the provider does not say how long it lasts.
        retry_after_ms = 1_000
    return error_of_code(
        _CODE_NAMES[failure.grpc_code],
        error_pb2.ErrorReason.Name(failure.reason).removeprefix("ERROR_REASON_"),
        failure.message,
        retry_after_ms=retry_after_ms,
        violations=[FieldViolation(field, failure.message)] if field else (),
        metadata={"call_id": call_id},
        details=[failure],
    )


def add_chunks(chunks: RepeatedCompositeFieldContainer[gateway_pb2.Chunk], read: Read, call_id: str) -> None:
    """Append the events of a read; those that only the gateway needs are left out."""
    offset_us = read.offset_us
    for event in read.events:
        match event:
            case TextDelta(text):
                chunks.add(offset_us=offset_us, text=text)
            case ReasoningDelta(text, data):
                chunks.add(offset_us=offset_us, reasoning=content_pb2.Reasoning(text=text, provider_data=data))
            case ToolCallDelta(index, id, name, arguments):
                delta = gateway_pb2.ToolCallDelta(index=index, id=id, name=name, arguments_json=arguments)
                chunks.add(offset_us=offset_us, tool_call=delta)
            case UsageSoFar(usage):
                chunks.add(offset_us=offset_us, usage=encode_usage(usage))
            case Started(provider_model):
                started = gateway_pb2.Started(
                    call_id=call_id, attempt_id=read.attempt_id, provider_model=provider_model
                )
                chunks.add(offset_us=offset_us, started=started)


def encode_end(completion: Completion) -> gateway_pb2.Chunk:
    """The last chunk of a stream that worked."""
    attempts = completion.attempts
    offset_us = attempts[-1].duration_us if attempts else completion.timing.since_leaving_us
    return gateway_pb2.Chunk(offset_us=offset_us, finished=encode_completion(completion, with_parts=False))


def encode_model(model: ModelInfo) -> gateway_pb2.Model:
    """A model of the catalogue."""
    return gateway_pb2.Model(
        name=model.name,
        provider=model.provider,
        configured=model.configured,
        default_max_output_tokens=model.default_max_output_tokens,
        missing_setting=model.missing_setting,
        capabilities=None if model.capabilities is None else _capabilities(model.capabilities),
        alias_of=model.alias_of,
        deployments=[gateway_pb2.ModelDeployment(model=name, weight=weight) for name, weight in model.deployments],
        fallbacks=_fallbacks(model.fallbacks) if model.fallbacks else None,
    )


def _fallbacks(names: Mapping[FallbackKind, tuple[str, ...]]) -> gateway_pb2.ModelFallbacks:
    return gateway_pb2.ModelFallbacks(
        general=names.get("general"),
        context_window=names.get("context_window"),
        content_policy=names.get("content_policy"),
    )


def _capabilities(known: frozenset[Capability]) -> gateway_pb2.Capabilities:
    return gateway_pb2.Capabilities(
        images="images" in known, tools="tools" in known, json_schema="json_schema" in known
    )


def encode_part(part: Part) -> content_pb2.ContentPart:
    """A part of an answer, or of a question in a chat."""
    match part:
        case TextPart(text):
            return content_pb2.ContentPart(text=text)
        case ImagePart(url, data, media_type):
            if url:
                return content_pb2.ContentPart(image=content_pb2.Image(url=url, media_type=media_type))
            return content_pb2.ContentPart(image=content_pb2.Image(data=data, media_type=media_type))
        case ToolCallPart(id, name, arguments):
            call = content_pb2.ToolCall(id=id, name=name, arguments_json=arguments)
            return content_pb2.ContentPart(tool_call=call)
        case ReasoningPart(text, data):
            return content_pb2.ContentPart(reasoning=content_pb2.Reasoning(text=text, provider_data=data))
        case ToolResultPart(id, text, is_error):
            result = content_pb2.ToolResult(tool_call_id=id, text=text, is_error=is_error)
            return content_pb2.ContentPart(tool_result=result)


def encode_parameters(parameters: Parameters) -> gateway_pb2.Parameters:
    """How to sample."""
    return gateway_pb2.Parameters(
        temperature=parameters.temperature,
        top_p=parameters.top_p,
        max_output_tokens=parameters.max_output_tokens,
        seed=parameters.seed,
        stop=parameters.stop,
        frequency_penalty=parameters.frequency_penalty,
        presence_penalty=parameters.presence_penalty,
        reasoning_effort=parameters.reasoning_effort,
        provider_options={name: _value(value) for name, value in parameters.provider_options.items()},
    )


def _value(value: OptionValue) -> value_pb2.Value:
    match value:
        case bool():
            return value_pb2.Value(bool_value=value)
        case int():
            return value_pb2.Value(int_value=value)
        case float():
            return value_pb2.Value(double_value=value)
        case str():
            return value_pb2.Value(string_value=value)
        case list():
            return value_pb2.Value(list_value=value_pb2.ValueList(values=[_value(item) for item in value]))
        case None:
            return value_pb2.Value()


def _timing(timing: Timing) -> gateway_pb2.Timing:
    return gateway_pb2.Timing(
        latency_us=timing.latency_us,
        ttft_any_us=timing.ttft_any_us,
        ttft_output_us=timing.ttft_output_us,
        queue_us=timing.queue_us,
        chunks=timing.chunks,
        streamed=timing.streamed,
    )


def _reuse(reuse: Reuse) -> gateway_pb2.Reuse:
    message = gateway_pb2.Reuse(
        source=_REUSE_SOURCES[reuse.source], attempt_id=reuse.attempt_id, latency_us=reuse.latency_us
    )
    message.answered_at.FromMicroseconds(reuse.answered_at_us)
    return message


def _attempt(record: AttemptRecord) -> gateway_pb2.Attempt:
    attempt = gateway_pb2.Attempt(
        attempt_id=record.attempt_id,
        provider=record.provider,
        deployment=record.deployment,
        cause=_CAUSES[record.cause],
        provider_model=record.provider_model,
        duration_us=record.duration_us,
        error=None if record.failure is None else encode_failure(record.failure),
        usage=None if record.usage is None else encode_usage(record.usage),
        cost=None if record.cost is None else _cost(record.cost),
        provider_request_id=record.provider_request_id,
    )
    if record.started_at_us:
        seconds, microseconds = divmod(record.started_at_us, 1_000_000)
        attempt.started_at.seconds = seconds
        attempt.started_at.nanos = microseconds * 1_000
    return attempt


def _cost(cost: Cost) -> usage_pb2.Cost:
    return usage_pb2.Cost(
        cost_nano_usd=cost.cost_nano_usd, unpriced_calls=cost.unpriced_calls, price_version=cost.price_version
    )
