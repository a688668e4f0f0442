"""Identity's public signing keys, asked for over gRPC."""

from __future__ import annotations

import grpc

from llmlab.api.identity.v1 import identity_pb2, identity_pb2_grpc
from services.runtime.auth import FetchKeys, SigningKey


def fetch_signing_keys(channel: grpc.aio.Channel) -> FetchKeys:
    """What a TokenVerifier asks for keys: IdentityService.ListSigningKeys on this channel."""
    stub = identity_pb2_grpc.IdentityServiceStub(channel)

    async def fetch() -> list[SigningKey]:
        answer = await stub.ListSigningKeys(identity_pb2.ListSigningKeysRequest())
        return [SigningKey(key_id=key.key_id, public_key=key.public_key) for key in answer.keys]

    return fetch
