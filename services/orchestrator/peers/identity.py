"""Identity over gRPC, and the tokens with which runs act for those who started them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import grpc

from llmlab.api.identity.v1 import identity_pb2 as pb
from llmlab.api.identity.v1.identity_pb2_grpc import IdentityServiceStub
from services.orchestrator.ports import RunCredential
from services.runtime.auth import ServiceTokenMinter
from services.runtime.channel import Metadata, call_metadata
from services.runtime.clock import Clock
from services.runtime.status import error_from_rpc

_TOKENS_MAX: Final = 10_000
_RENEW_AFTER: Final = 2 / 3
"""A token is renewed when this share of its life is over, so that a call which starts now never carries a stale one."""


def metadata_for(token: str) -> Metadata:
    """The metadata that shows a token; nothing without one (authentication is off)."""
    return call_metadata(token) if token else ()


class GrpcIdentity:
    """Implements ports.Identity."""

    def __init__(self, channel: grpc.aio.Channel, minter: ServiceTokenMinter) -> None:
        self._stub = IdentityServiceStub(channel)
        self._minter = minter

    async def create_delegation(self, token: str, purpose: str) -> str:
        try:
            answer = await self._stub.CreateDelegation(
                pb.CreateDelegationRequest(purpose=purpose), metadata=metadata_for(token)
            )
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        return answer.delegation_id

    async def revoke_delegation(self, project_id: str, delegation_id: str) -> None:
        request = pb.RevokeDelegationRequest(delegation_id=delegation_id)
        try:
            await self._stub.RevokeDelegation(request, metadata=metadata_for(self._minter.token(project_id)))
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error


class DelegatedTokens:
    """Access tokens of delegations, kept until two thirds of their life are over."""

    def __init__(self, channel: grpc.aio.Channel, minter: ServiceTokenMinter, clock: Clock) -> None:
        self._stub = IdentityServiceStub(channel)
        self._minter = minter
        self._clock = clock
        self._tokens: OrderedDict[str, tuple[float, str]] = OrderedDict()

    async def token(self, credential: RunCredential) -> str:
        """A token that is good for some time. Raises DomainError where there is none to be had."""
        kept = self._tokens.get(credential.delegation_id)
        if kept is not None and self._clock.monotonic_s() < kept[0]:
            return kept[1]
        metadata = metadata_for(self._minter.token(credential.project_id))
        request = pb.IssueDelegatedTokenRequest(delegation_id=credential.delegation_id)
        asked_s = self._clock.monotonic_s()
        try:
            answer = await self._stub.IssueDelegatedToken(request, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        expires = answer.tokens.access_expires_at
        life_s = expires.seconds - self._clock.now_us() / 1_000_000
        self._tokens[credential.delegation_id] = (asked_s + life_s * _RENEW_AFTER, answer.tokens.access_token)
        self._tokens.move_to_end(credential.delegation_id)
        if len(self._tokens) > _TOKENS_MAX:
            self._tokens.popitem(last=False)
        return answer.tokens.access_token

    def forget(self, credential: RunCredential) -> None:
        """A peer did not accept the token: get another one next time."""
        self._tokens.pop(credential.delegation_id, None)
