"""Judgements over the wire: a metrics server, and a gateway on loopback whose answers are scripted."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from llmlab.api.common.v1 import error_pb2, value_pb2
from llmlab.api.gateway.v1 import gateway_pb2
from llmlab.api.gateway.v1.gateway_pb2_grpc import GatewayServiceServicer, add_GatewayServiceServicer_to_server
from llmlab.api.metrics.v1 import judge_pb2 as pb
from llmlab.api.metrics.v1 import metrics_pb2
from llmlab.api.metrics.v1.judge_pb2_grpc import JudgeServiceStub
from llmlab.api.metrics.v1.metrics_pb2_grpc import MetricsServiceStub
from services.metrics.settings import MetricsSettings
from services.metrics.wiring import build
from services.runtime.auth import ServiceTokenMinter
from services.runtime.channel import call_metadata, open_channel
from services.runtime.errors import DomainError
from services.runtime.status import error_from_rpc
from tests.support.hostile_texts import HOSTILE_TEXTS


class ScriptedGateway(GatewayServiceServicer):
    """Answers batches of calls as its script says; None aborts the stream."""

    def __init__(self, script: Callable[[gateway_pb2.Call], gateway_pb2.CallOutcome | None]) -> None:
        self.script = script
        self.batches: list[gateway_pb2.CompleteBatchRequest] = []
        self.tokens: list[str] = []

    async def CompleteBatch(self, request: Any, context: Any) -> AsyncIterator[gateway_pb2.CompleteBatchResponse]:  # noqa: N802
        self.batches.append(request)
        self.tokens.append(str(dict(context.invocation_metadata()).get("authorization", "")))
        for call in reversed(request.calls):
            outcome = self.script(call)
            if outcome is None:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            else:
                yield gateway_pb2.CompleteBatchResponse(outcomes=[outcome])


def completion(call: gateway_pb2.Call, answer: object, reasoning: str = "") -> gateway_pb2.CallOutcome:
    outcome = gateway_pb2.CallOutcome(call_id=call.call_id)
    done = outcome.completion
    if reasoning:
        done.parts.add().reasoning.text = reasoning
    done.parts.add(text=answer if isinstance(answer, str) else json.dumps(answer))
    done.cost.cost_nano_usd = 2_000
    done.usage.input_tokens, done.usage.output_tokens = 30, 7
    return outcome


def refused(call: gateway_pb2.Call) -> gateway_pb2.CallOutcome:
    error = error_pb2.CallError(reason=error_pb2.ERROR_REASON_BUDGET_EXCEEDED, message="nothing is left")
    return gateway_pb2.CallOutcome(call_id=call.call_id, error=error)


def _fine(call: gateway_pb2.Call) -> gateway_pb2.CallOutcome:
    return completion(call, {"reasons": "fine", "score": 0.9})


@dataclass
class Laboratory:
    gateway: ScriptedGateway
    judges: Any
    metadata: tuple[tuple[str, str], ...]
    token: str
    metrics: Any

    async def by_rubric(self, **changes: Any) -> pb.JudgeByRubricResponse:
        answers = [pb.JudgedAnswer(answer_id=str(number), prompt="Q", answer=f"A{number}") for number in range(2)]
        asked: dict[str, Any] = {"judge": pb.JudgeModel(model="mock/judge"), "rubric": "R", "answers": answers}
        request = pb.JudgeByRubricRequest(**(asked | changes))
        answer: pb.JudgeByRubricResponse = await self.judges.JudgeByRubric(request, metadata=self.metadata)
        return answer


@pytest.fixture
async def laboratory(settings: MetricsSettings) -> AsyncIterator[Laboratory]:
    gateway = ScriptedGateway(_fine)  # type: ignore[abstract]
    server = grpc.aio.server()
    add_GatewayServiceServicer_to_server(gateway, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    own = settings.model_copy(update={"gateway_target": f"127.0.0.1:{port}", "judge_max_calls": 130})
    token = ServiceTokenMinter.from_settings(own).token("prj_1", permissions=["CALL", "READ"])
    try:
        async with build(own) as metrics, open_channel(metrics.address, own) as channel:
            yield Laboratory(
                gateway, JudgeServiceStub(channel), call_metadata(token), token, MetricsServiceStub(channel)
            )
    finally:
        await server.stop(None)


async def refusal(call: Awaitable[Any]) -> DomainError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value)


async def test_calls_carry_the_callers_credential_and_evidence_and_cost_come_back(laboratory: Laboratory) -> None:
    judge = pb.JudgeModel(model="mock/judge", temperature=0.5, timeout_ms=5_000, tags={"feature": "judge"})
    judge.provider_options["text"].CopyFrom(value_pb2.Value(string_value="scripted"))
    answer = await laboratory.by_rubric(judge=judge, samples=3)

    (batch,), (shown,) = laboratory.gateway.batches, laboratory.gateway.tokens
    assert shown == f"Bearer {laboratory.token}"
    call = batch.calls[0]
    assert (len(batch.calls), call.model, call.timeout_ms, dict(call.tags)) == (
        6,
        "mock/judge",
        5_000,
        {"feature": "judge"},
    )
    assert (call.parameters.temperature, call.parameters.max_output_tokens) == (0.5, 1_024)
    assert call.parameters.provider_options["text"].string_value == "scripted"
    assert json.loads(call.response_json_schema)["required"] == ["reasons", "score"]
    assert [judged.answer_id for judged in answer.judgements] == ["0", "1"]
    first = answer.judgements[0]
    assert (first.verdict, first.score.value, len(first.samples)) == (pb.RUBRIC_VERDICT_PASS, 0.9, 3)
    evidence = first.samples[0].evidence
    assert (evidence.reasons, evidence.cost.cost_nano_usd, evidence.usage.output_tokens) == ("fine", 2_000, 7)
    assert evidence.call_id == call.call_id
    assert (answer.cost.cost_nano_usd, answer.cost.unpriced_calls) == (12_000, 0)


async def test_no_score_is_read_out_of_reasoning(laboratory: Laboratory) -> None:
    laboratory.gateway.script = lambda call: completion(call, "Yes.", reasoning='{"reasons": "", "score": 1.0}')
    answer = await laboratory.by_rubric()
    assert {judged.verdict for judged in answer.judgements} == {pb.RUBRIC_VERDICT_MISSING}
    assert not answer.judgements[0].samples[0].HasField("score")
    assert answer.judgements[0].samples[0].evidence.answer == "Yes."


async def test_a_spent_budget_is_evidence_and_not_a_score(laboratory: Laboratory) -> None:
    laboratory.gateway.script = refused
    answer = await laboratory.by_rubric()
    (sample, *_) = answer.judgements[0].samples
    assert sample.evidence.missing_reason == "BUDGET_EXCEEDED: nothing is left"
    assert (answer.cost.cost_nano_usd, answer.cost.unpriced_calls) == (0, 0)


async def test_what_a_broken_stream_brought_is_kept(laboratory: Laboratory) -> None:
    def script(call: gateway_pb2.Call) -> gateway_pb2.CallOutcome | None:
        return completion(call, {"reasons": "", "score": 0.9}) if "A1" in call.messages[1].parts[0].text else None

    laboratory.gateway.script = script
    lost, kept = (await laboratory.by_rubric()).judgements
    assert (lost.verdict, kept.verdict) == (pb.RUBRIC_VERDICT_MISSING, pb.RUBRIC_VERDICT_PASS)
    assert lost.samples[0].evidence.cost.unpriced_calls == 1


async def test_where_no_call_is_made_the_request_fails(laboratory: Laboratory) -> None:
    laboratory.gateway.script = lambda _: None
    assert (await refusal(laboratory.by_rubric())).code == "UNAVAILABLE"


async def test_a_judge_that_prefers_the_first_answer_is_flagged(laboratory: Laboratory) -> None:
    laboratory.gateway.script = lambda call: completion(call, {"reasons": "", "winner": "first"})
    request = pb.JudgePairsRequest(
        judge=pb.JudgeModel(model="mock/judge"),
        criteria="Which is better?",
        pairs=[pb.JudgedPair(pair_id=str(number), prompt="Q", a=f"A{number}", b=f"B{number}") for number in range(40)],
    )
    answer = await laboratory.judges.JudgePairs(request, metadata=laboratory.metadata)
    assert {judged.winner for judged in answer.judgements} == {pb.PAIR_WINNER_TIE}
    assert (answer.consistency_rate.value, answer.first_place_rate.value) == (0.0, 1.0)
    assert (answer.bias, answer.a_score.value) == (pb.JUDGE_BIAS_FIRST, 0.5)
    assert answer.judgements[0].a_first.choice == pb.PLACE_CHOICE_FIRST
    assert sorted(len(batch.calls) for batch in laboratory.gateway.batches) == [16, 64]
    assert answer.cost.cost_nano_usd == 80 * 2_000


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"samples": 1}, "samples"),
        ({"samples": 33}, "samples"),
        ({"confidence": 0.2}, "confidence"),
        ({"threshold": 1.5}, "threshold"),
        ({"rubric": ""}, "rubric"),
        ({"answers": []}, "answers"),
        ({"answers": [pb.JudgedAnswer()] * 27}, "answers"),
        ({"judge": pb.JudgeModel()}, "judge.model"),
    ],
)
async def test_broken_requests_name_the_field(laboratory: Laboratory, changes: dict[str, Any], field: str) -> None:
    error = await refusal(laboratory.by_rubric(**changes))
    assert (error.code, error.field) == ("INVALID_ARGUMENT", field)
    assert not laboratory.gateway.batches


async def test_judging_needs_the_right_to_call(laboratory: Laboratory, settings: MetricsSettings) -> None:
    reader = call_metadata(ServiceTokenMinter.from_settings(settings).token("prj_1", permissions=["READ"]))
    laboratory.metadata = reader
    assert (await refusal(laboratory.by_rubric())).code == "PERMISSION_DENIED"


@dataclass
class RunScoring:
    """Scores for answers of a run, asked for with the credential of the one who started it."""

    laboratory: Laboratory
    stub: Any

    async def batch(self, parameters: dict[str, Any] | None = None, **changes: Any) -> Any:
        judge = metrics_pb2.ScorerSpec(name="judge")
        for name, value in ({"model": "mock/judge", "rubric": "R"} | (parameters or {})).items():
            kind = {str: "string_value", int: "int_value", float: "double_value"}[type(value)]
            judge.parameters[name].CopyFrom(value_pb2.Value(**{kind: value}))
        request: dict[str, Any] = {
            "samples": [metrics_pb2.Sample(sample_id=str(cell), prompt="Q", answer=f"A{cell}") for cell in (7, 8)],
            "scorers": [metrics_pb2.ScorerSpec(name="length"), judge, metrics_pb2.ScorerSpec(name="finished")],
            "run": metrics_pb2.ScoringRun(run_id="run_1"),
        }
        if "validate_only" in changes:
            del request["run"]
            asked: Any = metrics_pb2.ScoreBatchRequest(**(request | changes))
            return await self.stub.ScoreBatch(asked, metadata=self.laboratory.metadata)
        asked = metrics_pb2.ScoreRunBatchRequest(**(request | changes))
        return await self.stub.ScoreRunBatch(asked, metadata=self.laboratory.metadata)

    @property
    def calls(self) -> list[gateway_pb2.Call]:
        return [call for batch in self.laboratory.gateway.batches for call in batch.calls]


@pytest.fixture
def run_scoring(laboratory: Laboratory) -> RunScoring:
    return RunScoring(laboratory, laboratory.metrics)


def _by_name(sample: metrics_pb2.SampleScores) -> dict[str, metrics_pb2.Score]:
    return {score.name: score for score in sample.scores}


async def test_a_runs_answers_are_judged_at_its_expense(run_scoring: RunScoring) -> None:
    scored = await run_scoring.batch({"samples": 3, "threshold": 0.6})

    names = [score.name for score in scored.samples[0].scores]
    assert names[names.index("judge") - 1].startswith("length.")
    assert names[-3:] == ["judge", "judge.passed", "finished"]
    score = _by_name(scored.samples[1])["judge"]
    assert (scored.samples[1].sample_id, score.value, score.cost.cost_nano_usd) == ("8", 0.9, 6_000)
    assert (score.judgement.verdict, score.judgement.score.value) == (pb.RUBRIC_VERDICT_PASS, 0.9)
    assert [each.evidence.reasons for each in score.judgement.samples] == ["fine"] * 3
    assert _by_name(scored.samples[1])["judge.passed"].value == 1.0
    first, *_, last = sorted(run_scoring.calls, key=lambda call: call.call_id)
    assert (len(run_scoring.calls), {call.run_id for call in run_scoring.calls}) == (6, {"run_1"})
    assert re.fullmatch(r"run_1/7/judge-[0-9a-f]{12}/1\.1", first.call_id)
    assert (dict(last.tags), last.parameters.max_output_tokens) == ({"feature": "judge"}, 1_024)
    assert set(run_scoring.laboratory.gateway.tokens) == {f"Bearer {run_scoring.laboratory.token}"}


async def test_the_same_batch_asked_for_again_pays_under_few_ids(run_scoring: RunScoring) -> None:
    """As after a crash: an id under which a call has left is refused, and a verdict has three ids."""
    paid: Counter[str] = Counter()

    def once(call: gateway_pb2.Call) -> gateway_pb2.CallOutcome:
        if call.call_id in paid:
            error = error_pb2.CallError(reason=error_pb2.ERROR_REASON_CALL_ALREADY_DISPATCHED, message="it left")
            return gateway_pb2.CallOutcome(call_id=call.call_id, error=error)
        paid[call.call_id] += 1
        return _fine(call)

    run_scoring.laboratory.gateway.script = once
    answers = [await run_scoring.batch({"samples": 2}) for _ in range(5)]

    assert set(paid.values()) == {1}
    assert sorted(Counter(call_id.rpartition(".")[0] for call_id in paid).values()) == [3] * 4
    bills = [_by_name(answer.samples[0])["judge"].cost for answer in answers]
    assert [(bill.cost_nano_usd, bill.unpriced_calls) for bill in bills] == [
        (4_000, 0), (4_000, 2), (4_000, 4), (0, 6), (0, 6),
    ]  # fmt: skip
    lost = _by_name(answers[-1].samples[0])["judge"]
    assert not lost.HasField("value")
    assert lost.absent_reason == "CALL_ALREADY_DISPATCHED: it left"


@pytest.mark.parametrize(
    ("script", "reason", "passed"),
    [
        (refused, "BUDGET_EXCEEDED: nothing is left", "BUDGET_EXCEEDED: nothing is left"),
        (
            lambda call: completion(call, "good!"),
            "the verdict is not a JSON object",
            "the verdict is not a JSON object",
        ),
        (
            lambda call: completion(call, {"reasons": "", "score": 0.58 + 0.04 * call.call_id.endswith("1.1")}),
            "",
            "undecided: 0.35 - 0.85, or what is missing, holds 0.6",
        ),
    ],
)
async def test_what_is_not_decided_is_absent_and_never_0(
    run_scoring: RunScoring, script: Any, reason: str, passed: str
) -> None:
    run_scoring.laboratory.gateway.script = script
    scored = await run_scoring.batch({"samples": 2})
    scores = _by_name(scored.samples[0])
    assert (scores["judge"].absent_reason, scores["judge"].HasField("value")) == (reason, not reason)
    assert scores["judge.passed"].absent_reason == passed
    assert scores["length.words"].value == 1.0


async def test_calls_under_way_are_bounded_and_refusals_are_waited_for(run_scoring: RunScoring) -> None:
    refusals = iter(range(3))

    def busy(call: gateway_pb2.Call) -> gateway_pb2.CallOutcome:
        if next(refusals, None) is None:
            return _fine(call)
        error = error_pb2.CallError(reason=error_pb2.ERROR_REASON_RATE_LIMITED, retryable=True, retry_after_ms=1)
        return gateway_pb2.CallOutcome(call_id=call.call_id, error=error)

    run_scoring.laboratory.gateway.script = busy
    scored = await run_scoring.batch(run=metrics_pb2.ScoringRun(run_id="run_1", calls_at_once_max=2))
    assert _by_name(scored.samples[0])["judge"].value == 0.9
    assert {len(batch.calls) for batch in run_scoring.laboratory.gateway.batches} <= {1, 2}
    assert len({call.call_id for call in run_scoring.calls}) == 6


@pytest.mark.parametrize(
    ("parameters", "changes", "field"),
    [
        ({"samples": 1}, {}, "scorers[1].parameters.samples"),
        ({"samples": 33}, {}, "scorers[1].parameters.samples"),
        ({"threshold": 1.5}, {}, "scorers[1].parameters.threshold"),
        ({"model": "judge"}, {}, "scorers[1].parameters.model"),
        ({"rubric": "  "}, {}, "scorers[1].parameters.rubric"),
        ({"tone": "mild"}, {}, "scorers[1].parameters.tone"),
        ({"threshold": 2.0}, {"validate_only": True}, "scorers[1].parameters.threshold"),
        ({}, {"run": None}, "run"),
        ({}, {"samples": [metrics_pb2.Sample(sample_id="x")]}, "samples"),
    ],
)
async def test_wrong_requests_cost_nothing(
    run_scoring: RunScoring, parameters: dict[str, Any], changes: dict[str, Any], field: str
) -> None:
    error = await refusal(run_scoring.batch(parameters, **changes))
    assert getattr(error, "field", "") == field or error.metadata.get("field") == field
    assert not run_scoring.calls


async def test_hostile_texts_have_a_verdict_or_a_reason(run_scoring: RunScoring) -> None:
    samples = [
        metrics_pb2.Sample(sample_id=str(cell), prompt=text, answer=text, references=[text])
        for cell, text in enumerate(HOSTILE_TEXTS)
    ]
    scored = await run_scoring.batch({"samples": 2}, samples=samples)
    scores = [_by_name(sample)["judge"] for sample in scored.samples]
    assert [bool(score.judgement.samples) or bool(score.absent_reason) for score in scores] == [True] * len(samples)
    assert {score.value for score in scores if not score.absent_reason} == {0.9}


async def test_validating_asks_nobody(run_scoring: RunScoring) -> None:
    assert not (await run_scoring.batch(validate_only=True)).samples
    assert not run_scoring.calls
