"""ProviderService."""

from __future__ import annotations

from typing import Any

from llmlab.api.gateway.v1 import provider_pb2, provider_pb2_grpc
from services.gateway.breaker import Breakers, BreakerState, BreakerView
from services.gateway.catalogue import ConfiguredProvider
from services.gateway.fleet import Fleet
from services.runtime.clock import Clock
from services.runtime.pages import decode_page_token, encode_page_token, filter_fingerprint

_PAGE_SIZE_DEFAULT = 100
_DEPLOYMENTS_MAX = 1_000
_STATES = {
    BreakerState.CLOSED: provider_pb2.CIRCUIT_STATE_CLOSED,
    BreakerState.OPEN: provider_pb2.CIRCUIT_STATE_OPEN,
    BreakerState.HALF_OPEN: provider_pb2.CIRCUIT_STATE_HALF_OPEN,
}


class ProviderServicer(provider_pb2_grpc.ProviderServiceServicer):
    """What this replica knows of its providers."""

    def __init__(self, fleet: Fleet, breakers: Breakers, clock: Clock) -> None:
        self._fleet = fleet
        self._breakers = breakers
        self._clock = clock

    async def ListProviders(
        self, request: provider_pb2.ListProvidersRequest, context: Any
    ) -> provider_pb2.ListProvidersResponse:
        """List the providers by name, with the state of what was called."""
        fingerprint = filter_fingerprint("ListProviders")
        after = decode_page_token(fingerprint, request.page_token)
        providers = self._fleet.catalogue.providers
        if after is not None:
            providers = [provider for provider in providers if provider.entry.name > str(after[0])]
        size = request.page_size or _PAGE_SIZE_DEFAULT
        page = providers[:size]
        token = encode_page_token(fingerprint, [page[-1].entry.name]) if len(providers) > size else ""
        breakers = self._breakers.views()
        return provider_pb2.ListProvidersResponse(
            providers=[self._provider(provider, breakers) for provider in page], next_page_token=token
        )

    def _provider(self, provider: ConfiguredProvider, breakers: list[BreakerView]) -> provider_pb2.Provider:
        name = provider.entry.name
        own = [breaker for breaker in breakers if breaker.deployment.startswith(f"{name}/")]
        return provider_pb2.Provider(
            name=name,
            kind=provider.entry.kind,
            configured=not provider.missing_setting,
            missing_setting=provider.missing_setting,
            deployments=[
                provider_pb2.DeploymentState(model=breaker.deployment, circuit_breaker=self._breaker(breaker))
                for breaker in own[:_DEPLOYMENTS_MAX]
            ],
        )

    def _breaker(self, view: BreakerView) -> provider_pb2.CircuitBreaker:
        breaker = provider_pb2.CircuitBreaker(
            state=_STATES[view.state],
            calls=view.calls,
            failed_calls=view.failures,
            error_rate=view.failures / view.calls if view.calls else 0.0,
        )
        if view.probe_in_ms:
            breaker.next_probe_at.FromMicroseconds(self._clock.now_us() + view.probe_in_ms * 1_000)
        return breaker
