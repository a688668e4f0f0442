"""The gateway, put together."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from services.gateway.accounting import Accounting, AccountingLimits
from services.gateway.admission import Admission
from services.gateway.automations import SharedAutomations, StartedAutomations
from services.gateway.breaker import BreakerRules, Breakers
from services.gateway.cache import AnswerCache, CacheRules, CacheStore, LocalCache
from services.gateway.catalogue import ConfiguredProvider, load_catalogue
from services.gateway.catalogue_file import CatalogueError
from services.gateway.catalogue_watch import CatalogueWatch
from services.gateway.chat.sessions import ChatStore
from services.gateway.chat.turns import ChatRules, ChatTurns, lost_outcome
from services.gateway.cost_port import CostPort
from services.gateway.fleet import Fleet
from services.gateway.flights import Flights
from services.gateway.hold_policy import HoldPolicy
from services.gateway.late_bills import LateBills
from services.gateway.limit_figures import LimitFigures, watched_limits
from services.gateway.limits import LimitRules, LimitStore, LocalLimits, RateLimits
from services.gateway.no_accounting import NoAccounting
from services.gateway.peers import CostPeer
from services.gateway.pipeline import Pipeline
from services.gateway.providers.automations import AutomationProvider
from services.gateway.providers.embeddings import EmbeddingProvider
from services.gateway.providers.factory import build_provider
from services.gateway.providers.port import Provider
from services.gateway.providers.transport import TransportLimits
from services.gateway.retries import Retries, RetryRules
from services.gateway.reuse import Reuser
from services.gateway.routing import Router
from services.gateway.rpc.automations import AutomationServicer
from services.gateway.rpc.chat import ChatServicer, seal_outcome
from services.gateway.rpc.providers import ProviderServicer
from services.gateway.rpc.servicer import GatewayServicer
from services.gateway.settings import GatewaySettings
from services.gateway.store.journal import BillJournal
from services.gateway.traced import TracedCost, TracedDispatcher, TracedPipeline
from services.runtime import telemetry
from services.runtime.auth import ServiceTokenMinter, TokenVerifier
from services.runtime.backoff import Backoff
from services.runtime.channel import open_channel
from services.runtime.clock import SYSTEM_CLOCK, Clock
from services.runtime.hints import Hints
from services.runtime.server import RunningServer, serve
from services.runtime.settings import SettingsError
from services.runtime.shared_hints import open_hints
from services.runtime.signing_keys import fetch_signing_keys
from services.runtime.tracing import open_tracing

if TYPE_CHECKING:
    from services.runtime.spans import Tracer

_log = logging.getLogger(__name__)


@asynccontextmanager
async def build(settings: GatewaySettings, environ: Mapping[str, str] = os.environ) -> AsyncIterator[RunningServer]:
    """The running gateway. `environ` holds the providers' keys under the names that the catalogue gives."""
    async with AsyncExitStack() as stack:
        tracer = stack.enter_context(open_tracing(settings))
        fleet, watch = await stack.enter_async_context(_fleet(settings, environ))
        identity = await stack.enter_async_context(open_channel(settings.identity_target, settings, tracer))
        verifier = TokenVerifier.from_settings(settings, fetch_signing_keys(identity))
        accounting = await stack.enter_async_context(_accounting(settings, tracer))
        admission = Admission(settings.max_concurrent_calls)
        stack.enter_context(telemetry.gauge("calls_in_progress", lambda: admission.under_way, service=settings.service))
        stack.enter_context(
            telemetry.gauge(
                "limit_used_share", lambda: admission.under_way / settings.max_concurrent_calls, limit="calls"
            )
        )
        limit_store, cache_store, breakers = await stack.enter_async_context(_shared_stores(settings))
        limits = RateLimits(limit_store, SYSTEM_CLOCK, _limit_rules(settings))
        if settings.telemetry:
            figures = LimitFigures(limits, fleet, settings.limit_figures_max)
            await stack.enter_async_context(watched_limits(figures, settings.limit_figures_every_s))
        cache_rules = CacheRules(settings.cache_ttl_s, settings.cache_answer_max_bytes)
        cache = AnswerCache(cache_store, SYSTEM_CLOCK, cache_rules)
        reuser = Reuser(cache, Flights(settings.cache_answer_max_bytes), SYSTEM_CLOCK)
        retries = Retries(SYSTEM_CLOCK, _retry_rules(settings))
        router = Router(retries, SYSTEM_CLOCK, is_open=breakers.is_open)
        pipeline, embedding, automating = (
            _pipeline(
                tracer,
                operation,
                admission=admission,
                reuser=reuser,
                fleet=fleet,
                router=router,
                breakers=breakers,
                limits=limits,
                accounting=accounting,
                clock=SYSTEM_CLOCK,
                reached=reached,
            )
            for operation, reached in _OPERATIONS.items()
        )
        hints = await stack.enter_async_context(open_hints(settings.redis_url, "gateway"))
        shared = SharedAutomations(cache_store, settings.automations_kept_s)
        started = StartedAutomations(settings.automations_max)
        stack.push_async_callback(started.close)
        chat = await stack.enter_async_context(_chat(settings, pipeline, admission, hints))
        servicers = [
            GatewayServicer(pipeline, embedding, admission, fleet, settings),
            ChatServicer(chat, settings),
            AutomationServicer(automating, admission, started, shared, hints, settings),
            ProviderServicer(fleet, breakers, limits, SYSTEM_CLOCK),
        ]
        features = [f"accounting:{settings.accounting}"]
        features += [f"provider:{provider.entry.name}" for provider in fleet.catalogue.configured]
        server = await stack.enter_async_context(
            serve(settings, servicers, verifier=verifier, features=features, tracer=tracer)
        )
        yield replace(server, reload=watch.now)


@asynccontextmanager
async def _accounting(settings: GatewaySettings, tracer: Tracer | None) -> AsyncIterator[Accounting | NoAccounting]:
    """Holds and settlements by the cost service, or none."""
    if settings.accounting == "off":
        _log.warning("%s is off: nothing is held or billed, and no budget holds", settings.variable("accounting"))
        yield NoAccounting()
        return
    patience_s = settings.cost_timeout_ms / 1_000
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(open_channel(settings.cost_target, settings, tracer))
        peer = CostPeer(channel, ServiceTokenMinter.from_settings(settings), settings)
        stack.push_async_callback(peer.close)
        stack.enter_context(telemetry.gauge("queue_depth", lambda: peer.waiting, service="gateway", queue="cost"))
        cost: CostPort = peer if tracer is None else TracedCost(peer, tracer)
        policy = HoldPolicy(
            cost, SYSTEM_CLOCK, fail_open=settings.hold_fail_open, known_for_s=settings.hold_fail_open_for_s
        )
        stack.push_async_callback(policy.close)
        journal = BillJournal(settings.home_directory / "gateway-late-bills.db", settings.late_bills_max)
        late_bills = LateBills(journal, cost)
        late_bills.start()
        stack.push_async_callback(late_bills.close, patience_s)
        accounting = Accounting(cost, policy, late_bills, SYSTEM_CLOCK, _accounting_limits(settings))
        stack.push_async_callback(accounting.close, patience_s)
        yield accounting


@asynccontextmanager
async def _fleet(settings: GatewaySettings, environ: Mapping[str, str]) -> AsyncIterator[tuple[Fleet, CatalogueWatch]]:
    """The providers of the catalogue, following its file."""
    limits = TransportLimits(
        connect_timeout_s=settings.provider_connect_timeout_s,
        max_connections=settings.provider_connections_max,
        max_answer_bytes=settings.provider_answer_max_bytes,
        proxy=settings.provider_proxy,
    )

    async def open_provider(configured: ConfiguredProvider) -> Provider:
        # The SDKs take seconds to import, which would stall whatever else this loop serves.
        return await asyncio.to_thread(
            build_provider, configured, limits, settings.mock_overrides, settings.mock_calls_at_once
        )

    fleet = Fleet(open_provider)
    file = settings.catalogue_file
    watch = CatalogueWatch(fleet, lambda: load_catalogue(environ, file), file, environ)
    try:
        await fleet.replace(load_catalogue(environ, file))
    except CatalogueError as error:
        raise SettingsError(f"the catalogue ({settings.variable('catalogue_file')}, provider keys): {error}") from error
    try:
        async with watch.running(settings.catalogue_poll_s):
            yield fleet, watch
    finally:
        await fleet.close()


def _itself(provider: Provider) -> Provider:
    return provider


_OPERATIONS: Mapping[str, Callable[[Provider], Provider]] = {
    "chat": _itself,
    "embeddings": EmbeddingProvider,
    "invoke_agent": AutomationProvider,
}
"""What is asked of models, by OpenTelemetry's names, and what the calls for it go to."""


def _pipeline(tracer: Tracer | None, operation: str, *, clock: Clock, **layers: Any) -> Pipeline:
    if tracer is None:
        return Pipeline(clock=clock, **layers)
    return TracedPipeline(tracer=tracer, dispatcher=TracedDispatcher(clock, tracer, operation), clock=clock, **layers)


def _accounting_limits(settings: GatewaySettings) -> AccountingLimits:
    return AccountingLimits(
        hold_wait_s=settings.hold_wait_ms / 1_000,
        hold_margin_ms=settings.hold_margin_ms,
        later_s=settings.settle_later_s,
        later_max=settings.settle_later_max,
        gather_s=settings.settle_gather_ms / 1_000,
    )


@asynccontextmanager
async def _chat(
    settings: GatewaySettings, pipeline: Pipeline, admission: Admission, hints: Hints
) -> AsyncIterator[tuple[ChatStore, ChatTurns] | None]:
    """Where chat is kept and what runs its turns; None where no sessions are to be kept."""
    if not settings.chat_history:
        yield None
        return
    # SQLAlchemy takes long to load: only where there is a database.
    from services.gateway.store.chats import ChatLimits, SqlChatStore
    from services.runtime.service_database import open_service_database

    limits = ChatLimits(settings.chat_sessions_max, settings.chat_session_turns_max, settings.chat_alive_s)
    rules = ChatRules(
        turns_max=settings.chat_turns_max,
        waiting_reads_max=settings.chat_waiting_reads_max,
        life_s=settings.chat_alive_s / 4,
        poll_s=settings.chat_poll_ms / 1_000,
    )
    async with open_service_database(settings) as database:
        store = SqlChatStore(database, limits, lambda turn: seal_outcome(lost_outcome(turn)))
        turns = ChatTurns(store, pipeline, admission, hints, seal_outcome, rules)
        try:
            yield store, turns
        finally:
            await turns.close()


@asynccontextmanager
async def _shared_stores(settings: GatewaySettings) -> AsyncIterator[tuple[LimitStore, CacheStore, Breakers]]:
    """What replicas share where there is a Redis, and each keeps in memory where there is none."""
    local = LocalLimits(SYSTEM_CLOCK, settings.limit_buckets_max)
    rules = _breaker_rules(settings)
    if not settings.redis_url:
        yield local, LocalCache(SYSTEM_CLOCK, settings.cache_max_bytes), Breakers(SYSTEM_CLOCK, rules)
        return
    # Loading the client of Redis takes some 0.3 s: only where it is used.
    from services.gateway.redis_breakers import RedisBreakers
    from services.gateway.redis_cache import RedisCache
    from services.gateway.redis_limits import RedisLimits
    from services.gateway.redis_link import LinkRules, RedisLink

    async with RedisLink.open(settings.redis_url, LinkRules(settings.redis_timeout_ms / 1_000)) as link:
        limits = RedisLimits(link, local, settings.limit_share_without_redis)
        cache = RedisCache(link)
        share = RedisBreakers(link, rules.probes_max)
        breakers = Breakers(SYSTEM_CLOCK, rules, share=share)
        try:
            async with share.followed_by(breakers, settings.breaker_share_every_ms / 1_000):
                yield limits, cache, breakers
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
