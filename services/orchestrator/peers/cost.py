"""The cost service over gRPC: what became of attempts, and bills that the gateway could not settle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import grpc

from llmlab.api.common.v1 import error_pb2
from llmlab.api.cost.v1 import hold_pb2
from llmlab.api.cost.v1.hold_pb2_grpc import HoldServiceStub
from services.orchestrator.calls import AttemptState, Money, ResolvedAttempt, Settlement
from services.orchestrator.peers.identity import metadata_for
from services.orchestrator.rpc.codec import money_of, reason_name, timestamp_of, usage_message, usage_of
from services.runtime.auth import ServiceTokenMinter
from services.runtime.errors import DomainError, error_of_code
from services.runtime.status import error_from_rpc

_STATES: Final = {
    hold_pb2.ATTEMPT_STATE_TOMBSTONED: AttemptState.TOMBSTONED,
    hold_pb2.ATTEMPT_STATE_HELD: AttemptState.HELD,
    hold_pb2.ATTEMPT_STATE_SETTLED: AttemptState.SETTLED,
    hold_pb2.ATTEMPT_STATE_RELEASED: AttemptState.RELEASED,
    hold_pb2.ATTEMPT_STATE_EXPIRED: AttemptState.EXPIRED,
}
_CODE_NAMES: Final = {code.value[0]: code.name for code in grpc.StatusCode}


class GrpcBills:
    """Implements ports.Bills."""

    def __init__(self, channel: grpc.aio.Channel, minter: ServiceTokenMinter) -> None:
        self._stub = HoldServiceStub(channel)
        self._minter = minter

    async def resolve_attempts(self, project_id: str, hold_ids: Sequence[str]) -> list[ResolvedAttempt]:
        request = hold_pb2.ResolveAttemptsRequest(attempt_ids=hold_ids)
        try:
            answer = await self._stub.ResolveAttempts(request, metadata=metadata_for(self._minter.token(project_id)))
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        return [_resolved(attempt) for attempt in answer.attempts]

    async def settle(self, project_id: str, settlements: Sequence[Settlement]) -> list[Money | DomainError]:
        request = hold_pb2.SettleBatchRequest(
            items=[
                hold_pb2.SettleItem(
                    attempt_id=item.attempt_id,
                    usage=usage_message(item.usage),
                    provider_model=item.provider_model,
                    occurred_at=timestamp_of(item.occurred_at_us),
                    succeeded=item.succeeded,
                )
                for item in settlements
            ]
        )
        try:
            answer = await self._stub.SettleBatch(request, metadata=metadata_for(self._minter.token(project_id)))
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        return [_refusal(each.error) if each.HasField("error") else money_of(each.cost) for each in answer.outcomes]


def _refusal(error: error_pb2.CallError) -> DomainError:
    code = _CODE_NAMES.get(error.grpc_code, "UNKNOWN")
    return error_of_code(code, reason_name(error.reason), error.message)


def _resolved(attempt: hold_pb2.ResolvedAttempt) -> ResolvedAttempt:
    # A state that this release does not know is no reason to dispatch again.
    state = _STATES.get(attempt.state, AttemptState.EXPIRED)
    # Of a held attempt it is the amount reserved, the worst case: nothing is charged yet.
    known = attempt.HasField("cost") and state is not AttemptState.HELD
    cost = money_of(attempt.cost) if known else None
    return ResolvedAttempt(attempt.attempt_id, state, usage_of(attempt.usage), cost)
