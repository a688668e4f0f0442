"""What a gateway that refuses a batch, or stops in the middle of one, means for its calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from llmlab.api.common.v1 import content_pb2
from llmlab.api.gateway.v1 import gateway_pb2 as pb
from llmlab.api.gateway.v1.gateway_pb2_grpc import GatewayServiceServicer
from services.gateway.settings import GatewaySettings
from services.orchestrator.calls import CallPlan, PlannedCall
from services.orchestrator.peers.gateway import GrpcGateway
from services.orchestrator.peers.identity import DelegatedTokens
from services.orchestrator.ports import NotSent, RunCredential
from services.runtime.channel import open_channel
from services.runtime.errors import DomainError
from services.runtime.server import serve

CREDENTIAL = RunCredential("prj_1", "dlg_1")


class NoTokens:
    """Authentication is off."""

    async def token(self, credential: RunCredential) -> str:
        return ""


class Busy(GatewayServiceServicer):
    """A gateway whose calls are under way for ever."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    async def CompleteBatch(  # noqa: N802 (gRPC's name)
        self, request: pb.CompleteBatchRequest, context: Any
    ) -> AsyncIterator[pb.CompleteBatchResponse]:
        self.begun.set()
        await asyncio.Event().wait()
        yield pb.CompleteBatchResponse()


async def dispatch(gateway: GrpcGateway) -> None:
    call = PlannedCall("run_1/0/1", "nonce", CallPlan("run_1", "mock/small", {}, {}, 10_000), (("user", "Hi"),))
    async for _ in gateway.complete_batch(CREDENTIAL, [call], 20):
        pass


async def test_a_draining_gateway_refuses_new_calls_and_leaves_those_it_cuts_in_doubt(tmp_path: Path) -> None:
    settings = GatewaySettings(home=tmp_path, port=0, auth_required=False)
    busy = Busy()  # type: ignore[abstract]  # the RPCs that nobody calls here
    async with (
        serve(settings, [busy], verifier=None) as server,
        open_channel(server.address, settings) as channel,
    ):
        gateway = GrpcGateway(channel, cast("DelegatedTokens", NoTokens()))
        under_way = asyncio.create_task(dispatch(gateway))
        await busy.begun.wait()
        draining = asyncio.create_task(server.load.drain(0.05))
        await asyncio.sleep(0)

        with pytest.raises(NotSent) as refused:
            await dispatch(gateway)
        # The provider may have been asked: whoever takes this for a refusal pays twice.
        with pytest.raises(DomainError) as cut:
            await under_way
        await draining

    assert (refused.value.reason, refused.value.retryable) == ("SHUTTING_DOWN", True)
    assert cut.value.reason == "SHUTTING_DOWN"


class Wordy(GatewayServiceServicer):
    """A gateway that answers more than its caller takes."""

    async def CompleteBatch(  # noqa: N802
        self, request: pb.CompleteBatchRequest, context: Any
    ) -> AsyncIterator[pb.CompleteBatchResponse]:
        parts = [content_pb2.ContentPart(text="x" * 10_000)]
        outcome = pb.CallOutcome(call_id=request.calls[0].call_id, completion=pb.Completion(parts=parts))
        yield pb.CompleteBatchResponse(outcomes=[outcome])


async def test_an_answer_that_is_too_large_was_paid_for_all_the_same(tmp_path: Path) -> None:
    settings = GatewaySettings(home=tmp_path, port=0, auth_required=False)
    small = GatewaySettings(home=tmp_path, auth_required=False, max_message_bytes=4_096)
    async with (
        serve(settings, [Wordy()], verifier=None) as server,  # type: ignore[abstract]
        open_channel(server.address, small) as channel,
    ):
        gateway = GrpcGateway(channel, cast("DelegatedTokens", NoTokens()))
        with pytest.raises(DomainError) as too_large:
            await dispatch(gateway)

    assert too_large.value.reason == "MESSAGE_TOO_LARGE"
