"""Calls for embeddings between the wire and the domain."""

from __future__ import annotations

from collections.abc import Sequence

from llmlab.api.gateway.v1 import gateway_pb2
from services.gateway.attempts import Completion
from services.gateway.calls import Call, Message, Parameters, TextPart
from services.gateway.chunks import Read, Vectors
from services.gateway.rpc.encode import encode_completion
from services.runtime.ids import new_id


class KeptVectors:
    """Takes the vectors out of the events of one call."""

    def __init__(self) -> None:
        self.vectors: Sequence[Sequence[float]] = ()

    async def emit(self, read: Read) -> None:
        """See chunks.Emit."""
        for event in read.events:
            if isinstance(event, Vectors):
                self.vectors = event.vectors


def decode_embed(
    request: gateway_pb2.EmbedRequest, *, default_timeout_ms: int, retries: int, retry_ambiguous: bool, limit_ms: float
) -> Call:
    """The request as a call: the texts are the parts of one message, and no output is held for."""
    return Call(
        call_id=request.call_id or new_id("call"),
        model=request.model,
        messages=(Message("user", tuple(TextPart(text) for text in request.texts)),),
        timeout_ms=max(1, int(min(request.timeout_ms or default_timeout_ms, limit_ms))),
        parameters=Parameters(max_output_tokens=0),
        retries_max=retries,
        retry_ambiguous=retry_ambiguous,
        dispatch_nonce=request.dispatch_nonce or new_id("nonce"),
        run_id=request.run_id,
        tags=dict(request.tags),
        dimensions=request.dimensions,
    )


def encode_embeddings(completion: Completion, vectors: Sequence[Sequence[float]]) -> gateway_pb2.EmbedResponse:
    """The vectors, and what they took."""
    told = encode_completion(completion)
    return gateway_pb2.EmbedResponse(
        call_id=told.call_id,
        model=told.model,
        provider_model=told.provider_model,
        embeddings=[gateway_pb2.Embedding(values=vector) for vector in vectors],
        usage=told.usage,
        cost=told.cost if told.HasField("cost") else None,
        timing=told.timing,
        attempts=told.attempts,
    )
