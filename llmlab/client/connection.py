"""What the calls to all services share: channels, the access token, deadlines, errors, pages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Protocol, Self, TypeVar, cast

import grpc
from google.protobuf.message import Message

from llmlab.api.identity.v1 import identity_pb2
from llmlab.api.identity.v1.identity_pb2_grpc import IdentityServiceStub
from llmlab.client.channels import Tls, open_channel
from llmlab.client.endpoints import Endpoints
from llmlab.client.errors import AuthenticationError, LlmlabError, NetworkError, RateLimitError, error_from_rpc
from llmlab.client.tracing import rpc_span

UNARY_TIMEOUT_S = 30.0
STREAM_TIMEOUT_S = 3600.0
# A token is renewed when this much of its life is left, so that it does not expire on the way.
RENEW_BEFORE_S = 60.0
WATCH_ATTEMPTS_MAX = 30
WATCH_BACKOFF_S = 0.2
WATCH_BACKOFF_S_MAX = 5.0

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)


class _Event(Protocol):
    @property
    def sequence(self) -> int: ...


EventT = TypeVar("EventT", bound=_Event)


class _PageRequest(Protocol):
    page_token: str


class _Page(Protocol):
    next_page_token: str


class Connection:
    """Open channels to the services, and the credential that is sent along.

    Args:
        endpoints: Where the services are.
        api_key: Exchanged for access tokens, which are renewed before they expire.
        access_token: Used as it is, instead of an API key.
        tls: Whom to trust, where the services use TLS.
    """

    def __init__(
        self, endpoints: Endpoints, *, api_key: str = "", access_token: str = "", tls: Tls | None = None
    ) -> None:
        self.endpoints = endpoints
        self._tls = tls
        self._api_key = api_key
        self._access_token = access_token
        self._renew_at_s = float("inf") if access_token else 0.0
        self._renewal = asyncio.Lock()
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes all channels; calls under way are cancelled."""
        channels, self._channels = list(self._channels.values()), {}
        await asyncio.gather(*(channel.close() for channel in channels))

    def _channel(self, service: str) -> grpc.aio.Channel:
        channel = self._channels.get(service)
        if channel is None:
            channel = self._channels[service] = open_channel(getattr(self.endpoints, service), self._tls)
        return channel

    async def access_token(self) -> str:
        """Returns a valid access token, renewing it where needed; "" without a credential.

        Raises:
            AuthenticationError: The API key is not accepted.
        """
        if time.monotonic() < self._renew_at_s or not self._api_key:
            return self._access_token
        async with self._renewal:  # whoever waited here finds the token renewed
            if time.monotonic() >= self._renew_at_s:
                await self._exchange_key()
        return self._access_token

    async def _exchange_key(self) -> None:
        request = identity_pb2.ExchangeApiKeyRequest(api_key=self._api_key)
        exchange = IdentityServiceStub(self._channel("identity")).ExchangeApiKey
        with rpc_span(request) as trace:
            try:
                response = await exchange(request, timeout=UNARY_TIMEOUT_S, metadata=trace)
            except grpc.aio.AioRpcError as error:
                raise error_from_rpc(error, self.endpoints.identity) from error
        self._access_token = response.tokens.access_token
        life_s = response.tokens.access_expires_at.ToNanoseconds() / 1e9 - time.time()
        self._renew_at_s = time.monotonic() + max(life_s - RENEW_BEFORE_S, life_s / 2)

    async def _metadata(self) -> tuple[tuple[str, str], ...]:
        token = await self.access_token()
        return (("authorization", f"Bearer {token}"),) if token else ()

    async def _unary(
        self,
        service: str,
        method: grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        timeout_s: float = UNARY_TIMEOUT_S,
    ) -> ResponseT:
        with rpc_span(request) as trace:
            for may_renew in (True, False):
                try:
                    metadata = (*await self._metadata(), *trace)
                    return await method(request, timeout=timeout_s, metadata=metadata)
                except grpc.aio.AioRpcError as error:
                    failure = error_from_rpc(error, getattr(self.endpoints, service))
                    if not (may_renew and self._renewable(failure)):
                        raise failure from error
        raise AssertionError("unreachable: the second round returns or raises")

    def _renewable(self, failure: Exception) -> bool:
        """Says whether a fresh token may help, and forgets the old one; the refused call had no effect."""
        if isinstance(failure, AuthenticationError) and failure.reason == "CREDENTIAL_EXPIRED" and self._api_key:
            self._renew_at_s = 0.0
            return True
        return False

    async def _stream(
        self,
        service: str,
        method: grpc.aio.UnaryStreamMultiCallable[RequestT, ResponseT],
        request: RequestT,
        timeout_s: float = STREAM_TIMEOUT_S,
    ) -> AsyncGenerator[ResponseT, None]:
        with rpc_span(request) as trace:
            call = method(request, timeout=timeout_s, metadata=(*await self._metadata(), *trace))
            try:
                async for message in call:
                    yield message
            except grpc.aio.AioRpcError as error:
                raise error_from_rpc(error, getattr(self.endpoints, service)) from error
            finally:
                call.cancel()  # without effect on a call that has ended

    async def _watched(
        self,
        service: str,
        method: grpc.aio.UnaryStreamMultiCallable[RequestT, ResponseT],
        request_after: Callable[[int], RequestT],
        events_of: Callable[[ResponseT], Iterable[EventT]],
        after_sequence: int,
    ) -> AsyncGenerator[EventT, None]:
        """Yields the events of a watch in order, each once; a watch that is cut is resumed behind the last event.

        Args:
            service: Where the watch is.
            method: The RPC.
            request_after: Makes the request for the events after a sequence.
            events_of: The events of a message.
            after_sequence: Where to begin.

        Raises:
            LlmlabError: The watch is refused, or nobody answered 30 times in a row.
        """
        failures = 0
        while True:
            try:
                async with aclosing(self._stream(service, method, request_after(after_sequence))) as messages:
                    async for message in messages:
                        failures = 0
                        for event in events_of(message):
                            after_sequence = event.sequence
                            yield event
                return
            except LlmlabError as error:
                failures += 1
                await self._pause_before_resuming(error, failures)

    async def _pause_before_resuming(self, error: LlmlabError, failures: int) -> None:
        """Waits before a stream that was cut is taken up; raises the error where that would not help."""
        if failures > WATCH_ATTEMPTS_MAX or not (_resumable(error) or self._renewable(error)):
            raise error
        await asyncio.sleep(min(WATCH_BACKOFF_S * 2**failures, WATCH_BACKOFF_S_MAX))

    async def _pages(
        self, service: str, method: grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT], request: RequestT
    ) -> AsyncIterator[ResponseT]:
        """Yields page after page; `request` is of a paged RPC and its `page_token` is changed."""
        while True:
            page = await self._unary(service, method, request)
            yield page
            token = cast("_Page", page).next_page_token
            if not token:
                return
            cast("_PageRequest", request).page_token = token


def _resumable(error: LlmlabError) -> bool:
    """Says whether a cut watch can go on: the network, a full server, or the deadline of a long stream.

    The failure of a model call is what a watch had to tell, not a cut.
    """
    if error.call is not None:
        return False
    return isinstance(error, NetworkError | RateLimitError) or error.code in ("DEADLINE_EXCEEDED", "CANCELLED")
