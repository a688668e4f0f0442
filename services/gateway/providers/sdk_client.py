"""The HTTP client that the SDKs are given: they are kept for what they know, and must never send anything."""

from __future__ import annotations

import httpx2


class _NoTransport(httpx2.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        raise AssertionError(f"an SDK tried to send {request.method} {request.url} beside the gateway's own transport")


def client_that_sends_nothing() -> httpx2.AsyncClient:
    """A client without sockets. The one that the SDKs would make loads TLS roots for 75 ms and is never used."""
    return httpx2.AsyncClient(transport=_NoTransport())
