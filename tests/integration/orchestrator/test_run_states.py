"""The runs of a project, watched together."""

from __future__ import annotations

import asyncio
from typing import Any

from llmlab.api.orchestrator.v1 import run_pb2 as pb
from tests.support.orchestrator_rpc import Client


async def next_runs(call: Any) -> list[pb.Run]:
    """The runs of the next message that has some."""
    while True:
        message: pb.WatchRunsResponse = await call.read()
        if message.runs:
            return list(message.runs)


async def test_runs_are_told_of_as_they_begin_move_and_end(client: Client) -> None:
    await client.finished()
    client.world.gate = asyncio.Event()
    experiment = await client.create()
    going = await client.start(experiment.experiment_id)
    call = client.runs.WatchRuns(pb.WatchRunsRequest())
    first = await next_runs(call)
    assert [run.run_id for run in first] == [going.run_id]

    begun = await client.start(experiment.experiment_id)
    client.world.gate.set()
    last: dict[str, pb.Run] = {}
    while len([run for run in last.values() if run.HasField("end_time")]) < 2:
        last |= {run.run_id: run for run in await next_runs(call)}
    assert last.keys() == {going.run_id, begun.run_id}
    assert all(run.statistics.cells_done == 16 for run in last.values())
    call.cancel()


async def test_a_watcher_hears_how_fast_the_run_goes_and_how_long_answers_took(client: Client) -> None:
    run = await client.finished()
    paces = [
        message.pace
        async for message in client.runs.WatchRun(pb.WatchRunRequest(run_id=run.run_id))
        if message.HasField("pace")
    ]
    assert len(paces) == 1
    assert [(each.quantile, each.latency_us) for each in paces[0].latencies] == [
        (0.5, 1_000),
        (0.95, 1_000),
        (0.99, 1_000),
    ]
