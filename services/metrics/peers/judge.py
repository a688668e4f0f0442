"""The gateway over gRPC: the calls of judges, with the caller's own credential."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

import grpc

from llmlab.api.common.v1 import content_pb2, error_pb2
from llmlab.api.gateway.v1 import gateway_pb2 as pb
from llmlab.api.gateway.v1.gateway_pb2_grpc import GatewayServiceStub
from services.metrics.judge.calls import Again, Ask, JudgeModel, Reply
from services.runtime.channel import call_metadata, messages_of
from services.runtime.errors import DomainError
from services.runtime.portions import portions

_BATCH_MAX: Final = 64
"""Calls of one CompleteBatch."""
_BATCH_BYTES_MAX: Final = 1_000_000
"""Of a batch of several calls; one alone may be larger."""
_BATCHES_AT_ONCE: Final = 4
_REASON_PREFIX: Final = "ERROR_REASON_"
ID_USED: Final = frozenset({"CALL_ALREADY_DISPATCHED", "HOLD_TOMBSTONED", "HOLD_NONCE_MISMATCH", "HOLD_RESOLVED"})
"""Refusals of a call whose id has been used by another dispatch."""


class GrpcJudgeCalls:
    """Implements judge.calls.JudgeCalls. Holds, budgets and limits are the gateway's: it sees who asks."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = GatewayServiceStub(channel)

    async def ask(self, token: str, judge: JudgeModel, asks: Sequence[Ask]) -> list[Reply]:
        """See JudgeCalls.ask. Cancelling it stops the calls."""
        request_id = uuid.uuid4().hex
        calls = [_call(ask.call_id or f"judge/{request_id}/{index}", judge, ask) for index, ask in enumerate(asks)]
        batches = portions(calls, pb.Call.ByteSize, size_max=_BATCH_BYTES_MAX, items_max=_BATCH_MAX)
        at_once = asyncio.Semaphore(_BATCHES_AT_ONCE)
        replies: dict[str, Reply] = {}
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._complete(token, batch, replies, at_once)) for batch in batches]
        refusals = [refusal for task in tasks if (refusal := task.result()) is not None]
        if refusals and not replies:
            raise refusals[0]
        lost = refusals[0] if refusals else None
        return [replies.get(call.call_id) or _lost(call.call_id, lost) for call in calls]

    async def _complete(
        self, token: str, calls: Sequence[pb.Call], replies: dict[str, Reply], at_once: asyncio.Semaphore
    ) -> DomainError | None:
        """Fills in the replies of one batch; returns why some of them are missing."""
        request = pb.CompleteBatchRequest(calls=calls)
        async with at_once:
            try:
                stream = self._stub.CompleteBatch(request, metadata=call_metadata(token) if token else ())
                async with aclosing(messages_of(stream)) as messages:
                    async for message in messages:
                        for outcome in message.outcomes:
                            replies[outcome.call_id] = _reply(outcome)
            except DomainError as error:
                return error
        return None


def _call(call_id: str, judge: JudgeModel, ask: Ask) -> pb.Call:
    call = pb.Call(
        call_id=call_id,
        model=judge.model,
        timeout_ms=judge.timeout_ms,
        tags=judge.tags,
        response_json_schema=ask.schema,
        run_id=judge.run_id,
        traceparent=ask.traceparent,
    )
    call.parameters.MergeFromString(judge.encoded_options)
    if judge.max_output_tokens:
        call.parameters.max_output_tokens = judge.max_output_tokens
    if judge.temperature is not None:
        call.parameters.temperature = judge.temperature
    for role, text in ((content_pb2.ROLE_SYSTEM, ask.system), (content_pb2.ROLE_USER, ask.user)):
        call.messages.add(role=role).parts.add(text=text)
    return call


def _reply(outcome: pb.CallOutcome) -> Reply:
    if outcome.WhichOneof("outcome") == "completion":
        done = outcome.completion
        return Reply(
            outcome.call_id,
            "".join(part.text for part in done.parts if part.WhichOneof("kind") == "text"),
            done.cost.cost_nano_usd,
            done.cost.unpriced_calls if done.HasField("cost") else 1,
            done.usage.input_tokens,
            done.usage.output_tokens,
        )
    error = outcome.error
    owed = [attempt for attempt in outcome.attempts if not attempt.HasField("error") or attempt.error.dispatched]
    reason = error_pb2.ErrorReason.Name(error.reason).removeprefix(_REASON_PREFIX)
    used = reason in ID_USED
    again = Again.NO
    if used or (error.retryable and outcome.attempts):
        again = Again.NEW_ID
    elif error.retryable:
        again = Again.SAME_ID
    return Reply(
        outcome.call_id,
        "",
        sum(attempt.cost.cost_nano_usd for attempt in owed),
        # Whoever used the id knows what it cost; here nobody does.
        used + sum(attempt.cost.unpriced_calls if attempt.HasField("cost") else 1 for attempt in owed),
        sum(attempt.usage.input_tokens for attempt in owed),
        sum(attempt.usage.output_tokens for attempt in owed),
        f"{reason}: {error.message}",
        again,
        error.retry_after_ms,
    )


def _lost(call_id: str, error: DomainError | None) -> Reply:
    """A call without an outcome: it may have been made, so its cost is not known."""
    reason = f"{error.reason}: {error.message}" if error else "the gateway gave no outcome"
    return Reply(call_id, "", 0, 1, 0, 0, reason, Again.SAME_ID)
