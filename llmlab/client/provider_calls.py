"""Calls about the gateway's providers."""

from __future__ import annotations

from collections.abc import AsyncIterator

from llmlab.api.gateway.v1 import provider_pb2
from llmlab.api.gateway.v1.provider_pb2_grpc import ProviderServiceStub
from llmlab.client.connection import Connection


class ProviderCalls(Connection):
    """How the providers are doing."""

    async def list_providers(self) -> AsyncIterator[provider_pb2.Provider]:
        """Yields the providers by name, with the state of their deployments in the replica that answers."""
        stub = ProviderServiceStub(self._channel("gateway"))
        async for page in self._pages("gateway", stub.ListProviders, provider_pb2.ListProvidersRequest()):
            for provider in page.providers:
                yield provider
