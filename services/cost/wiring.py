"""The composition root of the cost service."""

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from llmlab.api.cost.v1 import alert_pb2, insight_pb2
from services.cost.alerting.alerts import Alert
from services.cost.alerting.delivering import Deliverer, Sender
from services.cost.alerting.receivers import HttpReceivers
from services.cost.alerting.sealing import Sealer
from services.cost.anomaly_search import AnomalySearch
from services.cost.bookkeeping import Bookkeeping
from services.cost.insights import Anomaly
from services.cost.pricing.catalogue import Catalogue
from services.cost.pricing.repricer import Repricer
from services.cost.reconciler import Reconciler, repeat
from services.cost.roller import Roller
from services.cost.rollups import DAY_US
from services.cost.rpc.alerts import AlertParts, AlertServicer
from services.cost.rpc.budgets import BudgetServicer
from services.cost.rpc.holds import HoldServicer
from services.cost.rpc.insights import InsightServicer
from services.cost.rpc.prices import PriceServicer
from services.cost.rpc.repricing import RepricingServicer
from services.cost.rpc.usage import UsageServicer
from services.cost.settings import CostSettings
from services.cost.store.alert_writer import DELIVERIES_TOPIC, AlertWriter
from services.cost.store.alerts import AlertStore
from services.cost.store.anomalies import AnomalyStore
from services.cost.store.block_writer import Packer
from services.cost.store.books import BookKeeper
from services.cost.store.budgets import BudgetStore
from services.cost.store.deliveries import DeliveryStore
from services.cost.store.events import EventStore
from services.cost.store.forecasts import ForecastStore
from services.cost.store.overrides import OverrideStore
from services.cost.store.price_books import PriceBooks
from services.cost.store.repricing import RepricingStore
from services.cost.store.retention import HoldRetention
from services.cost.store.rollups import Folder
from services.cost.store.spend import SpendStore
from services.cost.store.webhooks import WebhookStore
from services.runtime import telemetry
from services.runtime.auth import TokenVerifier, secret_keys, service_private_keys
from services.runtime.channel import open_channel
from services.runtime.clock import SYSTEM_CLOCK, Clock
from services.runtime.database import Database
from services.runtime.feeds import Watching
from services.runtime.hints import Hints
from services.runtime.liveness import liveness_of
from services.runtime.server import RunningServer, serve
from services.runtime.service_database import open_service_database
from services.runtime.shared_hints import open_hints
from services.runtime.signing_keys import fetch_signing_keys
from services.runtime.tracing import open_tracing

_RESEALED_AT_ONCE = 500


@asynccontextmanager
async def build(settings: CostSettings, *, clock: Clock | None = None) -> AsyncIterator[RunningServer]:
    """Run the cost service until the context ends. `clock` replaces the database's clock."""
    async with AsyncExitStack() as stack:
        tracer = stack.enter_context(open_tracing(settings))
        # Reading takes some tens of milliseconds; the process may be serving other services meanwhile.
        prices = await asyncio.to_thread(Catalogue.load)
        database = await stack.enter_async_context(open_service_database(settings, clock=clock))
        hints = await stack.enter_async_context(open_hints(settings.redis_url, settings.service))
        writer = AlertWriter(database, hints, settings.alert_limits())
        keeper = BookKeeper(database, prices, writer)
        books = Bookkeeping(
            keeper,
            max_batch=settings.commit_max_items,
            max_queue=settings.commit_max_waiting,
            max_in_flight=settings.commit_max_in_flight,
        )
        stack.push_async_callback(books.close)
        stack.enter_context(telemetry.gauge("queue_depth", lambda: books.waiting, service="cost", queue="books"))
        await stack.enter_async_context(_running(_expiring(settings, books), "cost-reconciler"))
        await stack.enter_async_context(_running(_deleting(settings, database), "hold-retention"))
        folder = Folder(database, max_events=settings.fold_max_events)
        roller = Roller(folder, Packer(database), interval_s=settings.fold_interval_s)
        await stack.enter_async_context(_running(roller.run(), "cost-roller"))
        identity = await stack.enter_async_context(open_channel(settings.identity_target, settings, tracer))
        budgets = BudgetStore(
            database,
            writer,
            max_per_project=settings.max_budgets_per_project,
            max_per_anchor=settings.max_budgets_per_anchor,
        )
        overrides = OverrideStore(
            database, PriceBooks(prices), max_per_project=settings.max_price_overrides_per_project
        )
        servicers: list[object] = [
            HoldServicer(books, tracer),
            UsageServicer(
                books,
                EventStore(database, max_scanned=settings.usage_scan_max_events),
                SpendStore(database, max_events=settings.summary_max_events, timeout_ms=settings.summary_timeout_ms),
                export_page_size=settings.export_page_size,
            ),
            PriceServicer(prices, overrides, clock or SYSTEM_CLOCK),
            BudgetServicer(budgets),
            _repricing(settings, RepricingStore(database, keeper, prices)),
            await _alerting(settings, stack, database, writer, hints, clock or SYSTEM_CLOCK),
            await _insights(settings, stack, database, writer, hints, budgets, clock or SYSTEM_CLOCK),
        ]
        verifier = TokenVerifier.from_settings(settings, fetch_signing_keys(identity))
        checks = {"database": database.check}
        features = [f"database:{database.dialect}"]
        yield await stack.enter_async_context(
            serve(settings, servicers, verifier=verifier, checks=checks, features=features, tracer=tracer)
        )


def _expiring(settings: CostSettings, books: Bookkeeping) -> Coroutine[Any, Any, None]:
    """Holds that nobody settled in time expire."""
    return repeat(
        Reconciler(books, policy=settings.expired_holds).run_once,
        interval_s=settings.reconcile_interval_s,
        max_batch=settings.reconcile_max_holds,
        name="the expiry of holds",
    )


def _deleting(settings: CostSettings, database: Database) -> Coroutine[Any, Any, None]:
    """Holds whose outcome is final are deleted when they are old."""
    return repeat(
        HoldRetention(database, keep_us=settings.hold_retention_days * DAY_US).run_once,
        interval_s=settings.hold_retention_interval_s,
        max_batch=settings.hold_retention_max_holds,
        name="the deletion of old holds",
    )


def _repricing(settings: CostSettings, store: RepricingStore) -> RepricingServicer:
    repricer = Repricer(
        store,
        batch_events=settings.reprice_batch_events,
        call_events=settings.reprice_call_events,
        preview_events=settings.reprice_preview_events,
    )
    return RepricingServicer(repricer, store)


def _forgetting(settings: CostSettings, store: AlertStore) -> Coroutine[Any, Any, None]:
    """Alerts and their deliveries are deleted when they are old."""
    return repeat(
        partial(store.prune, settings.alert_retention_days * DAY_US),
        interval_s=settings.alert_retention_interval_s,
        max_batch=settings.alert_retention_max_alerts,
        name="the deletion of old alerts",
    )


async def _alerting(
    settings: CostSettings, stack: AsyncExitStack, database: Database, writer: AlertWriter, hints: Hints, clock: Clock
) -> AlertServicer:
    """Alerts are watched, delivered and removed when they are old."""
    store = AlertStore(database, writer)
    watching: Watching[Alert, alert_pb2.WatchAlertsResponse] = Watching(store, hints, settings.watch_policy())
    stack.push_async_callback(watching.close)
    receivers = HttpReceivers(timeout_s=settings.webhook_timeout_s, private=settings.webhook_private_receivers)
    stack.push_async_callback(receivers.close)
    sealer = Sealer(_sealing_keys(settings))
    sender = Sender(receivers, sealer, clock)
    deliveries = DeliveryStore(
        database, settings.delivery_limits(), lease_us=round(settings.webhook_lease_s * 1_000_000)
    )
    deliverer = Deliverer(
        deliveries,
        sender,
        hints,
        settings.delivering_policy(),
        topic=DELIVERIES_TOPIC,
        rng=random.Random(),  # noqa: S311 (jitter)
    )
    await stack.enter_async_context(deliverer.running())
    await stack.enter_async_context(_running(_forgetting(settings, store), "alert-retention"))
    webhooks = WebhookStore(
        database,
        max_per_project=settings.max_webhooks_per_project,
        max_setting=settings.variable("max_webhooks_per_project"),
    )
    await stack.enter_async_context(_running(_resealing(settings, webhooks, sealer), "webhook-secrets"))
    return AlertServicer(
        AlertParts(store, webhooks, deliveries, watching, sender, sealer, settings.webhook_private_receivers)
    )


def _resealing(settings: CostSettings, store: WebhookStore, sealer: Sealer) -> Coroutine[Any, Any, None]:
    """Secrets are encrypted with the key in use, whatever replica with a former one may still have made."""
    return repeat(
        partial(store.reseal, sealer),
        interval_s=settings.webhook_reseal_interval_s,
        max_batch=_RESEALED_AT_ONCE,
        name="the encryption of webhooks' secrets with the key in use",
    )


def _sealing_keys(settings: CostSettings) -> list[bytes]:
    """The keys of its own, then those that all services share. SettingsError where one is malformed."""
    shared = [key.private_bytes_raw() for key in service_private_keys(settings)]
    return [*secret_keys(settings, "webhook_key"), *shared]


async def _insights(
    settings: CostSettings,
    stack: AsyncExitStack,
    database: Database,
    writer: AlertWriter,
    hints: Hints,
    budgets: BudgetStore,
    clock: Clock,
) -> InsightServicer:
    """Anomalies are looked for in the background, and watched."""
    policy = settings.search_policy()
    store = AnomalyStore(database, policy.limits)
    watching: Watching[Anomaly, insight_pb2.WatchAnomaliesResponse] = Watching(store, hints, settings.watch_policy())
    stack.push_async_callback(watching.close)
    search = AnomalySearch(store, AlertStore(database, writer), liveness_of(database), hints, policy)
    await stack.enter_async_context(_running(search.run(), "anomaly-search"))
    return InsightServicer(store, watching, ForecastStore(database), budgets, clock)


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Keep a background task for as long as the context lasts."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
