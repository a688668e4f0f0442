"""Builders for calls of the gateway over gRPC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from llmlab.api.common.v1 import content_pb2, error_pb2, value_pb2
from llmlab.api.cost.v1 import budget_pb2, budget_pb2_grpc, hold_pb2, hold_pb2_grpc, spend_pb2, spend_pb2_grpc
from llmlab.api.gateway.v1 import gateway_pb2
from services.runtime.auth import ServiceTokenMinter
from services.runtime.channel import Metadata, call_metadata
from services.runtime.errors import DomainError
from services.runtime.status import error_from_rpc

if TYPE_CHECKING:
    from llmlab.api.gateway.v1.gateway_pb2_grpc import GatewayServiceAsyncStub

SERVICE_KEY = "5e" * 32
TRACED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
"""The trace context of somebody whose trace is recorded."""
MINTER = ServiceTokenMinter("orchestrator", Ed25519PrivateKey.from_private_bytes(bytes.fromhex(SERVICE_KEY)))
PERMISSIONS = ("CALL", "READ", "WRITE", "MANAGE", "SERVICE")


def token_of(project_id: str = "prj_1") -> Metadata:
    """A credential of a project that may do everything."""
    return call_metadata(MINTER.token(project_id, user_id="usr_1", key_id="key_1", permissions=PERMISSIONS))


def rpc_call(
    text: str = "Why is the sky blue?", *, call_id: str = "", model: str = "mock/instant", **more: Any
) -> gateway_pb2.Call:
    """A call with one user message."""
    part = content_pb2.ContentPart(text=text)
    message = content_pb2.Message(role=content_pb2.ROLE_USER, parts=[part])
    return gateway_pb2.Call(call_id=call_id, model=model, messages=[message], **more)


def options(**values: Any) -> gateway_pb2.Parameters:
    """Parameters that script the mock."""
    return gateway_pb2.Parameters(provider_options={name: _value(value) for name, value in values.items()})


def _value(value: Any) -> value_pb2.Value:
    if isinstance(value, list):
        return value_pb2.Value(list_value=value_pb2.ValueList(values=[_value(item) for item in value]))
    kinds = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}
    return value_pb2.Value(**{kinds[type(value)]: value})


@dataclass(frozen=True)
class Caller:
    """Somebody in project prj_1, who can also look into the books."""

    stub: GatewayServiceAsyncStub
    costs: grpc.aio.Channel

    async def complete(self, call: gateway_pb2.Call, **more: Any) -> gateway_pb2.Completion:
        request = gateway_pb2.CompleteRequest(call=call)
        answer = await self.stub.Complete(request, metadata=more.pop("metadata", token_of()), **more)
        return answer.completion

    async def stream(self, call: gateway_pb2.Call) -> list[gateway_pb2.Chunk]:
        request = gateway_pb2.StreamCompleteRequest(call=call)
        return [
            chunk
            async for message in self.stub.StreamComplete(request, metadata=token_of())
            for chunk in message.chunks
        ]

    async def batch(self, *calls: gateway_pb2.Call) -> dict[str, gateway_pb2.CallOutcome]:
        request = gateway_pb2.CompleteBatchRequest(calls=calls)
        stream = self.stub.CompleteBatch(request, metadata=token_of())
        outcomes = [outcome async for message in stream for outcome in message.outcomes]
        assert len({outcome.call_id for outcome in outcomes}) == len(outcomes)
        return {outcome.call_id: outcome for outcome in outcomes}

    async def attempt_state(self, attempt_id: str) -> hold_pb2.ResolvedAttempt:
        request = hold_pb2.ResolveAttemptsRequest(attempt_ids=[attempt_id])
        stub = hold_pb2_grpc.HoldServiceStub(self.costs)
        answer = await stub.ResolveAttempts(request, metadata=token_of())
        return answer.attempts[0]

    async def spend(self) -> spend_pb2.SummarizeSpendResponse:
        stub = spend_pb2_grpc.UsageServiceStub(self.costs)
        return await stub.SummarizeSpend(spend_pb2.SummarizeSpendRequest(), metadata=token_of())

    async def limit_spending(self, limit_nano_usd: int, **scope: str) -> None:
        budget = budget_pb2.Budget(
            name="all", limit_nano_usd=limit_nano_usd, scope=budget_pb2.BudgetScope(**scope) if scope else None
        )
        stub = budget_pb2_grpc.BudgetServiceStub(self.costs)
        await stub.CreateBudget(budget_pb2.CreateBudgetRequest(budget=budget), metadata=token_of())


async def refusal_of(awaited: Any) -> tuple[DomainError, error_pb2.CallError]:
    """The error that an RPC ends with, and the CallError among its details (empty where there is none)."""
    try:
        await awaited
    except grpc.aio.AioRpcError as error:
        refused = error_from_rpc(error)
    else:
        raise AssertionError("the RPC worked")
    call_error = error_pb2.CallError()
    for detail in refused.details:
        detail.Unpack(call_error)
    return refused, call_error
