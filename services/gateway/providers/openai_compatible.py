"""OpenAI, and every server that speaks its chat-completions or responses format, by base URL.

The SDK supplies credentials, base URL, default headers, request shapes and exceptions; the bytes go over our own
transport, and the SDK's retries are off.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

import httpx2
import openai
import orjson

from services.gateway.calls import ProviderRequest
from services.gateway.chunks import Event
from services.gateway.failures import Failure, classify
from services.gateway.providers.embeddings import EmbeddingDecoder, openai_embedding_request, openai_embeddings
from services.gateway.providers.http_call import Decoder, HttpRequest, stream_http
from services.gateway.providers.json_fields import value_of
from services.gateway.providers.openai_answer import OpenAiDecoder, openai_fault
from services.gateway.providers.openai_request import OpenAiDialect, openai_request
from services.gateway.providers.responses_answer import ResponsesDecoder
from services.gateway.providers.responses_request import responses_request
from services.gateway.providers.sdk_client import client_that_sends_nothing
from services.gateway.providers.transport import HttpTransport

MAX_EVENT_BYTES = 4 * 1024 * 1024
_PATHS = {"chat": "chat/completions", "responses": "responses"}


class OpenAiCompatible:
    """One provider that speaks one of the two formats."""

    def __init__(self, transport: HttpTransport, *, api_key: str, base_url: str | None, dialect: OpenAiDialect) -> None:
        """`base_url` None means the SDK's default (OPENAI_BASE_URL, else OpenAI). Keyless servers get an empty key."""
        client = openai.AsyncOpenAI(
            api_key=api_key or "none", base_url=base_url, max_retries=0, http_client=client_that_sends_nothing()
        )
        self._transport = transport
        self._dialect = dialect
        self._url = str(client.base_url.join(_PATHS[dialect.api]))
        self._embeddings_url = str(client.base_url.join("embeddings"))
        self._headers = {
            name: value
            for name, value in {**client.default_headers, **client.auth_headers}.items()
            if isinstance(value, str)
        }
        self._headers["Accept"] = "text/event-stream, application/json"
        self._errors = OpenAiErrors(client, self._url)

    def stream(self, request: ProviderRequest, deadline: float) -> AsyncGenerator[list[Event], None]:
        """See Provider.stream."""
        decoder: Decoder
        if self._dialect.api == "responses":
            body, decoder = responses_request(request), ResponsesDecoder()
        else:
            body = openai_request(request, self._dialect)
            decoder = OpenAiDecoder(names_finish=self._dialect.names_finish)
        http_request = HttpRequest(
            url=self._url,
            headers={**self._headers, "Idempotency-Key": request.attempt_id},
            body=orjson.dumps(body),
            keep_raw=request.call.include_raw,
        )
        return stream_http(self._transport, http_request, decoder, self._errors, MAX_EVENT_BYTES)

    def embed(self, request: ProviderRequest, deadline: float) -> AsyncGenerator[list[Event], None]:
        """See Embedder.embed."""
        http_request = HttpRequest(
            url=self._embeddings_url,
            headers={**self._headers, "Idempotency-Key": request.attempt_id},
            body=orjson.dumps(openai_embedding_request(request)),
        )
        decoder = EmbeddingDecoder(request.call, openai_embeddings)
        return stream_http(self._transport, http_request, decoder, self._errors, MAX_EVENT_BYTES)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()


class OpenAiErrors:
    """Failures through the SDK's exceptions: what the SDK would raise is raised, and read by one table."""

    def __init__(self, client: openai.AsyncOpenAI, url: str) -> None:
        self._client = client
        self._request = httpx2.Request("POST", url)

    def status_failure(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        """The failure of an answer with an error status."""
        response = httpx2.Response(status, headers=dict(headers), content=body, request=self._request)
        # Private, but the one place where the SDK turns an answer into the exception that it would raise.
        error = self._client._make_status_error_from_response(response)  # noqa: SLF001
        return openai_failure(error)

    def connection_failure(self, message: str, *, dispatched: bool) -> Failure:
        """The failure of a connection."""
        return openai_failure(openai.APIConnectionError(message=message, request=self._request), dispatched=dispatched)


def openai_failure(error: openai.APIError, *, dispatched: bool = True) -> Failure:
    """The failure that an exception of the SDK means."""
    if isinstance(error, openai.APIStatusError):
        return classify(openai_fault(error.status_code, value_of(error.response.content), error.response.headers))
    message = f"the connection to the provider failed: {error.message}; check its base URL and the network"
    reason = "PROVIDER_TIMEOUT" if isinstance(error, openai.APITimeoutError) else "NETWORK_ERROR"
    return Failure(reason, message, dispatched=dispatched)
