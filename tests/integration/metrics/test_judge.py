"""Judgements over the wire: a metrics server, and a gateway on loopback whose answers are scripted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from llmlab.api.common.v1 import error_pb2, value_pb2
from llmlab.api.gateway.v1 import gateway_pb2
from llmlab.api.gateway.v1.gateway_pb2_grpc import GatewayServiceServicer, add_GatewayServiceServicer_to_server
from llmlab.api.metrics.v1 import judge_pb2 as pb
from llmlab.api.metrics.v1.judge_pb2_grpc import JudgeServiceStub
from services.metrics.settings import MetricsSettings
from services.metrics.wiring import build
from services.runtime.auth import ServiceTokenMinter
from services.runtime.channel import call_metadata, open_channel
from services.runtime.errors import DomainError
from services.runtime.status import error_from_rpc


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
    token = ServiceTokenMinter.from_settings(own).token("prj_1", permissions=["CALL"])
    try:
        async with build(own) as metrics, open_channel(metrics.address, own) as channel:
            yield Laboratory(gateway, JudgeServiceStub(channel), call_metadata(token), token)
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
