"""The metrics service put together: settings in, running server out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import fmean

import grpc

from services.metrics.brands.engine import BrandEngine
from services.metrics.embedding import EmbeddingScorer, coherence_pairs, relevance_pairs, similarity_pairs
from services.metrics.engine import Engine, Limits
from services.metrics.judge.scorer import JudgeLimits, JudgeScorer
from services.metrics.outside import Scoring
from services.metrics.peers.embeddings import GrpcEmbeddings
from services.metrics.peers.judge import GrpcJudgeCalls
from services.metrics.peers.remote_scorers import GrpcRemoteServers
from services.metrics.remote import RemoteScorer
from services.metrics.rpc.brands import BrandServicer
from services.metrics.rpc.judge import JudgeServicer
from services.metrics.rpc.service import MetricsServicer
from services.metrics.settings import MetricsSettings
from services.metrics.statistics import Statistics
from services.metrics.warm_up import warm_up
from services.runtime import telemetry
from services.runtime.auth import TokenVerifier
from services.runtime.channel import open_channel
from services.runtime.pool import ProcessPool
from services.runtime.server import RunningServer, serve
from services.runtime.signing_keys import fetch_signing_keys
from services.runtime.tracing import open_tracing


@asynccontextmanager
async def build(settings: MetricsSettings) -> AsyncIterator[RunningServer]:
    """Runs the metrics service until the context ends. Raises SettingsError."""
    async with AsyncExitStack() as stack:
        tracer = stack.enter_context(open_tracing(settings))
        identity = await stack.enter_async_context(open_channel(settings.identity_target, settings, tracer))
        fetch_keys = fetch_signing_keys(identity)
        verifier = TokenVerifier.from_settings(settings, fetch_keys) if settings.auth_required else None
        gateway = await stack.enter_async_context(open_channel(settings.gateway_target, settings, tracer))
        pool = await stack.enter_async_context(
            ProcessPool.open(
                settings.workers,
                max_waiting=settings.max_waiting_tasks,
                warm_up=warm_up,
                early=settings.workers_start_early,
            )
        )
        stack.enter_context(telemetry.gauge("queue_depth", lambda: pool.unfinished, service="metrics", queue="pool"))
        limits = Limits(
            samples_per_task=settings.samples_per_task,
            characters_per_task=settings.characters_per_task,
            max_text_characters=settings.max_text_characters,
        )
        judge_calls = GrpcJudgeCalls(gateway)
        judge = JudgeScorer(judge_calls, JudgeLimits(settings.judge_calls_at_once, settings.judge_call_ids_max))
        remote = RemoteScorer(
            await stack.enter_async_context(GrpcRemoteServers.open(settings)),
            settings.remote_targets,
            batch_max=settings.remote_batch_max,
            at_once=settings.remote_max_in_flight,
        )
        scoring = Scoring(
            Engine(pool, limits),
            {"judge": judge, "remote": remote, **_embedding_scorers(gateway, settings)},
            {"remote": {"scorer": sorted(settings.remote_targets)}},
        )
        servicers = [
            MetricsServicer(scoring, Statistics(pool), tracer),
            BrandServicer(BrandEngine(pool, limits)),
            JudgeServicer(judge_calls, settings.judge_max_calls),
        ]
        yield await stack.enter_async_context(serve(settings, servicers, verifier=verifier, tracer=tracer))


def _embedding_scorers(gateway: grpc.aio.Channel, settings: MetricsSettings) -> dict[str, EmbeddingScorer]:
    embeddings = GrpcEmbeddings(gateway, settings.judge_call_ids_max)
    at_once = settings.embedding_calls_at_once
    return {
        "coherence_embedding": EmbeddingScorer(embeddings, coherence_pairs, fmean, at_once=at_once),
        "embedding_similarity": EmbeddingScorer(embeddings, similarity_pairs, max, at_once=at_once),
        "relevance_embedding": EmbeddingScorer(embeddings, relevance_pairs, max, at_once=at_once),
    }
