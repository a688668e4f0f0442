"""AutomationService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Literal

from llmlab.api.gateway.v1 import automation_pb2, automation_pb2_grpc
from services.gateway.admission import Admission
from services.gateway.attempts import Completion, FailedCall
from services.gateway.automations import AutomationRun, StartedAutomations
from services.gateway.calls import Automation, Call, Message, Owner, Parameters, TextPart
from services.gateway.chunks import AutomationUpdate
from services.gateway.failures import CallFailed
from services.gateway.handoff import Handoff
from services.gateway.pipeline import Pipeline
from services.gateway.rpc.encode import encode_completion, encode_failure, encode_outcome, error_of
from services.gateway.settings import GatewaySettings
from services.runtime.context import current_principal, remaining_s
from services.runtime.errors import NotFound
from services.runtime.ids import new_id

MODEL = "tinyfish/automation"
_STEPS_DEFAULT = 100
_TIMEOUT_DEFAULT_MS = 600_000


class AutomationServicer(automation_pb2_grpc.AutomationServiceServicer):
    """Automations over the pipeline: held by steps, settled by steps, cancelled at the provider when they are left."""

    def __init__(
        self, pipeline: Pipeline, admission: Admission, started: StartedAutomations, settings: GatewaySettings
    ) -> None:
        self._pipeline = pipeline
        self._admission = admission
        self._started = started
        self._settings = settings

    async def RunAutomation(
        self, request: automation_pb2.RunAutomationRequest, context: Any
    ) -> automation_pb2.RunAutomationResponse:
        """Run one automation to its end."""
        call = self._call(request.automation, "run", bounded=True)
        run = AutomationRun(call.call_id)
        await self._run(call, _owner(), run)
        return automation_pb2.RunAutomationResponse(run=_finished(run))

    async def StreamAutomation(
        self, request: automation_pb2.StreamAutomationRequest, context: Any
    ) -> AsyncIterator[automation_pb2.StreamAutomationResponse]:
        """Run one automation in a task of its own and pass on what it tells; leaving the stream cancels the task."""
        call = self._call(request.automation, "sse", bounded=True)
        handoff: Handoff[AutomationUpdate] = Handoff(self._settings.stream_chunks_max)
        run = AutomationRun(call.call_id, watch=lambda update: handoff.put([update]))

        async def follow(owner: Owner) -> None:
            try:
                await self._run(call, owner, run)
            finally:
                handoff.end()

        task = asyncio.create_task(follow(_owner()), name=f"automation {call.call_id}")
        try:
            while updates := await handoff.take():
                for update in updates:
                    yield _update(update)
            await task
            yield automation_pb2.StreamAutomationResponse(finished=_finished(run))
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    async def StartAutomation(
        self, request: automation_pb2.StartAutomationRequest, context: Any
    ) -> automation_pb2.StartAutomationResponse:
        """Start one automation; it runs on in this process, is settled at its end, and can be asked about."""
        call, owner = self._call(request.automation, "async", bounded=False), _owner()
        run = AutomationRun(call.call_id)
        try:
            self._started.add(owner, run)
        except CallFailed as failed:
            raise error_of(FailedCall(call.call_id, failed.failure)) from failed

        async def follow() -> None:
            try:
                await self._run(call, owner, run)
            finally:
                run.known.set()

        run.task = asyncio.create_task(follow(), name=f"automation {call.call_id}")
        await run.known.wait()
        if isinstance(run.outcome, FailedCall) and not run.run_id:
            self._started.forget(owner, call.call_id)
            raise error_of(run.outcome)
        return automation_pb2.StartAutomationResponse(run=_encode(run))

    async def GetAutomation(
        self, request: automation_pb2.GetAutomationRequest, context: Any
    ) -> automation_pb2.GetAutomationResponse:
        """How an automation that was started here stands."""
        run = self._started.get(_owner(), request.call_id)
        if run is None:
            raise NotFound("automation", request.call_id)
        return automation_pb2.GetAutomationResponse(run=_encode(run))

    async def CancelAutomation(
        self, request: automation_pb2.CancelAutomationRequest, context: Any
    ) -> automation_pb2.CancelAutomationResponse:
        """Cancel an automation of the caller's project that is under way here."""
        cancelled = self._admission.cancel(_owner(), [request.call_id])
        return automation_pb2.CancelAutomationResponse(cancelled=bool(cancelled))

    async def _run(self, call: Call, owner: Owner, run: AutomationRun) -> None:
        run.outcome = await self._pipeline.run(call, owner, run.emit)

    def _call(self, message: automation_pb2.Automation, mode: Literal["run", "async", "sse"], *, bounded: bool) -> Call:
        """The automation as a call; `bounded`: it ends with the RPC that asked for it.

        It is never retried: without idempotency keys a second try could be a second run.
        """
        left_s = remaining_s() if bounded else None
        limit_ms = float("inf") if left_s is None else left_s * 1_000 - self._settings.answer_margin_ms
        return Call(
            call_id=message.call_id or new_id("call"),
            model=MODEL,
            messages=(Message("user", (TextPart(message.goal),)),),
            timeout_ms=max(1, int(min(message.timeout_ms or _TIMEOUT_DEFAULT_MS, limit_ms))),
            parameters=Parameters(max_output_tokens=0),
            dispatch_nonce=new_id("nonce"),
            retries_max=0,
            run_id=message.run_id,
            tags=dict(message.tags),
            automation=Automation(message.url, message.goal, message.steps_max or _STEPS_DEFAULT, mode),
        )


def _update(update: AutomationUpdate) -> automation_pb2.StreamAutomationResponse:
    if update.kind == "streaming_url":
        return automation_pb2.StreamAutomationResponse(streaming_url=update.text)
    return automation_pb2.StreamAutomationResponse(progress=update.text)


def _owner() -> Owner:
    principal = current_principal()
    return Owner(principal.project_id, principal.user_id, principal.key_id)


def _finished(run: AutomationRun) -> automation_pb2.AutomationRun:
    """The run that has ended. Raises the status of one that failed."""
    if isinstance(run.outcome, FailedCall):
        failure = replace(run.outcome.failure, provider_request_id=run.run_id)
        raise error_of(replace(run.outcome, failure=failure))
    return _encode(run)


def _encode(run: AutomationRun) -> automation_pb2.AutomationRun:
    encoded = automation_pb2.AutomationRun(
        call_id=run.call_id, provider_run_id=run.run_id, state=automation_pb2.AUTOMATION_STATE_RUNNING
    )
    match run.outcome:
        case Completion() as completion:
            reached = run.result is not None and run.result.goal_reached
            encoded.state = (
                automation_pb2.AUTOMATION_STATE_GOAL_REACHED
                if reached
                else automation_pb2.AUTOMATION_STATE_GOAL_NOT_REACHED
            )
            told = encode_completion(completion)
            encoded.raw = told.raw
            encoded.usage.CopyFrom(told.usage)
            if told.HasField("cost"):
                encoded.cost.CopyFrom(told.cost)
            encoded.attempts.extend(told.attempts)
            encoded.duration_us = told.attempts[-1].duration_us
        case FailedCall() as failed:
            cancelled = failed.failure.reason == "CANCELLED"
            encoded.state = (
                automation_pb2.AUTOMATION_STATE_CANCELLED if cancelled else automation_pb2.AUTOMATION_STATE_FAILED
            )
            encoded.error.CopyFrom(encode_failure(failed.failure))
            encoded.attempts.extend(encode_outcome(failed).attempts)
            if failed.failure.usage is not None:
                encoded.usage.CopyFrom(encoded.error.usage)
    return encoded
