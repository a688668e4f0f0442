"""AutomationService."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Literal

from llmlab.api.gateway.v1 import automation_pb2, automation_pb2_grpc
from services.gateway.admission import Admission
from services.gateway.attempts import Completion, FailedCall
from services.gateway.automations import (
    ALIVE_S,
    AutomationRecord,
    AutomationRun,
    SharedAutomations,
    StartedAutomations,
    cancel_topic,
    granted_topic,
)
from services.gateway.calls import Automation, Call, Message, Owner, Parameters, TextPart
from services.gateway.chunks import AutomationUpdate
from services.gateway.failures import CallFailed
from services.gateway.handoff import Handoff
from services.gateway.pipeline import Pipeline
from services.gateway.rpc.encode import encode_completion, encode_failure, encode_outcome, error_of
from services.gateway.settings import GatewaySettings
from services.runtime.clock import SYSTEM_CLOCK
from services.runtime.context import current_principal, remaining_s
from services.runtime.errors import NotFound
from services.runtime.hints import Hints
from services.runtime.ids import new_id

MODEL = "tinyfish/automation"
_STEPS_DEFAULT = 100
_TIMEOUT_DEFAULT_MS = 600_000
# One that is followed after its deadline is asked about once more, and cancelled.
_ADOPTED_TIMEOUT_MIN_MS = 10_000


class AutomationServicer(automation_pb2_grpc.AutomationServiceServicer):
    """Automations over the pipeline: held by steps, settled by steps, cancelled at the provider when they are left."""

    def __init__(
        self,
        pipeline: Pipeline,
        admission: Admission,
        started: StartedAutomations,
        shared: SharedAutomations,
        hints: Hints,
        settings: GatewaySettings,
    ) -> None:
        """`started` are those of this replica, `shared` those of all, and `hints` carry cancels from one to another."""
        self._pipeline = pipeline
        self._admission = admission
        self._started = started
        self._shared = shared
        self._hints = hints
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
        run = AutomationRun(call.call_id, watch=handoff.put)

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
        self._add(owner, run)
        await asyncio.shield(self._follow(request.automation, call, owner, run))
        if isinstance(run.outcome, FailedCall) and not run.run_id:
            self._started.forget(owner, call.call_id)
            raise error_of(run.outcome)
        return automation_pb2.StartAutomationResponse(run=_encode(run))

    async def GetAutomation(
        self, request: automation_pb2.GetAutomationRequest, context: Any
    ) -> automation_pb2.GetAutomationResponse:
        """How a started automation stands, whichever replica follows it."""
        owner = _owner()
        run = self._started.get(owner, request.call_id)
        if run is not None:
            return automation_pb2.GetAutomationResponse(run=_encode(run))
        record = await self._shared.get(owner, request.call_id)
        if record is None:
            raise NotFound("automation", request.call_id)
        if not record.ended and not await self._shared.is_spoken_for(owner, request.call_id):
            self._adopt(owner, record)
        return automation_pb2.GetAutomationResponse(run=automation_pb2.AutomationRun.FromString(record.report))

    async def CancelAutomation(
        self, request: automation_pb2.CancelAutomationRequest, context: Any
    ) -> automation_pb2.CancelAutomationResponse:
        """Cancel an automation of the caller's project that is under way, here or at another replica."""
        owner, call_id = _owner(), request.call_id
        cancelled = bool(self._admission.cancel(owner, [call_id]))
        if not cancelled:
            record = await self._shared.get(owner, call_id)
            cancelled = record is not None and not record.ended
            if record is not None and cancelled and not await self._shared.is_spoken_for(owner, call_id):
                await self._adopt(owner, record).known.wait()
                self._admission.cancel(owner, [call_id])
            if record is None or not record.ended:
                # One that was not started, but is waited for, is known to the replica that runs it alone.
                cancelled = await self._cancelled_elsewhere(owner, call_id, sure=cancelled)
        return automation_pb2.CancelAutomationResponse(cancelled=cancelled)

    async def _cancelled_elsewhere(self, owner: Owner, call_id: str, *, sure: bool) -> bool:
        """Tell the replica that runs it. Unless that is `sure` to be there, wait a moment for its word."""
        wish = new_id("wish")
        give_up_s = SYSTEM_CLOCK.monotonic_s() + self._settings.automation_cancel_wait_ms / 1_000
        with self._hints.subscribe(granted_topic(wish)) as news:
            await self._shared.want_cancel(owner, call_id, wish)
            self._hints.publish(cancel_topic(owner, call_id))
            if sure or not self._settings.redis_url:
                return sure
            while not (granted := await self._shared.is_cancel_granted(wish)):
                left_s = give_up_s - SYSTEM_CLOCK.monotonic_s()
                if left_s <= 0:
                    break
                await news.wait(left_s)
        return granted

    def _adopt(self, owner: Owner, record: AutomationRecord) -> AutomationRun:
        """Follow an automation whose replica was lost, under its own id and hold."""
        message = automation_pb2.Automation.FromString(record.request)
        report = automation_pb2.AutomationRun.FromString(record.report)
        if (known := self._started.get(owner, report.call_id)) is not None:
            return known
        call = self._call(message, "async", bounded=False)
        if call.automation is None:
            raise AssertionError("an automation has a goal")
        left_ms = (record.deadline_us - SYSTEM_CLOCK.now_us()) // 1_000
        call = replace(
            call,
            call_id=report.call_id,
            dispatch_nonce=record.nonce,
            timeout_ms=max(_ADOPTED_TIMEOUT_MIN_MS, left_ms),
            automation=replace(call.automation, run_id=report.provider_run_id),
        )
        run = AutomationRun(call.call_id, run_id=report.provider_run_id)
        self._add(owner, run)
        self._follow(message, call, owner, run)
        return run

    def _add(self, owner: Owner, run: AutomationRun) -> None:
        """Keep a run. Raises the status of a refusal."""
        try:
            self._started.add(owner, run)
        except CallFailed as failed:
            raise error_of(FailedCall(run.call_id, failed.failure)) from failed

    def _follow(
        self, message: automation_pb2.Automation, call: Call, owner: Owner, run: AutomationRun
    ) -> asyncio.Task[None]:
        """Follow a started automation in a task of its own, and tell all replicas how it stands.

        The task that is returned ends when they have been told that it has begun.
        """
        deadline_us = SYSTEM_CLOCK.now_us() + call.timeout_ms * 1_000

        def record() -> AutomationRecord:
            report = _encode(run).SerializeToString()
            return AutomationRecord(
                message.SerializeToString(), report, call.dispatch_nonce, deadline_us, ended=run.outcome is not None
            )

        async def tell() -> None:
            await run.known.wait()
            if run.run_id:
                await self._shared.speak_for(owner, call.call_id)
                await self._shared.put(owner, call.call_id, record())

        async def follow() -> None:
            try:
                await self._run(call, owner, run)
            finally:
                run.known.set()
                await telling
                if run.run_id and run.outcome is not None:
                    await self._shared.put(owner, call.call_id, record())

        # They outlive the RPC that asked for it.
        telling = asyncio.create_task(tell(), name=f"telling of {call.call_id}", context=contextvars.Context())
        run.task = asyncio.create_task(follow(), name=f"automation {call.call_id}", context=contextvars.Context())
        return telling

    async def _run(self, call: Call, owner: Owner, run: AutomationRun) -> None:
        obeying = asyncio.create_task(self._obey(owner, call.call_id), name=f"cancels of {call.call_id}")
        try:
            run.outcome = await self._pipeline.run(call, owner, run.emit)
        finally:
            obeying.cancel()
            await asyncio.wait([obeying])

    async def _obey(self, owner: Owner, call_id: str) -> None:
        """Speak for an automation while it runs, and cancel it where another replica was told to."""
        with self._hints.subscribe(cancel_topic(owner, call_id)) as wanted:
            while not (wish := await self._shared.wanted_cancel(owner, call_id)):
                await self._shared.speak_for(owner, call_id)
                # A hint may come for nothing, or not at all.
                await wanted.wait(ALIVE_S / 3)
        # First the word: once it is cancelled, this task is too.
        await self._shared.grant_cancel(wish)
        self._hints.publish(granted_topic(wish))
        self._admission.cancel(owner, [call_id])

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
