"""Answers scored anew: a set of scores beside the run's own, that nobody pays a model for."""

from __future__ import annotations

import asyncio

from llmlab.api.metrics.v1.metrics_pb2 import ScorerSpec
from llmlab.api.orchestrator.v1 import comparison_pb2 as cpb
from llmlab.api.orchestrator.v1 import run_pb2 as pb
from llmlab.api.orchestrator.v1 import score_set_pb2 as spb
from llmlab.api.orchestrator.v1.experiment_pb2 import ScorerTarget
from services.orchestrator.calls import Answer, Failure, PlannedCall
from services.runtime.errors import InvalidField
from tests.support.orchestrator import answer, failure
from tests.support.orchestrator_rpc import Client, refusal


def large_fails(call: PlannedCall) -> Answer | Failure:
    return failure("CONTENT_POLICY", retryable=False) if call.plan.model == "mock/large" else answer("fine")


def request(run_id: str, *names: str, score_set: str = "strict", reference: str = "") -> spb.RescoreRunRequest:
    scorers = [ScorerTarget(scorer=ScorerSpec(name=name), reference=reference) for name in names or ("length",)]
    return spb.RescoreRunRequest(run_id=run_id, score_set=score_set, scorers=scorers)


async def rescored(client: Client, wanted: spb.RescoreRunRequest) -> list[spb.RescoreRunResponse]:
    return [message async for message in client.results.RescoreRun(wanted)]


async def test_new_scores_stand_beside_the_old_ones_and_call_no_model(client: Client) -> None:
    client.world.script = large_fails
    run = await client.finished()
    calls = client.world.dispatched.total()
    said = await rescored(client, request(run.run_id, "exact_match", reference="{{word}}"))

    assert [(message.answers, message.answers_scored) for message in said] == [(8, 0), (8, 8)]
    assert client.world.dispatched.total() == calls
    (found,) = (await client.results.ListScoreSets(spb.ListScoreSetsRequest(run_id=run.run_id))).score_sets
    assert (found.score_set, found.scorers[0].reference) == ("strict", "{{word}}")
    for score_set in ("", "strict"):
        (page,) = await client.pages(100, run_id=run.run_id, score_set=score_set)
        assert [bool(each.scores) for each in page] == [each.status == pb.CELL_STATUS_DONE for each in page]
        summary = await client.results.SummarizeRun(pb.SummarizeRunRequest(run_id=run.run_id, score_set=score_set))
        assert summary.points[0].scores
        exported = await client.export(pb.EXPORT_FORMAT_CSV, run_id=run.run_id, score_set=score_set)
        assert b"score.is_fine" in exported.splitlines()[0]
    sides = [cpb.ComparedSide(run_id=run.run_id, score_set=score_set) for score_set in ("", "strict")]
    compared = await client.results.CompareResults(cpb.CompareResultsRequest(first=sides[0], second=sides[1]))
    assert compared.units_shared == 4


async def test_who_stops_can_go_on_and_answers_are_scored_once(client: Client) -> None:
    run = await client.finished()
    client.world.metrics_down = True
    assert (await refusal(client.results.RescoreRun(request(run.run_id)))).code == "UNAVAILABLE"
    client.world.metrics_down = False
    client.world.score_sizes.clear()
    assert (await rescored(client, request(run.run_id)))[-1].answers_scored == 16
    assert (await rescored(client, request(run.run_id)))[-1].answers_scored == 16
    assert sum(client.world.score_sizes) == 16


async def test_an_answer_that_cannot_be_scored_spoils_no_other(client: Client) -> None:
    run = await client.finished()
    client.world.unscorable = {3: InvalidField("samples", "too long")}
    assert (await rescored(client, request(run.run_id)))[-1].answers_scored == 16
    (page,) = await client.pages(100, run_id=run.run_id, score_set="strict")
    assert [each.cell_index for each in page if not each.scores] == [3]


async def test_what_cannot_be_rescored_is_refused(client: Client) -> None:
    run = await client.finished()
    await rescored(client, request(run.run_id))
    for wanted, reason in (
        (request("run_none"), "NOT_FOUND"),
        (request(run.run_id, score_set="default"), "INVALID_FIELD"),
        (request(run.run_id, score_set="../x"), "INVALID_FIELD"),
        (request(run.run_id, reference="{{nothing}}"), "TEMPLATE_VARIABLE_MISSING"),
        (request(run.run_id, "exact_match", reference="{{word}}"), "ALREADY_EXISTS"),
    ):
        assert (await refusal(client.results.RescoreRun(wanted))).reason == reason
    chosen = pb.ResultFilter(run_id=run.run_id, score_set="none")
    refused = await refusal(client.results.ListResults(pb.ListResultsRequest(filter=chosen)))
    assert refused.reason == "NOT_FOUND"

    client.world.gate = asyncio.Event()
    going = await client.start((await client.create()).experiment_id)
    assert (await refusal(client.results.RescoreRun(request(going.run_id)))).reason == "WRONG_STATE"
    client.world.gate.set()


async def test_a_scorer_that_calls_a_model_is_refused(client: Client) -> None:
    client.world.paid_scorers = frozenset({"length"})
    run = await client.finished()
    refused = await refusal(client.results.RescoreRun(request(run.run_id)))
    assert (refused.reason, refused.field) == ("INVALID_FIELD", "scorers[0].scorer.name")
