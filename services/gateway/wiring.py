"""The gateway, put together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from services.gateway.accounting import Accounting, AccountingLimits
from services.gateway.admission import Admission
from services.gateway.automations import StartedAutomations
from services.gateway.breaker import BreakerRules, Breakers
from services.gateway.cache import AnswerCache, CacheRules, CacheStore, LocalCache
from services.gateway.catalogue import Catalogue, CatalogueError, load_catalogue
from services.gateway.flights import Flights
from services.gateway.limits import LimitRules, LimitStore, LocalLimits, RateLimits
from services.gateway.peers import CostPeer
from services.gateway.pipeline import Pipeline
from services.gateway.providers.automations import AutomationProvider
from services.gateway.providers.embeddings import EmbeddingProvider
from services.gateway.providers.factory import build_provider
from services.gateway.providers.port import Provider
from services.gateway.providers.transport import TransportLimits
from services.gateway.retries import Retries, RetryRules
from services.gateway.reuse import Reuser
from services.gateway.rpc.automations import AutomationServicer
from services.gateway.rpc.providers import ProviderServicer
from services.gateway.rpc.servicer import GatewayServicer
from services.gateway.settings import GatewaySettings
from services.runtime.auth import ServiceTokenMinter, TokenVerifier
from services.runtime.backoff import Backoff
from services.runtime.channel import open_channel
from services.runtime.clock import SYSTEM_CLOCK
from services.runtime.server import RunningServer, serve
from services.runtime.settings import SettingsError
from services.runtime.signing_keys import fetch_signing_keys


@asynccontextmanager
async def build(settings: GatewaySettings, environ: Mapping[str, str] = os.environ) -> AsyncIterator[RunningServer]:
    """The running gateway. `environ` holds the providers' keys under the names that the catalogue gives."""
    try:
        catalogue = load_catalogue(environ, settings.catalogue_file)
    except CatalogueError as error:
        raise SettingsError(f"{settings.variable('catalogue_file')}: {error}") from error
    async with AsyncExitStack() as stack:
        identity = await stack.enter_async_context(open_channel(settings.identity_target, settings))
        verifier = TokenVerifier.from_settings(settings, fetch_signing_keys(identity))
        cost_channel = await stack.enter_async_context(open_channel(settings.cost_target, settings))
        cost = CostPeer(cost_channel, ServiceTokenMinter.from_settings(settings), settings)
        stack.push_async_callback(cost.close)
        accounting = Accounting(cost, SYSTEM_CLOCK, _accounting_limits(settings))
        stack.push_async_callback(accounting.close, settings.cost_timeout_ms / 1_000)
        providers = await stack.enter_async_context(_providers(catalogue, settings))
        admission = Admission(settings.max_concurrent_calls)
        retries = Retries(SYSTEM_CLOCK, _retry_rules(settings))
        limit_store, cache_store = await stack.enter_async_context(_shared_stores(settings))
        limits = RateLimits(limit_store, SYSTEM_CLOCK, _limit_rules(settings))
        cache_rules = CacheRules(settings.cache_ttl_s, settings.cache_answer_max_bytes)
        cache = AnswerCache(cache_store, SYSTEM_CLOCK, cache_rules)
        reuser = Reuser(cache, Flights(settings.cache_answer_max_bytes), SYSTEM_CLOCK)
        breakers = Breakers(SYSTEM_CLOCK, _breaker_rules(settings))
        pipeline, embedding, automating = (
            Pipeline(
                admission=admission,
                reuser=reuser,
                catalogue=catalogue,
                providers=reached,
                retries=retries,
                breakers=breakers,
                limits=limits,
                accounting=accounting,
                clock=SYSTEM_CLOCK,
            )
            for reached in (
                providers,
                {name: EmbeddingProvider(provider) for name, provider in providers.items()},
                {name: AutomationProvider(provider) for name, provider in providers.items()},
            )
        )
        started = StartedAutomations(settings.automations_max)
        stack.push_async_callback(started.close)
        servicers = [
            GatewayServicer(pipeline, embedding, admission, catalogue, settings),
            AutomationServicer(automating, admission, started, settings),
            ProviderServicer(catalogue, breakers, SYSTEM_CLOCK),
        ]
        features = [f"provider:{name}" for name in providers]
        yield await stack.enter_async_context(serve(settings, servicers, verifier=verifier, features=features))


@asynccontextmanager
async def _providers(catalogue: Catalogue, settings: GatewaySettings) -> AsyncIterator[dict[str, Provider]]:
    limits = TransportLimits(
        connect_timeout_s=settings.provider_connect_timeout_s,
        max_connections=settings.provider_connections_max,
        max_answer_bytes=settings.provider_answer_max_bytes,
        proxy=settings.provider_proxy,
    )
    providers: dict[str, Provider] = {}
    async with AsyncExitStack() as stack:
        for configured in catalogue.configured:
            # The SDKs take seconds to import, which would stall whatever else this loop serves.
            provider = await asyncio.to_thread(build_provider, configured, limits, settings.mock_overrides)
            stack.push_async_callback(provider.close)
            providers[configured.entry.name] = provider
        yield providers


def _accounting_limits(settings: GatewaySettings) -> AccountingLimits:
    return AccountingLimits(
        hold_wait_s=settings.hold_wait_ms / 1_000,
        hold_margin_ms=settings.hold_margin_ms,
        later_s=settings.settle_later_s,
        later_max=settings.settle_later_max,
    )


@asynccontextmanager
async def _shared_stores(settings: GatewaySettings) -> AsyncIterator[tuple[LimitStore, CacheStore]]:
    """What replicas share where there is a Redis, and each keeps in memory where there is none."""
    local = LocalLimits(SYSTEM_CLOCK, settings.limit_buckets_max)
    if not settings.redis_url:
        yield local, LocalCache(SYSTEM_CLOCK, settings.cache_max_bytes)
        return
    # Loading the client of Redis takes some 0.3 s: only where it is used.
    from services.gateway.redis_cache import RedisCache
    from services.gateway.redis_limits import RedisLimits
    from services.gateway.redis_link import LinkRules, RedisLink

    async with RedisLink.open(settings.redis_url, LinkRules(settings.redis_timeout_ms / 1_000)) as link:
        limits = RedisLimits(link, local, settings.limit_share_without_redis)
        cache = RedisCache(link)
        try:
            yield limits, cache
        finally:
            await limits.close()
            await cache.close()


def _limit_rules(settings: GatewaySettings) -> LimitRules:
    return LimitRules(
        key_requests_per_minute=settings.key_requests_per_minute,
        key_tokens_per_minute=settings.key_tokens_per_minute,
        key_burst_s=settings.key_burst_s,
        wait_max_s=settings.limit_wait_ms / 1_000,
    )


def _retry_rules(settings: GatewaySettings) -> RetryRules:
    return RetryRules(
        backoff=Backoff(settings.retry_base_ms, settings.retry_cap_ms),
        budget_share=settings.retry_budget_share,
        budget_per_minute=settings.retry_budget_per_minute,
        budget_max=settings.retry_budget_max,
        deployments_max=settings.deployments_max,
    )


def _breaker_rules(settings: GatewaySettings) -> BreakerRules:
    return BreakerRules(
        window_s=settings.breaker_window_s,
        failure_ratio=settings.breaker_failure_ratio,
        calls_min=settings.breaker_calls_min,
        consecutive_failures=settings.breaker_consecutive_failures,
        open_s=settings.breaker_open_s,
        open_max_s=settings.breaker_open_max_s,
        probes_max=settings.breaker_probes_max,
        unanswered_s=settings.breaker_unanswered_s,
        deployments_max=settings.deployments_max,
    )
