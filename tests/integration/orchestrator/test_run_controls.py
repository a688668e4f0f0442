"""Pause, resume, retry and delete over the wire."""

from __future__ import annotations

import asyncio

from llmlab.api.orchestrator.v1 import experiment_pb2 as epb
from llmlab.api.orchestrator.v1 import run_pb2 as pb
from tests.support.orchestrator import answer, failure
from tests.support.orchestrator_rpc import Client, refusal


async def test_a_run_with_max_cost_is_limited_before_it_starts_until_it_is_deleted(client: Client) -> None:
    experiment = await client.create()
    run = await client.start(experiment.experiment_id, limits=epb.RunLimits(max_cost_nano_usd=20, concurrency=1))
    events = await client.watch(run.run_id)
    ended = (await client.runs.GetRun(pb.GetRunRequest(run_id=run.run_id))).run
    limits = dict(client.world.limits)
    await client.runs.DeleteRun(pb.DeleteRunRequest(run_id=run.run_id))

    assert limits == {run.run_id: 20}
    assert client.world.limits == {}
    assert (ended.status, ended.statistics.cost.cost_nano_usd) == (pb.RUN_STATUS_EXHAUSTED, 20)
    assert events[-1].exhausted.failure == ended.failure != ""
    assert ended.limits.max_cost_nano_usd == 20


async def test_a_run_is_paused_resumed_retried_and_deleted(client: Client) -> None:
    client.world.script = lambda call: failure("CONTENT_POLICY", retryable=False)
    client.world.gate = asyncio.Event()
    run = await client.start((await client.create()).experiment_id)
    paused = (await client.runs.PauseRun(pb.PauseRunRequest(run_id=run.run_id))).run
    early = await refusal(client.runs.RetryRun(pb.RetryRunRequest(run_id=run.run_id)))
    resumed = (await client.runs.ResumeRun(pb.ResumeRunRequest(run_id=run.run_id, request_id="r"))).run
    client.world.gate.set()
    first = await client.watch(run.run_id)
    client.world.script = lambda call: answer()
    retried = await client.runs.RetryRun(pb.RetryRunRequest(run_id=run.run_id, request_id="r"))
    again = await client.runs.RetryRun(pb.RetryRunRequest(run_id=run.run_id, request_id="r"))
    events = await client.watch(run.run_id)
    ended = (await client.runs.GetRun(pb.GetRunRequest(run_id=run.run_id))).run
    late = await refusal(client.runs.PauseRun(pb.PauseRunRequest(run_id=run.run_id)))
    nothing = await client.runs.RetryRun(pb.RetryRunRequest(run_id=run.run_id))
    await client.runs.DeleteRun(pb.DeleteRunRequest(run_id=run.run_id, request_id="r"))
    await client.runs.DeleteRun(pb.DeleteRunRequest(run_id=run.run_id, request_id="r"))
    gone = await refusal(client.runs.GetRun(pb.GetRunRequest(run_id=run.run_id)))

    assert (paused.status, resumed.status) == (pb.RUN_STATUS_PAUSED, pb.RUN_STATUS_RUNNING)
    assert (early.reason, late.reason, gone.reason) == ("WRONG_STATE", "WRONG_STATE", "NOT_FOUND")
    assert first[-1].WhichOneof("event") == "failed"
    assert (retried.cells, retried.run.status, retried == again) == (16, pb.RUN_STATUS_RUNNING, True)
    # Whoever watches from the start is not sent away at the end that is none any more.
    kinds = [event.WhichOneof("event") for event in events]
    assert [kind for kind in kinds if kind not in ("progress", "result")] == [
        "started",
        "paused",
        "resumed",
        "failed",
        "retried",
        "completed",
    ]
    assert [event.sequence for event in events] == list(range(1, ended.last_sequence + 1))
    assert (ended.status, ended.statistics.cells_done, ended.failure) == (pb.RUN_STATUS_COMPLETED, 16, "")
    assert (nothing.cells, nothing.run.status) == (0, pb.RUN_STATUS_COMPLETED)
