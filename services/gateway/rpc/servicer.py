"""GatewayService."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any

from llmlab.api.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from services.gateway.admission import Admission
from services.gateway.attempts import CallOutcome, FailedCall
from services.gateway.calls import Call, Owner
from services.gateway.chunks import Read
from services.gateway.failures import Failure
from services.gateway.fleet import Fleet
from services.gateway.handoff import Handoff
from services.gateway.pipeline import Pipeline
from services.gateway.rpc.decode import decode_call
from services.gateway.rpc.embeddings import KeptVectors, decode_embed, encode_embeddings
from services.gateway.rpc.encode import (
    add_chunks,
    encode_completion,
    encode_end,
    encode_model,
    encode_outcome,
    error_of,
)
from services.gateway.settings import GatewaySettings
from services.runtime.context import current_principal, remaining_s
from services.runtime.errors import InvalidField
from services.runtime.pages import decode_page_token, encode_page_token, filter_fingerprint
from services.runtime.portions import portions

_log = logging.getLogger(__name__)

_PAGE_SIZE_DEFAULT = 100


class GatewayServicer(gateway_pb2_grpc.GatewayServiceServicer):
    """The RPCs of the gateway."""

    def __init__(
        self,
        pipeline: Pipeline,
        embedding: Pipeline,
        admission: Admission,
        fleet: Fleet,
        settings: GatewaySettings,
    ) -> None:
        """`embedding` is the same pipeline over the providers' models for embeddings."""
        self._pipeline = pipeline
        self._embedding = embedding
        self._admission = admission
        self._fleet = fleet
        self._settings = settings

    async def Complete(self, request: gateway_pb2.CompleteRequest, context: Any) -> gateway_pb2.CompleteResponse:
        """Run one call and answer when it has finished."""
        call = self._call(request.call, "call", direct=True, waits_for_cost=not request.skip_cost)
        outcome = await self._pipeline.run(call, _owner())
        if isinstance(outcome, FailedCall):
            raise error_of(outcome)
        return gateway_pb2.CompleteResponse(completion=encode_completion(outcome))

    async def StreamComplete(
        self, request: gateway_pb2.StreamCompleteRequest, context: Any
    ) -> AsyncIterator[gateway_pb2.StreamCompleteResponse]:
        """Run one call in a task of its own and pass its chunks on; leaving the stream cancels the task."""
        call = self._call(request.call, "call", direct=True)
        handoff: Handoff[Read] = Handoff(self._settings.stream_chunks_max)

        def emit(read: Read) -> Coroutine[Any, Any, None] | None:
            size = len(read.events)
            return None if handoff.offer(read, size) else handoff.put(read, size)

        async def run(owner: Owner) -> CallOutcome:
            try:
                return await self._pipeline.run(call, owner, emit)
            finally:
                handoff.end()

        task = asyncio.create_task(run(_owner()), name=f"stream {call.call_id}")
        try:
            while reads := await handoff.take():
                response = gateway_pb2.StreamCompleteResponse()
                for read in reads:
                    add_chunks(response.chunks, read, call.call_id)
                if response.chunks:
                    yield response
            outcome = await task
            if isinstance(outcome, FailedCall):
                raise error_of(outcome)
            yield gateway_pb2.StreamCompleteResponse(chunks=[encode_end(outcome)])
        finally:
            await _cancelled([task])

    async def CompleteBatch(
        self, request: gateway_pb2.CompleteBatchRequest, context: Any
    ) -> AsyncIterator[gateway_pb2.CompleteBatchResponse]:
        """Run the calls at once; outcomes leave as they come, those of a few milliseconds together."""
        calls = [self._call(message, f"calls[{index}]", direct=False) for index, message in enumerate(request.calls)]
        _check_ids(request.calls)
        owner = _owner()
        ready: list[gateway_pb2.CallOutcome] = []
        wake = asyncio.Event()

        async def run(call: Call) -> None:
            try:
                ready.append(encode_outcome(await self._outcome(call, owner)))
            finally:
                wake.set()

        tasks = [asyncio.create_task(run(call), name=f"call {call.call_id}") for call in calls]
        told = 0
        try:
            while told < len(tasks):
                await wake.wait()
                if told + len(ready) < len(tasks):
                    await asyncio.sleep(self._settings.batch_flush_ms / 1_000)
                wake.clear()
                for task in tasks:
                    if task.done():
                        task.result()  # a fault of ours ends the stream; the caller would wait for that call forever
                outcomes, ready[:] = ready[:], []
                told += len(outcomes)
                # Raw answers and long texts together would exceed the message limit.
                for part in portions(
                    outcomes, gateway_pb2.CallOutcome.ByteSize, size_max=self._settings.batch_flush_bytes
                ):
                    yield gateway_pb2.CompleteBatchResponse(outcomes=part)
        finally:
            await _cancelled(tasks)

    async def Embed(self, request: gateway_pb2.EmbedRequest, context: Any) -> gateway_pb2.EmbedResponse:
        """Turn texts into vectors; held, settled and cancelled as a completion is."""
        call = decode_embed(
            request,
            default_timeout_ms=self._settings.default_timeout_ms,
            retries=self._settings.retries_max,
            retry_ambiguous=self._settings.retry_ambiguous,
            limit_ms=self._limit_ms(),
        )
        kept = KeptVectors()
        outcome = await self._embedding.run(call, _owner(), kept.emit)
        if isinstance(outcome, FailedCall):
            raise error_of(outcome)
        return encode_embeddings(outcome, kept.vectors)

    async def CancelCalls(
        self, request: gateway_pb2.CancelCallsRequest, context: Any
    ) -> gateway_pb2.CancelCallsResponse:
        """Cancel calls of the caller's project that are under way here."""
        return gateway_pb2.CancelCallsResponse(cancelled_call_ids=self._admission.cancel(_owner(), request.call_ids))

    async def ListModels(self, request: gateway_pb2.ListModelsRequest, context: Any) -> gateway_pb2.ListModelsResponse:
        """List the models of the catalogue, by name."""
        fingerprint = filter_fingerprint("ListModels", request.provider)
        after = decode_page_token(fingerprint, request.page_token)
        models = sorted(self._fleet.catalogue.models(request.provider), key=lambda model: model.name)
        if after is not None:
            models = [model for model in models if model.name > str(after[0])]
        size = request.page_size or _PAGE_SIZE_DEFAULT
        page = models[:size]
        token = encode_page_token(fingerprint, [page[-1].name]) if len(models) > size else ""
        return gateway_pb2.ListModelsResponse(models=[encode_model(model) for model in page], next_page_token=token)

    def _call(self, message: gateway_pb2.Call, field: str, *, direct: bool, waits_for_cost: bool = True) -> Call:
        """The call; what one of a batch leaves open is different, because runs repeat calls and measure them."""
        settings = self._settings
        return decode_call(
            message,
            field,
            default_timeout_ms=settings.default_timeout_ms,
            default_retries=settings.retries_max if direct else 0,
            retry_ambiguous=direct and settings.retry_ambiguous,
            fallbacks=direct,
            limit_ms=self._limit_ms(),
            reuse_deterministic=direct and settings.cache_deterministic,
            waits_for_cost=waits_for_cost,
        )

    def _limit_ms(self) -> float:
        """What the RPC's deadline leaves a call."""
        left_s = remaining_s()
        return float("inf") if left_s is None else left_s * 1_000 - self._settings.answer_margin_ms

    async def _outcome(self, call: Call, owner: Owner) -> CallOutcome:
        """The outcome of one call of a batch: a fault of ours in one call must not take the others along."""
        try:
            return await self._pipeline.run(call, owner)
        except Exception:  # noqa: BLE001 (whatever it is, the caller is told and the log has it)
            _log.exception("call %s met a fault of the gateway", call.call_id)
            # It is not known how far it came, so it may have been sent.
            failure = Failure("INTERNAL", "the gateway failed; its log has the call id", dispatched=True)
            return FailedCall(call.call_id, failure)


def _owner() -> Owner:
    principal = current_principal()
    return Owner(principal.project_id, principal.user_id, principal.key_id)


def _check_ids(calls: Iterable[gateway_pb2.Call]) -> None:
    seen: set[str] = set()
    for index, call in enumerate(calls):
        if not call.call_id:
            raise InvalidField(f"calls[{index}].call_id", "must be set: outcomes of a batch are told apart by it")
        if call.call_id in seen:
            raise InvalidField(f"calls[{index}].call_id", f"{call.call_id!r} is twice in the batch")
        seen.add(call.call_id)


async def _cancelled(tasks: list[asyncio.Task[Any]]) -> None:
    """Stop what still runs and wait until its money is settled."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
