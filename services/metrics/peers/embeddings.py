"""Embeddings by the gateway, with the caller's own credential."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import grpc

from llmlab.api.gateway.v1 import gateway_pb2 as pb
from llmlab.api.gateway.v1.gateway_pb2_grpc import GatewayServiceStub
from services.metrics.embedding import Embedded
from services.metrics.peers.judge import ID_USED
from services.runtime.channel import call_metadata
from services.runtime.errors import DomainError
from services.runtime.status import error_from_rpc

_NOT_SENT: Final = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "FAILED_PRECONDITION"}) | {
    "RESOURCE_EXHAUSTED"
}
"""Codes of calls that no provider has been paid for."""


class GrpcEmbeddings:
    """Implements embedding.Embeddings. Holds, budgets and limits are the gateway's: it sees who asks."""

    def __init__(self, channel: grpc.aio.Channel, ids_max: int) -> None:
        """`ids_max` is how many ids, so paid calls at the most, one call of a run may use up."""
        self._stub = GatewayServiceStub(channel)
        self._ids_max = ids_max

    async def embed(self, token: str, model: str, texts: Sequence[str], *, run_id: str, call_id: str) -> Embedded:
        """See Embeddings.embed. Cancelling it stops the call."""
        request = pb.EmbedRequest(model=model, texts=texts, run_id=run_id, tags={"feature": "scorer"})
        for ordinal in range(1, self._ids_max + 1):
            request.call_id = f"{call_id}.{ordinal}" if call_id else ""
            try:
                answer = await self._stub.Embed(request, metadata=call_metadata(token) if token else ())
            except grpc.aio.AioRpcError as error:
                refusal = error_from_rpc(error)
                if not call_id or refusal.reason not in ID_USED:
                    return _failed(refusal)
            except DomainError as error:
                return _failed(error)
            else:
                return _embedded(answer, len(texts))
        return Embedded(failure="CALL_ALREADY_DISPATCHED: the call was made before, and its answer is lost")


def _failed(error: DomainError) -> Embedded:
    if error.code == "UNAUTHENTICATED":
        raise error
    return Embedded(failure=f"{error.reason}: {error.message}", unpriced_calls=int(error.code not in _NOT_SENT))


def _embedded(answer: pb.EmbedResponse, count: int) -> Embedded:
    unpriced = answer.cost.unpriced_calls if answer.HasField("cost") else 1
    vectors = [each.values for each in answer.embeddings]
    failure = "" if len(vectors) == count else f"the gateway gave {len(vectors)} vectors for {count} texts"
    return Embedded(vectors, failure, answer.cost.cost_nano_usd, unpriced)
