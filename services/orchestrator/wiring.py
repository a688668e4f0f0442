"""The orchestrator put together: settings in, running server out."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmlab.api.orchestrator.v1 import run_pb2
from services.orchestrator.admission import Admission
from services.orchestrator.peers.budgets import GrpcBudgets
from services.orchestrator.peers.cost import GrpcBills
from services.orchestrator.peers.gateway import GrpcGateway
from services.orchestrator.peers.identity import DelegatedTokens, GrpcIdentity
from services.orchestrator.peers.metrics import GrpcMetrics
from services.orchestrator.peers.prices import GrpcPrices
from services.orchestrator.planning import Planner
from services.orchestrator.ports import Bills, Budgets, Gateway, Identity, Metrics, Prices
from services.orchestrator.records import RunEvent
from services.orchestrator.resources import BRAND_SET, DATASET, PROMPT, ResourceKind
from services.orchestrator.rpc.brand_sets import BrandSetServicer
from services.orchestrator.rpc.codec import answer_text
from services.orchestrator.rpc.datasets import DatasetServicer
from services.orchestrator.rpc.experiments import ExperimentServicer
from services.orchestrator.rpc.prompts import PromptServicer
from services.orchestrator.rpc.results import ResultServicer
from services.orchestrator.rpc.runs import RunServicer
from services.orchestrator.rpc.spec_sources import SpecSources
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.spec_view import SpecViews
from services.orchestrator.store import SqlLedger
from services.orchestrator.store.backlog import watched_backlog
from services.orchestrator.store.resources import SqlResources
from services.orchestrator.watch import RunEvents
from services.orchestrator.worker import Worker, WorkerPorts
from services.runtime.auth import ServiceTokenMinter, TokenVerifier
from services.runtime.channel import open_channel
from services.runtime.clock import SYSTEM_CLOCK, Clock
from services.runtime.database import Database
from services.runtime.feeds import Watching
from services.runtime.hints import Hints
from services.runtime.liveness import Liveness, liveness_of
from services.runtime.server import RunningServer, serve
from services.runtime.service_database import open_service_database
from services.runtime.settings import SettingsError
from services.runtime.shared_hints import open_hints
from services.runtime.signing_keys import fetch_signing_keys
from services.runtime.tracing import open_tracing

if TYPE_CHECKING:
    from services.runtime.spans import Tracer


@dataclass(frozen=True, slots=True)
class Peers:
    """The other services."""

    gateway: Gateway
    metrics: Metrics
    bills: Bills
    identity: Identity
    prices: Prices
    budgets: Budgets
    verifier: TokenVerifier | None


@asynccontextmanager
async def build(
    settings: OrchestratorSettings,
    *,
    peers: Peers | None = None,
    clock: Clock = SYSTEM_CLOCK,
    work: asyncio.Event | None = None,
) -> AsyncIterator[RunningServer]:
    """Runs the orchestrator until the context ends: the server stops first, then the workers hand their cells back.

    `peers` stand in for the services that the settings name; workers wait for `work` where it is given. Raises
    SettingsError, Unavailable (database).
    """
    if not settings.api and not settings.workers:
        raise SettingsError(f"{settings.variable('workers')}: 0, and no API either: this process would do nothing")
    async with AsyncExitStack() as stack:
        tracer = stack.enter_context(open_tracing(settings))
        database = await stack.enter_async_context(open_service_database(settings))
        ledger = SqlLedger(database)
        if settings.api and settings.telemetry_port is not None:
            await stack.enter_async_context(watched_backlog(database, settings.backlog_interval_s))
        hints = await stack.enter_async_context(open_hints(settings.redis_url, settings.service))
        if peers is None:
            peers = await _connect(settings, stack, clock, tracer)
        ports = _worker_ports(peers, ledger, hints, liveness_of(database), clock, tracer)
        for _ in range(settings.workers):
            await stack.enter_async_context(_working(Worker(ports, settings.worker_policy()), work))
        watching: Watching[RunEvent, run_pb2.WatchRunResponse] = Watching(
            RunEvents(ledger), hints, settings.watch_policy()
        )
        stack.push_async_callback(watching.close)
        views = SpecViews(ledger.get_spec, settings.spec_views_max)
        sources = _sources(settings, database)
        admission = Admission(
            peers.gateway,
            peers.metrics,
            cells_max=settings.max_cells_per_run,
            cells_setting=settings.variable("max_cells_per_run"),
        )
        servicers = [
            ExperimentServicer(ledger, sources, admission, Planner(ledger, views, peers.gateway, peers.prices), clock),
            BrandSetServicer(sources.brand_sets, peers.metrics, clock),
            PromptServicer(sources.prompts, clock),
            DatasetServicer(sources.datasets, clock),
            RunServicer(
                ledger,
                admission,
                peers.identity,
                peers.budgets,
                views,
                watching,
                settings.watch_policy(),
                hints,
                clock,
            ),
            ResultServicer(ledger, peers.metrics, admission, views, clock, guard_formulas=settings.csv_guard_formulas),
        ]
        yield await stack.enter_async_context(
            serve(
                settings,
                servicers if settings.api else [],
                verifier=peers.verifier,
                checks={"database": database.check},
                features=[f"database:{database.dialect}", f"workers:{settings.workers}"],
                tracer=tracer,
            )
        )


def _sources(settings: OrchestratorSettings, database: Database) -> SpecSources:
    def resources(kind: ResourceKind, limit: str) -> SqlResources:
        most: int = getattr(settings, limit)
        return SqlResources(database, kind, max_per_project=most, max_setting=settings.variable(limit))

    return SpecSources(
        resources(BRAND_SET, "max_brand_sets_per_project"),
        resources(PROMPT, "max_prompts_per_project"),
        resources(DATASET, "max_datasets_per_project"),
        settings.max_message_bytes,
        settings.variable("max_message_bytes"),
    )


def _worker_ports(
    peers: Peers, ledger: SqlLedger, hints: Hints, liveness: Liveness, clock: Clock, tracer: Tracer | None
) -> WorkerPorts:
    return WorkerPorts(
        ledger=ledger,
        gateway=peers.gateway,
        metrics=peers.metrics,
        bills=peers.bills,
        identity=peers.identity,
        hints=hints,
        liveness=liveness,
        clock=clock,
        rng=random.Random(),  # noqa: S311 (jitter and nonces that only have to differ)
        answer_text=answer_text,
        tracer=tracer,
    )


async def _connect(settings: OrchestratorSettings, stack: AsyncExitStack, clock: Clock, tracer: Tracer | None) -> Peers:
    gateway = await stack.enter_async_context(open_channel(settings.gateway_target, settings, tracer))
    metrics = await stack.enter_async_context(open_channel(settings.metrics_target, settings, tracer))
    cost = await stack.enter_async_context(open_channel(settings.cost_target, settings, tracer))
    identity = await stack.enter_async_context(open_channel(settings.identity_target, settings, tracer))
    minter = ServiceTokenMinter.from_settings(settings)
    verifier = TokenVerifier.from_settings(settings, fetch_signing_keys(identity)) if settings.auth_required else None
    tokens = DelegatedTokens(identity, minter, clock)
    return Peers(
        gateway=GrpcGateway(gateway, tokens),
        metrics=GrpcMetrics(metrics, minter, tokens, timeout_s=settings.judging_timeout_ms / 1_000),
        bills=GrpcBills(cost, minter),
        identity=GrpcIdentity(identity, minter),
        prices=GrpcPrices(cost),
        budgets=GrpcBudgets(cost, minter),
        verifier=verifier,
    )


@asynccontextmanager
async def _working(worker: Worker, begin: asyncio.Event | None) -> AsyncIterator[None]:
    async def work() -> None:
        if begin is not None:
            await begin.wait()
        await worker.run()

    task = asyncio.create_task(work(), name="worker")
    try:
        yield
    finally:
        worker.stop()
        if begin is not None and not begin.is_set():
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
