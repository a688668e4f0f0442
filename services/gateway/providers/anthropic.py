"""Anthropic's messages API: the SDK for credentials, base URL, headers, shapes and exceptions, our own transport."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

import anthropic
import httpx2
import orjson

from services.gateway.calls import ProviderRequest
from services.gateway.chunks import Event
from services.gateway.failures import Failure, classify
from services.gateway.providers.anthropic_answer import AnthropicDecoder, anthropic_fault
from services.gateway.providers.anthropic_request import anthropic_request, check_seed
from services.gateway.providers.http_call import HttpRequest, stream_http
from services.gateway.providers.sdk_client import client_that_sends_nothing
from services.gateway.providers.transport import HttpTransport

MAX_EVENT_BYTES = 4 * 1024 * 1024


class Anthropic:
    """One Anthropic account, or a server that speaks the same format."""

    def __init__(self, transport: HttpTransport, *, api_key: str, base_url: str | None) -> None:
        """`base_url` None means the SDK's default (ANTHROPIC_BASE_URL, else Anthropic)."""
        client = anthropic.AsyncAnthropic(
            api_key=api_key, base_url=base_url, max_retries=0, http_client=client_that_sends_nothing()
        )
        self._transport = transport
        self._url = str(client.base_url.join("v1/messages"))
        self._headers = {
            name: value
            for name, value in {**client.default_headers, **client.auth_headers}.items()
            if isinstance(value, str)
        }
        self._headers["Accept"] = "text/event-stream, application/json"
        self._errors = AnthropicErrors(client, self._url)

    def stream(self, request: ProviderRequest, deadline: float) -> AsyncGenerator[list[Event], None]:
        """See Provider.stream."""
        check_seed(request.call)
        http_request = HttpRequest(
            url=self._url,
            headers={**self._headers, "Idempotency-Key": request.attempt_id},
            body=orjson.dumps(anthropic_request(request)),
            keep_raw=request.call.include_raw,
        )
        return stream_http(self._transport, http_request, AnthropicDecoder(), self._errors, MAX_EVENT_BYTES)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()


class AnthropicErrors:
    """Failures through the SDK's exceptions: what the SDK would raise is raised, and read by one table."""

    def __init__(self, client: anthropic.AsyncAnthropic, url: str) -> None:
        self._client = client
        self._request = httpx2.Request("POST", url)

    def status_failure(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        """The failure of an answer with an error status."""
        response = httpx2.Response(status, headers=dict(headers), content=body, request=self._request)
        # Private, but the one place where the SDK turns an answer into the exception that it would raise.
        error = self._client._make_status_error_from_response(response)  # noqa: SLF001
        return anthropic_failure(error)

    def connection_failure(self, message: str, *, dispatched: bool) -> Failure:
        """The failure of a connection."""
        error = anthropic.APIConnectionError(message=message, request=self._request)
        return anthropic_failure(error, dispatched=dispatched)


def anthropic_failure(error: anthropic.APIError, *, dispatched: bool = True) -> Failure:
    """The failure that an exception of the SDK means."""
    if isinstance(error, anthropic.APIStatusError):
        return classify(anthropic_fault(error.status_code, error.body, error.response.headers))
    message = f"the connection to the provider failed: {error.message}; check its base URL and the network"
    reason = "PROVIDER_TIMEOUT" if isinstance(error, anthropic.APITimeoutError) else "NETWORK_ERROR"
    return Failure(reason, message, dispatched=dispatched)
