"""Calls for embeddings, in the formats of OpenAI and Gemini. As many vectors as texts, in their order, or an error.

References: https://platform.openai.com/docs/api-reference/embeddings, https://ai.google.dev/api/embeddings
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import AsyncGenerator, Callable
from typing import Any, NamedTuple

from services.gateway.calls import Call, ProviderRequest
from services.gateway.chunks import Event, Finished, FinishReason, Started, UsageSoFar, Vectors
from services.gateway.failures import CallFailed, Failure, refused
from services.gateway.providers.json_fields import count_of, object_of, text_of
from services.gateway.providers.port import Embedder, Provider
from services.gateway.providers.sse import SseEvent
from services.gateway.usage import TokenUsage


class Embeddings(NamedTuple):
    """What an answer says, unchecked. `input_tokens` is None where the provider counts none."""

    vectors: list[Any]
    input_tokens: int | None
    model: str = ""


class EmbeddingProvider:
    """A provider as the pipeline takes it, for calls for embeddings."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def stream(self, request: ProviderRequest, deadline: float) -> AsyncGenerator[list[Event], None]:
        """See Provider.stream. Raises CallFailed(INVALID_FIELD), not dispatched, where the provider embeds nothing."""
        if not isinstance(self._provider, Embedder):
            raise refused("INVALID_FIELD", "this provider has no models for embeddings", field="model")
        return self._provider.embed(request, deadline)

    async def close(self) -> None:
        """Nothing of its own to close."""


class EmbeddingDecoder:
    """Reads one answer and checks that it is one: a vector short, or of another length, would be silently wrong."""

    def __init__(self, call: Call, read: Callable[[dict[str, Any]], Embeddings]) -> None:
        self.done = False
        self._call = call
        self._read = read

    def stream_event(self, event: SseEvent, into: list[Event]) -> None:
        """Embeddings are not streamed."""
        raise _wrong("a stream")

    def whole_answer(self, body: Any) -> list[Event]:
        """The events of the answer. Raises CallFailed(PROVIDER_ERROR) for one that is not what was asked for."""
        if not isinstance(body, dict):
            raise _wrong("no object")
        try:
            answer = self._read(body)
            vectors = tuple(_vector(values) for values in answer.vectors)
        except (KeyError, TypeError, ValueError, struct.error) as error:
            raise _wrong(f"{type(error).__name__}: {error}") from error
        self._check(vectors)
        events: list[Event] = [Started(answer.model, streamed=False), Vectors(vectors)]
        if answer.input_tokens is not None:
            events.append(UsageSoFar(TokenUsage(input_tokens=answer.input_tokens)))
        self.done = True
        return [*events, Finished(FinishReason.STOP)]

    def _check(self, vectors: tuple[tuple[float, ...], ...]) -> None:
        asked = len(self._call.texts)
        if len(vectors) != asked:
            raise _wrong(f"{len(vectors)} vectors for {asked} texts")
        lengths = {len(vector) for vector in vectors}
        if len(lengths) != 1 or lengths == {0} or lengths - {self._call.dimensions or next(iter(lengths))}:
            raise _wrong(f"vectors of {sorted(lengths)} dimensions, asked for {self._call.dimensions or 'any'}")
        if not all(math.isfinite(value) for vector in vectors for value in vector):
            raise _wrong("values that are not finite")


def openai_embedding_request(request: ProviderRequest) -> dict[str, Any]:
    """The request's JSON."""
    body: dict[str, Any] = {"model": request.model, "input": list(request.call.texts), "encoding_format": "float"}
    if request.call.dimensions:
        body["dimensions"] = request.call.dimensions
    return body


def openai_embeddings(body: dict[str, Any]) -> Embeddings:
    """What the answer says; the order is that of the indexes, which servers need not send in order."""
    items = body["data"]
    indexes = [item.get("index", position) for position, item in enumerate(items)]
    if sorted(indexes) != list(range(len(items))):
        raise ValueError(f"the indexes are {indexes[:8]}")
    ordered = sorted(zip(indexes, items, strict=True), key=lambda pair: pair[0])
    usage = object_of(body.get("usage"))
    # Some servers (Voyage) count the total alone, which is all input.
    tokens = usage.get("prompt_tokens", usage.get("total_tokens"))
    return Embeddings([item["embedding"] for _, item in ordered], _count(tokens), text_of(body.get("model")))


def gemini_embedding_request(request: ProviderRequest, resource: str) -> dict[str, Any]:
    """The request's JSON: each text is a request that names the model again."""
    size = {"outputDimensionality": request.call.dimensions} if request.call.dimensions else {}
    texts = request.call.texts
    return {"requests": [{"model": resource, "content": {"parts": [{"text": text}]}, **size} for text in texts]}


def gemini_embeddings(body: dict[str, Any]) -> Embeddings:
    """What the answer says; most have no usage. An answer to a single text has it without the list."""
    tokens = object_of(body.get("usageMetadata")).get("promptTokenCount")
    items = body["embeddings"] if "embeddings" in body else [body["embedding"]]
    return Embeddings([item["values"] for item in items], _count(tokens))


def _vector(values: Any) -> tuple[float, ...]:
    """The numbers, or the 32-bit ones that are in a text in base64: some servers send no other form."""
    if isinstance(values, str):
        data = base64.b64decode(values, validate=True)
        return struct.unpack(f"<{len(data) // 4}f", data)
    return tuple(float(value) for value in values)


def _count(tokens: Any) -> int | None:
    return None if tokens is None else count_of(tokens)


def _wrong(what: str) -> CallFailed:
    message = f"the provider's answer is not the embeddings asked for: {what[:200]}"
    return CallFailed(Failure("PROVIDER_ERROR", message, dispatched=True))
