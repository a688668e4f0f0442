"""A real orchestrator in a scripted world, and a client of its RPCs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from llmlab.api.orchestrator.v1 import experiment_pb2 as epb
from llmlab.api.orchestrator.v1 import run_pb2 as pb
from llmlab.api.orchestrator.v1.brand_set_pb2_grpc import BrandSetServiceStub
from llmlab.api.orchestrator.v1.dataset_pb2_grpc import DatasetServiceStub
from llmlab.api.orchestrator.v1.experiment_pb2_grpc import ExperimentServiceStub
from llmlab.api.orchestrator.v1.prompt_pb2_grpc import PromptServiceStub
from llmlab.api.orchestrator.v1.run_pb2_grpc import ResultServiceStub, RunServiceStub
from services.orchestrator.rpc.specs import spec_message
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.wiring import Peers, build
from services.runtime.channel import open_channel
from services.runtime.errors import DomainError
from services.runtime.status import error_from_rpc
from tests.support.orchestrator import (
    World,
    WorldBills,
    WorldBudgets,
    WorldGateway,
    WorldIdentity,
    WorldMetrics,
    WorldPrices,
    study,
)


@dataclass
class Client:
    """Stubs of a running orchestrator, and the world around it."""

    experiments: Any
    runs: Any
    results: Any
    brand_sets: Any
    prompts: Any
    datasets: Any
    world: World
    identity: WorldIdentity

    async def create(self, spec: epb.ExperimentSpec | None = None, **more: Any) -> epb.Experiment:
        request = epb.CreateExperimentRequest(name="a study", spec=spec or spec_message(study()), **more)
        experiment: epb.Experiment = (await self.experiments.CreateExperiment(request)).experiment
        return experiment

    async def start(self, experiment_id: str, **more: Any) -> pb.Run:
        run: pb.Run = (await self.runs.StartRun(pb.StartRunRequest(experiment_id=experiment_id, **more))).run
        return run

    async def finished(self, spec: epb.ExperimentSpec | None = None) -> pb.Run:
        """A run that has ended."""
        run = await self.start((await self.create(spec)).experiment_id)
        await self.watch(run.run_id)
        ended: pb.Run = (await self.runs.GetRun(pb.GetRunRequest(run_id=run.run_id))).run
        return ended

    async def watch(self, run_id: str, after: int = 0) -> list[pb.RunEvent]:
        """All events to the last."""
        events: list[pb.RunEvent] = []
        async for message in self.runs.WatchRun(pb.WatchRunRequest(run_id=run_id, after_sequence=after)):
            events.extend(message.events)
        return events

    async def export(self, file_format: pb.ExportFormat.ValueType, **filters: Any) -> bytes:
        request = pb.ExportResultsRequest(filter=pb.ResultFilter(**filters), format=file_format)
        return b"".join([message.data async for message in self.results.ExportResults(request)])

    async def pages(self, size: int, *, full: bool = False, **filters: Any) -> list[list[pb.Result]]:
        pages: list[list[pb.Result]] = []
        token = ""
        while True:
            page = await self.results.ListResults(
                pb.ListResultsRequest(filter=pb.ResultFilter(**filters), page_size=size, page_token=token, full=full)
            )
            pages.append(list(page.results))
            token = page.next_page_token
            if not token:
                return pages


@asynccontextmanager
async def serving(home: Path, **more: Any) -> AsyncIterator[Client]:
    """A client of an orchestrator with these settings."""
    world, identity = World(), WorldIdentity()
    settings = OrchestratorSettings(
        port=0,
        home=home,
        auth_required=False,
        max_cells_per_run=1_000,
        poll_ms=50,
        watch_flush_ms=1,
        watch_poll_ms=50,
        watch_page_events=7,
        retry_base_ms=1,
        cancel_grace_ms=100,
        log_level="ERROR",
        **more,
    )
    peers = Peers(
        WorldGateway(world),
        WorldMetrics(world),
        WorldBills(world),
        identity,
        WorldPrices(),
        WorldBudgets(world),
        verifier=None,
    )
    async with build(settings, peers=peers) as running, open_channel(running.address, settings) as channel:
        yield Client(
            experiments=ExperimentServiceStub(channel),
            runs=RunServiceStub(channel),
            results=ResultServiceStub(channel),
            brand_sets=BrandSetServiceStub(channel),
            prompts=PromptServiceStub(channel),
            datasets=DatasetServiceStub(channel),
            world=world,
            identity=identity,
        )


async def refusal(call: Any) -> DomainError:
    """The error of a call that has to fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _to_its_end(call)
    return error_from_rpc(caught.value)


async def _to_its_end(call: Any) -> None:
    if hasattr(call, "__await__"):
        await call
        return
    async for _ in call:
        continue
