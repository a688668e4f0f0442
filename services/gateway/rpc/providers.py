"""ProviderService."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmlab.api.gateway.v1 import provider_pb2, provider_pb2_grpc
from services.gateway.breaker import Breakers, BreakerState, BreakerView
from services.gateway.catalogue import ConfiguredProvider
from services.gateway.fleet import Fleet
from services.gateway.limits import LimitView, RateLimits
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

    def __init__(self, fleet: Fleet, breakers: Breakers, limits: RateLimits, clock: Clock) -> None:
        self._fleet = fleet
        self._breakers = breakers
        self._limits = limits
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
        breakers = {view.deployment: view for view in self._breakers.views()}
        return provider_pb2.ListProvidersResponse(
            providers=[await self._provider(provider, breakers) for provider in page], next_page_token=token
        )

    async def _provider(
        self, provider: ConfiguredProvider, breakers: Mapping[str, BreakerView]
    ) -> provider_pb2.Provider:
        name = provider.entry.name
        deployments = self._fleet.catalogue.limited(name)
        limits = dict(zip(deployments, await self._limits.views(list(deployments.values())), strict=True))
        called = {deployment for deployment in breakers if deployment.startswith(f"{name}/")}
        states = []
        for deployment in sorted(called | limits.keys())[:_DEPLOYMENTS_MAX]:
            requests, tokens = limits.get(deployment, (None, None))
            breaker = breakers.get(deployment)
            states.append(
                provider_pb2.DeploymentState(
                    model=deployment,
                    circuit_breaker=None if breaker is None else self._breaker(breaker),
                    requests=None if requests is None else _limit(requests),
                    tokens=None if tokens is None else _limit(tokens),
                )
            )
        return provider_pb2.Provider(
            name=name,
            kind=provider.entry.kind,
            configured=not provider.missing_setting,
            missing_setting=provider.missing_setting,
            deployments=states,
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


def _limit(view: LimitView) -> provider_pb2.RateLimit:
    return provider_pb2.RateLimit(per_minute=view.per_minute, burst=view.burst, left=view.left)
