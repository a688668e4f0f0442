"""The gateway over gRPC: batches of a run's calls, under the run's own delegated credential."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from typing import Final
from weakref import WeakKeyDictionary

import grpc

from llmlab.api.common.v1 import error_pb2
from llmlab.api.gateway.v1 import gateway_pb2 as pb
from llmlab.api.gateway.v1.gateway_pb2_grpc import GatewayServiceStub
from services.orchestrator.calls import (
    NO_MONEY,
    NO_USAGE,
    Answer,
    CallOutcome,
    CallPlan,
    Failure,
    Money,
    PlannedCall,
    Timing,
    Usage,
    add_money,
    add_usage,
)
from services.orchestrator.peers.identity import DelegatedTokens, metadata_for
from services.orchestrator.ports import KnownModels, NotSent, RunCredential
from services.orchestrator.rpc.codec import (
    ROLES,
    answer_body,
    fill_values,
    money_of,
    reason_name,
    text_of,
    usage_of,
)
from services.runtime.channel import messages_of
from services.runtime.errors import INTERRUPTED_KEY, DomainError
from services.runtime.status import error_from_rpc

_FINISH_PREFIX: Final = "FINISH_REASON_"
_MODELS_PAGE: Final = 1_000
_CANCEL_MAX: Final = 1_024
_FINISH_REASONS: Final = {number: name.removeprefix(_FINISH_PREFIX) for name, number in pb.FinishReason.items()}

_REFUSALS: Final = frozenset(
    {
        "CREDENTIAL_MISSING",
        "CREDENTIAL_INVALID",
        "CREDENTIAL_EXPIRED",
        "PERMISSION_DENIED",
        "INVALID_FIELD",
        "OVERLOADED",
        "SHUTTING_DOWN",
        "MESSAGE_TOO_LARGE",
        "UNKNOWN_METHOD",
    }
)
"""Errors of a batch that are raised before any of its calls is looked at, unless they say that they interrupted it."""

_HOPELESS_REFUSALS: Final = frozenset({"PERMISSION_DENIED", "INVALID_FIELD", "MESSAGE_TOO_LARGE", "DELEGATION_ENDED"})


class GrpcGateway:
    """Implements ports.Gateway."""

    def __init__(self, channel: grpc.aio.Channel, tokens: DelegatedTokens) -> None:
        self._stub = GatewayServiceStub(channel)
        self._tokens = tokens
        self._bases: WeakKeyDictionary[CallPlan, pb.Call] = WeakKeyDictionary()

    async def complete_batch(
        self, credential: RunCredential, calls: Sequence[PlannedCall], timeout_s: float
    ) -> AsyncIterator[list[CallOutcome]]:
        try:
            metadata = metadata_for(await self._tokens.token(credential))
        except DomainError as error:
            raise NotSent(error.reason, error.message, retryable=error.reason not in _HOPELESS_REFUSALS) from error
        request = pb.CompleteBatchRequest()
        for call in calls:
            self._add_call(request, call)
        stream = self._stub.CompleteBatch(request, timeout=timeout_s, metadata=metadata)
        begun = False
        try:
            async with aclosing(messages_of(stream)) as messages:
                async for message in messages:
                    begun = True
                    yield [CallOutcome(each.call_id, _ending(each)) for each in message.outcomes]
        except DomainError as error:
            if begun or error.reason not in _REFUSALS or INTERRUPTED_KEY in error.metadata:
                raise
            if error.reason.startswith("CREDENTIAL_"):
                self._tokens.forget(credential)
            raise NotSent(error.reason, error.message, retryable=error.reason not in _HOPELESS_REFUSALS) from error

    def _add_call(self, request: pb.CompleteBatchRequest, call: PlannedCall) -> None:
        base = self._bases.get(call.plan)
        if base is None:
            base = self._bases[call.plan] = _base(call.plan)
        message = request.calls.add()
        message.CopyFrom(base)
        message.call_id = call.call_id
        message.dispatch_nonce = call.nonce
        message.traceparent = call.traceparent
        for role, text in call.messages:
            message.messages.add(role=ROLES[role]).parts.add(text=text)

    async def cancel_calls(self, credential: RunCredential, call_ids: Sequence[str]) -> None:
        metadata = metadata_for(await self._tokens.token(credential))
        for start in range(0, len(call_ids), _CANCEL_MAX):
            request = pb.CancelCallsRequest(call_ids=call_ids[start : start + _CANCEL_MAX])
            try:
                await self._stub.CancelCalls(request, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                raise error_from_rpc(error) from error

    async def list_models(self, token: str) -> KnownModels:
        names: set[str] = set()
        not_configured: dict[str, str] = {}
        places: dict[str, tuple[str, ...]] = {}
        output_limits: dict[str, int] = {}
        page_token = ""
        while True:
            request = pb.ListModelsRequest(page_size=_MODELS_PAGE, page_token=page_token)
            try:
                page = await self._stub.ListModels(request, metadata=metadata_for(token))
            except grpc.aio.AioRpcError as error:
                raise error_from_rpc(error) from error
            for model in page.models:
                if model.deployments:
                    places[model.name] = tuple(place.model for place in model.deployments)
                    continue
                names.add(model.name)
                output_limits[model.name] = model.default_max_output_tokens
                if not model.configured:
                    not_configured[model.name] = model.missing_setting
            page_token = page.next_page_token
            if not page_token:
                return KnownModels(frozenset(names), not_configured, places, output_limits)


def _base(plan: CallPlan) -> pb.Call:
    """What all calls of a plan have in common."""
    call = pb.Call(model=plan.model, timeout_ms=plan.timeout_ms, run_id=plan.run_id, tags=plan.tags)
    parameters = call.parameters
    for name, value in plan.parameters.items():
        if name == "stop":
            parameters.stop.extend(value if isinstance(value, tuple) else (value,))  # type: ignore[arg-type]
        else:
            setattr(parameters, name, value)
    fill_values(parameters.provider_options, plan.provider_options)
    if plan.ignore_circuit_breaker:
        call.resilience.ignore_circuit_breaker = True
    return call


def _ending(outcome: pb.CallOutcome) -> Answer | Failure:
    if outcome.WhichOneof("outcome") == "completion":
        return _answer(outcome.completion)
    return _failure(outcome.error, outcome.attempts)


def _answer(completion: pb.Completion) -> Answer:
    timing = completion.timing
    return Answer(
        text=text_of(completion.parts),
        body=answer_body(completion.parts),
        finish_reason=_FINISH_REASONS.get(completion.finish_reason, ""),
        provider_model=completion.provider_model,
        usage=usage_of(completion.usage),
        cost=money_of(completion.cost) if completion.HasField("cost") else None,
        timing=Timing(
            latency_us=timing.latency_us,
            ttft_any_us=timing.ttft_any_us if timing.HasField("ttft_any_us") else None,
            ttft_output_us=timing.ttft_output_us if timing.HasField("ttft_output_us") else None,
            queue_us=timing.queue_us,
            chunks=timing.chunks,
            streamed=timing.streamed,
        ),
    )


def _failure(error: error_pb2.CallError, attempts: Iterable[pb.Attempt]) -> Failure:
    usage, cost = _bill(error, list(attempts))
    return Failure(
        reason=reason_name(error.reason),
        message=error.message,
        retryable=error.retryable,
        dispatched=error.dispatched,
        retry_after_ms=error.retry_after_ms,
        usage=usage,
        cost=cost,
        encoded=error.SerializeToString(),
    )


def _bill(error: error_pb2.CallError, attempts: list[pb.Attempt]) -> tuple[Usage, Money | None]:
    """Tokens and money of a failed call; money None where the cost of a dispatched attempt is not confirmed."""
    if not error.dispatched:
        return NO_USAGE, NO_MONEY
    if not attempts:
        return usage_of(error.usage), None
    usage, cost = NO_USAGE, NO_MONEY
    confirmed = True
    for attempt in attempts:
        usage = add_usage(usage, usage_of(attempt.usage))
        cost = add_money(cost, money_of(attempt.cost))
        nothing_owed = attempt.HasField("error") and not attempt.error.dispatched
        confirmed = confirmed and (attempt.HasField("cost") or nothing_owed)
    return usage, cost if confirmed else None
