"""The orchestrator's RPCs on a real server, over the wire, in a scripted world."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from llmlab.api.metrics.v1 import metrics_pb2
from llmlab.api.metrics.v1.brands_pb2 import Brand
from llmlab.api.orchestrator.v1 import experiment_pb2 as epb
from llmlab.api.orchestrator.v1 import run_pb2 as pb
from services.orchestrator.rpc.specs import spec_message
from tests.support.orchestrator import (
    eventually,
    study,
)
from tests.support.orchestrator_rpc import Client, refusal, serving

LAST = {"completed", "failed", "cancelled"}


async def test_experiments_are_created_read_listed_changed_and_deleted(client: Client) -> None:
    spec = spec_message(study())
    created = await client.create(spec, description="why not")
    read = (
        await client.experiments.GetExperiment(epb.GetExperimentRequest(experiment_id=created.experiment_id))
    ).experiment

    assert (read.name, read.description, read.cells, read.spec) == ("a study", "why not", 16, spec)
    assert read == created
    changed = (
        await client.experiments.UpdateExperiment(
            epb.UpdateExperimentRequest(
                experiment_id=created.experiment_id,
                experiment=epb.Experiment(name="another", spec=spec_message(study(rows=1))),
                update_mask=FieldMask(paths=["name", "spec"]),
            )
        )
    ).experiment
    assert (changed.name, changed.description, changed.cells) == ("another", "why not", 4)
    assert changed.spec_hash != created.spec_hash
    listed = (await client.experiments.ListExperiments(epb.ListExperimentsRequest())).experiments
    assert [(each.name, each.HasField("spec")) for each in listed] == [("another", False)]
    await client.experiments.DeleteExperiment(epb.DeleteExperimentRequest(experiment_id=created.experiment_id))
    error = await refusal(
        client.experiments.GetExperiment(epb.GetExperimentRequest(experiment_id=created.experiment_id))
    )
    assert error.reason == "NOT_FOUND"


async def test_an_alias_is_replaced_by_what_it_stands_for_when_an_experiment_is_written(client: Client) -> None:
    spec = broken(models=[epb.ModelTarget(model="fast"), epb.ModelTarget(model="mock/large")])
    created = await client.create(spec)
    assert [model.model for model in created.spec.models] == ["mock/small", "mock/large"]
    named = await client.create(broken(models=[epb.ModelTarget(model=name) for name in ("mock/small", "mock/large")]))
    assert created.spec_hash == named.spec_hash


async def test_experiments_page_newest_first(client: Client) -> None:
    ids = [(await client.create()).experiment_id for _ in range(5)]
    found: list[str] = []
    token = ""
    while True:
        page = await client.experiments.ListExperiments(epb.ListExperimentsRequest(page_size=2, page_token=token))
        found.extend(each.experiment_id for each in page.experiments)
        token = page.next_page_token
        if not token:
            break

    assert found == sorted(ids, reverse=True)
    error = await refusal(client.experiments.ListExperiments(epb.ListExperimentsRequest(page_token="nonsense")))
    assert (error.reason, error.field) == ("INVALID_PAGE_TOKEN", "page_token")


async def test_a_study_runs_end_to_end(client: Client) -> None:
    experiment = await client.create()
    run = await client.start(experiment.experiment_id, limits=epb.RunLimits(concurrency=3))
    events = await client.watch(run.run_id)
    ended = (await client.runs.GetRun(pb.GetRunRequest(run_id=run.run_id))).run

    assert (run.status, run.limits.concurrency, run.limits.attempts_max) == (pb.RUN_STATUS_PENDING, 3, 3)
    assert ended.status == pb.RUN_STATUS_COMPLETED
    assert ended.statistics.cells_done == ended.statistics.cells_scored == 16
    assert ended.statistics.cost.cost_nano_usd == 16 * 5
    assert ended.start_time.seconds >= ended.create_time.seconds > 0
    assert ended.end_time.seconds >= ended.start_time.seconds
    assert [event.sequence for event in events] == list(range(1, ended.last_sequence + 1))
    kinds = [event.WhichOneof("event") for event in events]
    assert (kinds[0], kinds[-1], kinds.count("result")) == ("started", "completed", 16)
    assert events[-1].completed.statistics == ended.statistics
    assert {event.result.model for event in events if event.HasField("result")} == {"mock/small", "mock/large"}


async def test_a_watcher_that_is_cut_anywhere_sees_every_event_once_in_order(client: Client) -> None:
    run = await client.finished()
    whole = await client.watch(run.run_id)

    for cut in range(len(whole) + 1):
        assert await client.watch(run.run_id, after=cut) == whole[cut:]
    error = await refusal(client.runs.WatchRun(pb.WatchRunRequest(run_id=run.run_id, after_sequence=len(whole) + 1)))
    assert (error.code, error.reason) == ("OUT_OF_RANGE", "SEQUENCE_OUT_OF_RANGE")


async def test_a_watcher_that_is_cut_while_the_run_goes_on_misses_nothing(client: Client) -> None:
    run = await client.start((await client.create(spec_message(study(rows=40)))).experiment_id)
    seen: list[int] = []
    ended = False
    while not ended:
        stream = client.runs.WatchRun(pb.WatchRunRequest(run_id=run.run_id, after_sequence=seen[-1] if seen else 0))
        async for message in stream:
            seen.extend(event.sequence for event in message.events)
            ended = any(event.WhichOneof("event") in LAST for event in message.events)
            break
        stream.cancel()

    last = (await client.runs.GetRun(pb.GetRunRequest(run_id=run.run_id))).run.last_sequence
    assert seen == list(range(1, last + 1))


async def test_many_watchers_see_the_same(client: Client) -> None:
    run = await client.start((await client.create(spec_message(study(rows=40)))).experiment_id)

    first, *others = await asyncio.gather(*(client.watch(run.run_id) for _ in range(10)))

    assert first
    assert all(events == first for events in others)


async def test_a_request_that_is_repeated_gets_the_first_answer(client: Client) -> None:
    first = await client.create(request_id="req-1")
    again = await client.create(request_id="req-1")
    run = await client.start(first.experiment_id, request_id="req-2")
    same = await client.start(first.experiment_id, request_id="req-2")

    assert first == again
    assert run == same
    assert len((await client.runs.ListRuns(pb.ListRunsRequest())).runs) == 1
    error = await refusal(
        client.experiments.CreateExperiment(
            epb.CreateExperimentRequest(request_id="req-1", name="other", spec=spec_message(study()))
        )
    )
    assert error.reason == "REQUEST_ID_REUSED"


async def test_cancel_and_lists_of_runs(client: Client) -> None:
    client.world.gate = asyncio.Event()
    experiment = await client.create()
    run = await client.start(experiment.experiment_id)
    await eventually(lambda: client.world.under_way)
    busy = await refusal(
        client.experiments.DeleteExperiment(epb.DeleteExperimentRequest(experiment_id=experiment.experiment_id))
    )
    cancelled = (await client.runs.CancelRun(pb.CancelRunRequest(run_id=run.run_id))).run
    events = await client.watch(run.run_id)
    client.world.gate.set()
    done = await client.finished()

    assert busy.reason == "WRONG_STATE"
    assert cancelled.status in {pb.RUN_STATUS_CANCELLING, pb.RUN_STATUS_CANCELLED}
    assert events[-1].WhichOneof("event") == "cancelled"

    async def ids(**filters: Any) -> list[str]:
        return [each.run_id for each in (await client.runs.ListRuns(pb.ListRunsRequest(**filters))).runs]

    assert await ids() == [done.run_id, run.run_id]
    assert await ids(statuses=[pb.RUN_STATUS_CANCELLED]) == [run.run_id]
    assert await ids(experiment_id=experiment.experiment_id) == [run.run_id]


async def test_a_run_that_nobody_had_claimed_leaves_no_delegation(tmp_path: Path) -> None:
    async with serving(tmp_path, workers=0) as client:
        run = await client.start((await client.create()).experiment_id)
        cancelled = (await client.runs.CancelRun(pb.CancelRunRequest(run_id=run.run_id))).run

    assert cancelled.status == pb.RUN_STATUS_CANCELLED
    assert client.identity.revoked == [client.identity.delegations[run.run_id]]


async def test_whoever_resumes_a_run_is_who_it_acts_for(tmp_path: Path) -> None:
    async with serving(tmp_path, workers=0) as client:
        run = await client.start((await client.create()).experiment_id)
        first = client.identity.delegations[run.run_id]
        await client.runs.PauseRun(pb.PauseRunRequest(run_id=run.run_id))
        await client.runs.ResumeRun(pb.ResumeRunRequest(run_id=run.run_id))
        by_the_same = list(client.identity.revoked)
        await client.runs.PauseRun(pb.PauseRunRequest(run_id=run.run_id))
        client.identity.delegations[run.run_id] = "dlg_of_another"
        await client.runs.ResumeRun(pb.ResumeRunRequest(run_id=run.run_id))
        by_another = list(client.identity.revoked)
        await client.runs.CancelRun(pb.CancelRunRequest(run_id=run.run_id))

    assert (by_the_same, by_another) == ([], [first])
    assert client.identity.revoked == [first, "dlg_of_another"]


async def test_a_run_that_did_not_come_to_be_leaves_no_delegation(client: Client) -> None:
    experiment = await client.create()

    async def delete_the_experiment() -> None:
        await client.experiments.DeleteExperiment(epb.DeleteExperimentRequest(experiment_id=experiment.experiment_id))

    client.identity.meanwhile = delete_the_experiment
    error = await refusal(client.runs.StartRun(pb.StartRunRequest(experiment_id=experiment.experiment_id)))

    assert error.reason == "NOT_FOUND"
    assert client.identity.revoked == list(client.identity.delegations.values())


async def test_requests_that_are_repeated_at_once_leave_one_delegation(client: Client) -> None:
    experiment = await client.create()
    # Everybody is past the check for a known request before anybody inserts.
    client.identity.meanwhile = asyncio.Barrier(3).wait
    runs = await asyncio.gather(*(client.start(experiment.experiment_id, request_id="req-1") for _ in range(3)))
    delegations = client.identity.delegations

    assert len(delegations) == 3
    assert len({run.run_id for run in runs}) == 1
    unused = {delegation for run_id, delegation in delegations.items() if run_id != runs[0].run_id}
    assert unused <= set(client.identity.revoked)


def broken(**changes: Any) -> epb.ExperimentSpec:
    spec = spec_message(study())
    for name, value in changes.items():
        spec.ClearField(name)  # type: ignore[arg-type]
        target = getattr(spec, name)
        if isinstance(value, Sequence):
            target.extend(value)
        else:
            setattr(spec, name, value)
    return spec


BAD_SPECS = [
    (broken(models=[epb.ModelTarget(model="mock/huge")]), "spec.models[0].model", "MODEL_NOT_FOUND"),
    (broken(models=[epb.ModelTarget(model="spread")]), "spec.models[0].model", "INVALID_FIELD"),
    (broken(models=[epb.ModelTarget(model="none")]), "spec.models[0].model", "INVALID_FIELD"),
    (broken(models=[]), "spec.models", "EMPTY_PRODUCT"),
    (broken(grid=[epb.ParameterAxis(name="temperature")]), "spec.grid[0].values", "EMPTY_PRODUCT"),
    (broken(repeats=100), "spec", "TOO_MANY_CELLS"),
    (
        broken(
            prompts=[epb.PromptTemplate(name="p", messages=[epb.MessageTemplate(role=2, text="Say {{wrod}}")])]  # type: ignore[arg-type]
        ),
        "spec.prompts[0].messages[0].text",
        "TEMPLATE_VARIABLE_MISSING",
    ),
    (
        broken(scorers=[epb.ScorerTarget(scorer=metrics_pb2.ScorerSpec(name="nope"))]),
        "spec.scorers[0].scorer.name",
        "SCORER_NOT_FOUND",
    ),
]


@pytest.mark.parametrize(("spec", "field", "reason"), BAD_SPECS)
async def test_a_bad_spec_names_its_field_and_nothing_is_written(
    client: Client, spec: epb.ExperimentSpec, field: str, reason: str
) -> None:
    error = await refusal(client.experiments.CreateExperiment(epb.CreateExperimentRequest(name="bad", spec=spec)))

    assert (error.code, error.field, error.reason) == ("INVALID_ARGUMENT", field, reason)
    assert not (await client.experiments.ListExperiments(epb.ListExperimentsRequest())).experiments
    good = await client.create()
    change = epb.UpdateExperimentRequest(
        experiment_id=good.experiment_id, experiment=epb.Experiment(spec=spec), update_mask=FieldMask(paths=["spec"])
    )
    assert (await refusal(client.experiments.UpdateExperiment(change))).field == field


async def test_a_reused_run_leaves_no_delegation_and_no_budget_behind(client: Client) -> None:
    spec = broken(models=[epb.ModelTarget(model="mock/small")])
    spec.limits.max_cost_nano_usd = 1_000
    first = await client.finished(spec)
    again = await client.create(spec)
    budgets = dict(client.world.limits)

    reused = await client.start(again.experiment_id, reuse_identical=True, request_id="once")

    assert (reused.run_id, reused.status) == (first.run_id, pb.RUN_STATUS_COMPLETED)
    assert client.world.limits == budgets
    assert len(client.identity.revoked) == len(client.identity.delegations)
    assert await client.start(again.experiment_id, reuse_identical=True, request_id="once") == reused
    assert (await client.start(again.experiment_id)).run_id != first.run_id


async def test_a_run_that_cannot_start_writes_nothing(client: Client) -> None:
    keyless = await client.create(broken(models=[epb.ModelTarget(model="openai/gpt")]))
    error = await refusal(client.runs.StartRun(pb.StartRunRequest(experiment_id=keyless.experiment_id)))
    assert (error.field, error.reason) == ("spec.models[0].model", "PROVIDER_NOT_CONFIGURED")
    assert "LLMLAB_GATEWAY_OPENAI_KEY" in error.message

    short = pb.StartRunRequest(experiment_id=keyless.experiment_id, limits=epb.RunLimits(timeout_ms=50))
    assert (await refusal(client.runs.StartRun(short))).field == "limits.timeout_ms"
    client.world.gateway_down = True
    assert (
        await refusal(client.runs.StartRun(pb.StartRunRequest(experiment_id=keyless.experiment_id)))
    ).code == "UNAVAILABLE"
    assert not (await client.runs.ListRuns(pb.ListRunsRequest())).runs
    assert not client.world.dispatched


async def test_things_that_do_not_exist_are_not_found(client: Client) -> None:
    run = await client.finished(spec_message(study(rows=1)))
    both = pb.ResultFilter(run_id="run_x", experiment_id="exp_x")
    for call in (
        client.runs.GetRun(pb.GetRunRequest(run_id="run_x")),
        client.runs.CancelRun(pb.CancelRunRequest(run_id="run_x")),
        client.runs.PauseRun(pb.PauseRunRequest(run_id="run_x")),
        client.runs.ResumeRun(pb.ResumeRunRequest(run_id="run_x")),
        client.runs.RetryRun(pb.RetryRunRequest(run_id="run_x")),
        client.runs.DeleteRun(pb.DeleteRunRequest(run_id="run_x")),
        client.runs.WatchRun(pb.WatchRunRequest(run_id="run_x")),
        client.runs.StartRun(pb.StartRunRequest(experiment_id="exp_x")),
        client.results.GetResult(pb.GetResultRequest(run_id=run.run_id, cell_index=99)),
        client.results.ListResults(pb.ListResultsRequest(filter=pb.ResultFilter(experiment_id="exp_x"))),
        client.results.SummarizeRun(pb.SummarizeRunRequest(run_id="run_x")),
        client.results.ExportResults(
            pb.ExportResultsRequest(filter=pb.ResultFilter(run_id="run_x"), format=pb.EXPORT_FORMAT_CSV)
        ),
    ):
        assert (await refusal(call)).reason == "NOT_FOUND"
    for wrong in (both, pb.ResultFilter()):
        assert (await refusal(client.results.ListResults(pb.ListResultsRequest(filter=wrong)))).field == "filter"


async def test_an_update_names_what_it_changes(client: Client) -> None:
    experiment = await client.create()
    for paths, name, field in (
        ([], "x", "update_mask"),
        (["cells"], "x", "update_mask"),
        (["name"], "", "experiment.name"),
    ):
        request = epb.UpdateExperimentRequest(
            experiment_id=experiment.experiment_id,
            experiment=epb.Experiment(name=name),
            update_mask=FieldMask(paths=paths),
        )
        assert (await refusal(client.experiments.UpdateExperiment(request))).field == field


async def test_a_brand_study_finds_its_brands_and_compares_runs(client: Client) -> None:
    spec = broken(brands=[Brand(name="answer"), Brand(name="nobody", aliases=["none"])])
    created = await client.create(spec)
    assert created.spec.brands == spec.brands
    first = (await client.finished(spec)).run_id
    second = (await client.finished(spec)).run_id

    summary = await client.results.SummarizeRunBrands(
        pb.SummarizeRunBrandsRequest(run_id=second, baseline_run_id=first)
    )
    cells = created.cells
    assert [(each.brand, each.figures.mentions, each.figures.answers) for each in summary.brands] == [
        ("answer", cells, cells),
        ("nobody", 0, cells),
    ]
    assert summary.brands[0].change.difference == 0
    (listed,) = await client.pages(100, run_id=second)
    assert {(each.brands[0].brand, each.brands[0].mentions, len(each.brands[0].places)) for each in listed} == {
        ("answer", 1, 0)
    }
    one = (await client.results.GetResult(pb.GetResultRequest(run_id=second, cell_index=0))).result
    assert [(place.start, place.end) for place in one.brands[0].places] == [(0, 6)]
    assert (await client.results.SummarizeRun(pb.SummarizeRunRequest(run_id=second))).has_brands
    exported = json.loads(await client.export(pb.EXPORT_FORMAT_JSON, run_id=second))
    assert exported[0]["brands"] == {"answer": 1}


async def test_brands_that_make_no_sense_are_refused_by_their_place_in_the_spec(client: Client) -> None:
    error = await refusal(client.create(broken(brands=[Brand(name="good"), Brand(name="!?")])))
    assert error.field == "spec.brands[1].name"


async def test_a_run_without_brands_has_none_to_sum_up(client: Client) -> None:
    run_id = (await client.finished()).run_id
    error = await refusal(client.results.SummarizeRunBrands(pb.SummarizeRunBrandsRequest(run_id=run_id)))
    assert error.field == "run_id"
