"""Google's Gemini API in its native format, over our own transport. No SDK is behind it: the format is plain JSON.

Reference: https://ai.google.dev/api/generate-content
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from urllib.parse import quote, urlsplit

import orjson

from services.gateway.calls import ProviderRequest
from services.gateway.chunks import Event
from services.gateway.providers.embeddings import EmbeddingDecoder, gemini_embedding_request, gemini_embeddings
from services.gateway.providers.gemini_answer import GeminiDecoder
from services.gateway.providers.gemini_errors import GeminiErrors
from services.gateway.providers.gemini_request import gemini_request
from services.gateway.providers.http_call import HttpRequest, stream_http
from services.gateway.providers.transport import HttpTransport

DEFAULT_BASE_URL = "https://generativelanguage.googleapis.com"
API_VERSION = "v1beta"
# One event holds a whole part; a picture that a model draws can be one.
MAX_EVENT_BYTES = 16 * 1024 * 1024


class Gemini:
    """One Google account, or a server that speaks the same format."""

    def __init__(self, transport: HttpTransport, *, api_key: str, base_url: str | None) -> None:
        """A `base_url` without a path gets the API's version; one with a path (Vertex AI) is taken as it is."""
        base = (base_url or DEFAULT_BASE_URL).rstrip("/")
        self._base_url = base if urlsplit(base).path else f"{base}/{API_VERSION}"
        self._transport = transport
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json",
            "x-goog-api-key": api_key,
        }
        self._errors = GeminiErrors()

    def stream(self, request: ProviderRequest, deadline: float) -> AsyncGenerator[list[Event], None]:
        """See Provider.stream."""
        http_request = HttpRequest(
            url=f"{self._base_url}/{model_path(request.model)}:streamGenerateContent?alt=sse",
            headers={**self._headers, "Idempotency-Key": request.attempt_id},
            body=orjson.dumps(gemini_request(request)),
            keep_raw=request.call.include_raw,
        )
        return stream_http(self._transport, http_request, GeminiDecoder(), self._errors, MAX_EVENT_BYTES)

    def embed(self, request: ProviderRequest, deadline: float) -> AsyncGenerator[list[Event], None]:
        """See Embedder.embed."""
        resource = model_path(request.model)
        http_request = HttpRequest(
            url=f"{self._base_url}/{resource}:batchEmbedContents",
            headers={**self._headers, "Idempotency-Key": request.attempt_id},
            body=orjson.dumps(gemini_embedding_request(request, resource)),
        )
        decoder = EmbeddingDecoder(request.call, gemini_embeddings)
        return stream_http(self._transport, http_request, decoder, self._errors, MAX_EVENT_BYTES)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()


def model_path(model: str) -> str:
    """The resource of a model; names with a slash ("tunedModels/mine") are resources already."""
    return quote(model if "/" in model else f"models/{model}", safe="/")
