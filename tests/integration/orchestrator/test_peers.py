"""The orchestrator's side of its peers' contracts, against scripted servers on the loopback interface."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from llmlab.api.common.v1 import content_pb2, error_pb2, usage_pb2, value_pb2
from llmlab.api.cost.v1 import hold_pb2
from llmlab.api.cost.v1.hold_pb2_grpc import HoldServiceServicer, add_HoldServiceServicer_to_server
from llmlab.api.gateway.v1 import gateway_pb2
from llmlab.api.gateway.v1.gateway_pb2_grpc import GatewayServiceServicer, add_GatewayServiceServicer_to_server
from llmlab.api.identity.v1 import identity_pb2
from llmlab.api.identity.v1.identity_pb2_grpc import IdentityServiceServicer, add_IdentityServiceServicer_to_server
from llmlab.api.metrics.v1 import metrics_pb2, statistics_pb2
from llmlab.api.metrics.v1.metrics_pb2_grpc import MetricsServiceServicer, add_MetricsServiceServicer_to_server
from services.orchestrator.calls import (
    Answer,
    AttemptState,
    CallPlan,
    Failure,
    Money,
    PlannedCall,
    Settlement,
    Timing,
    Usage,
)
from services.orchestrator.estimates import ComparedGroup, Question, Series
from services.orchestrator.experiment import ScorerTarget
from services.orchestrator.peers.cost import GrpcBills
from services.orchestrator.peers.gateway import GrpcGateway
from services.orchestrator.peers.identity import DelegatedTokens, GrpcIdentity
from services.orchestrator.peers.metrics import GrpcMetrics, merit_of
from services.orchestrator.plan import scorer_groups
from services.orchestrator.ports import NotSent, RunCredential, Sample, ScoringRun
from services.orchestrator.rpc.codec import answer_text
from services.orchestrator.rpc.result_messages import scores_of
from services.orchestrator.settings import OrchestratorSettings
from services.runtime.auth import ServiceTokenMinter
from services.runtime.channel import open_channel
from services.runtime.clock import ManualClock
from services.runtime.errors import DomainError, PermissionDenied, Unavailable
from services.runtime.status import status_of, trailing_metadata

CREDENTIAL = RunCredential("prj_1", "dlg_1")
RUN = ScoringRun("run_1", CREDENTIAL, 4)
Reply = Callable[[Any], Any]


@dataclass
class Script:
    """What the servers answer, by RPC, and what they were asked."""

    replies: dict[str, Reply] = field(default_factory=dict)
    asked: list[tuple[str, Any, str]] = field(default_factory=list)

    async def answer(self, rpc: str, request: Any, context: Any) -> Any:
        self.asked.append((rpc, request, dict(context.invocation_metadata()).get("authorization", "")))
        reply = self.replies[rpc](request)
        if isinstance(reply, DomainError):
            await refuse(reply, context)
        return reply

    def requests(self, rpc: str) -> list[Any]:
        return [request for name, request, _ in self.asked if name == rpc]


async def refuse(error: DomainError, context: Any) -> None:
    """End a call as a real server does."""
    status = status_of(error, "req_1")
    await context.abort(grpc.StatusCode[error.code], error.message, trailing_metadata(status))


class Scripted(GatewayServiceServicer, HoldServiceServicer, MetricsServiceServicer, IdentityServiceServicer):
    """Serves every RPC that the orchestrator calls."""

    def __init__(self, script: Script) -> None:
        self._script = script

    async def CompleteBatch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 (gRPC's)
        for message in await self._script.answer("CompleteBatch", request, context):
            if isinstance(message, DomainError):
                await refuse(message, context)
            yield message


def _unary(rpc: str) -> Any:
    async def handler(self: Any, request: Any, context: Any) -> Any:
        return await self._script.answer(rpc, request, context)

    return handler


for name in (
    "CancelCalls",
    "ListModels",
    "ResolveAttempts",
    "SettleBatch",
    "ScoreBatch",
    "ScoreRunBatch",
    "ListScorers",
    "Summarize",
    "Compare",
    "CreateDelegation",
    "IssueDelegatedToken",
    "RevokeDelegation",
):
    setattr(Scripted, name, _unary(name))


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[str]:
    server = grpc.aio.server()
    servicer = Scripted(script)  # type: ignore[abstract]  # the RPCs that nobody calls here
    add_GatewayServiceServicer_to_server(servicer, server)
    add_HoldServiceServicer_to_server(servicer, server)
    add_MetricsServiceServicer_to_server(servicer, server)
    add_IdentityServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@dataclass
class Peers:
    """The four peers over one channel."""

    gateway: GrpcGateway
    bills: GrpcBills
    metrics: GrpcMetrics
    identity: GrpcIdentity
    script: Script
    clock: ManualClock


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    script, clock = Script(), ManualClock()
    script.replies["IssueDelegatedToken"] = lambda _: issued("token-1", clock.now_us() // 1_000_000 + 900)
    settings = OrchestratorSettings(port=0, auth_service_key="ab" * 32, retry_attempts=1)
    minter = ServiceTokenMinter.from_settings(settings)
    async with serving(script) as address, open_channel(address, settings) as channel:
        tokens = DelegatedTokens(channel, minter, clock)
        yield Peers(
            GrpcGateway(channel, tokens),
            GrpcBills(channel, minter),
            GrpcMetrics(channel, minter, tokens, timeout_s=5),
            GrpcIdentity(channel, minter),
            script,
            clock,
        )


def constant(reply: Any) -> Reply:
    """The same answer whatever is asked."""
    return lambda _: reply


def issued(token: str, expires_s: int) -> identity_pb2.IssueDelegatedTokenResponse:
    answer = identity_pb2.IssueDelegatedTokenResponse()
    answer.tokens.access_token = token
    answer.tokens.access_expires_at.seconds = expires_s
    return answer


def planned(cell: int, plan: CallPlan | None = None) -> PlannedCall:
    chosen = plan or CallPlan(
        "run_1",
        "mock/small",
        {"temperature": 1, "stop": ("a", "b"), "max_output_tokens": 9},
        {"ttft_ms": 5, "script": ("x",)},
        700,
        {"experiment": "exp_1"},
    )
    return PlannedCall(f"run_1/{cell}/1", f"nonce-{cell}", chosen, (("system", "Be brief."), ("user", f"cell {cell}")))


def completion(call_id: str) -> gateway_pb2.CallOutcome:
    outcome = gateway_pb2.CallOutcome(call_id=call_id)
    done = outcome.completion
    done.provider_model = "small-1"
    done.parts.add().reasoning.text = "hm"
    done.parts.add().text = "Hello "
    done.parts.add().text = "there"
    done.finish_reason = gateway_pb2.FINISH_REASON_LENGTH
    done.usage.input_tokens, done.usage.output_tokens = 3, 2
    done.usage.source = usage_pb2.USAGE_SOURCE_ESTIMATED
    done.timing.latency_us, done.timing.ttft_output_us, done.timing.streamed = 900, 0, True
    done.cost.cost_nano_usd = 11
    return outcome


async def outcomes_of(peers: Peers, *calls: PlannedCall) -> dict[str, Answer | Failure]:
    found: dict[str, Answer | Failure] = {}
    async for outcomes in peers.gateway.complete_batch(CREDENTIAL, calls, 5.0):
        found.update({outcome.call_id: outcome.ending for outcome in outcomes})
    return found


async def test_a_batch_is_sent_whole_and_answers_are_read_whole(peers: Peers) -> None:
    def reply(request: gateway_pb2.CompleteBatchRequest) -> list[gateway_pb2.CompleteBatchResponse]:
        return [gateway_pb2.CompleteBatchResponse(outcomes=[completion(call.call_id)]) for call in request.calls]

    peers.script.replies["CompleteBatch"] = reply
    first = planned(0)
    found = await outcomes_of(peers, first, planned(1, first.plan))

    (request,) = peers.script.requests("CompleteBatch")
    call = request.calls[0]
    assert (call.call_id, call.dispatch_nonce, call.model, call.run_id) == (
        "run_1/0/1",
        "nonce-0",
        "mock/small",
        "run_1",
    )
    assert (call.timeout_ms, dict(call.tags)) == (700, {"experiment": "exp_1"})
    assert [(message.role, message.parts[0].text) for message in call.messages] == [
        (content_pb2.ROLE_SYSTEM, "Be brief."),
        (content_pb2.ROLE_USER, "cell 0"),
    ]
    assert (call.parameters.temperature, list(call.parameters.stop), call.parameters.max_output_tokens) == (
        1.0,
        ["a", "b"],
        9,
    )
    assert call.parameters.provider_options["ttft_ms"].int_value == 5
    assert peers.script.asked[-1][2] == "Bearer token-1"
    answer = found["run_1/1/1"]
    assert isinstance(answer, Answer)
    assert (answer.text, answer_text(answer.body), answer.finish_reason) == ("Hello there", "Hello there", "LENGTH")
    assert (answer.usage, answer.cost) == (Usage(3, output_tokens=2, estimated=1), Money(11))
    assert answer.timing == Timing(900, None, 0, 0, 0, streamed=True)


def failed(*, dispatched: bool, costs: tuple[int | None, ...] = ()) -> gateway_pb2.CallOutcome:
    outcome = gateway_pb2.CallOutcome(call_id="run_1/0/1")
    outcome.error.CopyFrom(
        error_pb2.CallError(
            reason=error_pb2.ERROR_REASON_RATE_LIMITED,
            message="slow down",
            retryable=True,
            retry_after_ms=70,
            dispatched=dispatched,
            usage=usage_pb2.TokenUsage(input_tokens=4),
        )
    )
    for cost in costs:
        attempt = outcome.attempts.add(usage=usage_pb2.TokenUsage(input_tokens=5))
        if cost is not None:
            attempt.cost.cost_nano_usd = cost
    return outcome


@pytest.mark.parametrize(
    ("outcome", "usage", "cost"),
    [
        (failed(dispatched=False), Usage(), Money()),
        (failed(dispatched=True), Usage(4), None),
        (failed(dispatched=True, costs=(2, 3)), Usage(10), Money(5)),
        (failed(dispatched=True, costs=(2, None)), Usage(10), None),
    ],
)
async def test_failures_say_what_they_cost(
    peers: Peers, outcome: gateway_pb2.CallOutcome, usage: Usage, cost: Money | None
) -> None:
    peers.script.replies["CompleteBatch"] = lambda _: [gateway_pb2.CompleteBatchResponse(outcomes=[outcome])]
    ending = (await outcomes_of(peers, planned(0)))["run_1/0/1"]

    assert isinstance(ending, Failure)
    assert (ending.reason, ending.message, ending.retryable, ending.retry_after_ms) == (
        "RATE_LIMITED",
        "slow down",
        True,
        70,
    )
    assert (ending.usage, ending.cost) == (usage, cost)
    assert error_pb2.CallError.FromString(ending.encoded) == outcome.error


async def test_a_batch_that_is_refused_as_a_whole_was_not_sent(peers: Peers) -> None:
    peers.script.replies["CompleteBatch"] = lambda _: PermissionDenied("PERMISSION_DENIED", "no")
    with pytest.raises(NotSent) as caught:
        await outcomes_of(peers, planned(0))

    assert (caught.value.reason, caught.value.retryable) == ("PERMISSION_DENIED", False)


async def test_a_batch_without_a_token_was_not_sent(peers: Peers) -> None:
    peers.script.replies["IssueDelegatedToken"] = lambda _: Unavailable("DEPENDENCY_UNAVAILABLE", "later")
    with pytest.raises(NotSent) as caught:
        await outcomes_of(peers, planned(0))

    assert caught.value.retryable
    assert peers.script.requests("CompleteBatch") == []


async def test_a_stream_that_breaks_is_an_error_and_no_refusal(peers: Peers) -> None:
    done = gateway_pb2.CompleteBatchResponse(outcomes=[completion("run_1/0/1")])
    for messages in ([done, Unavailable("SHUTTING_DOWN", "bye")], [Unavailable("DEPENDENCY_UNAVAILABLE", "gone")]):
        peers.script.replies["CompleteBatch"] = constant(messages)
        with pytest.raises(DomainError) as caught:
            await outcomes_of(peers, planned(0), planned(1))
        assert caught.value.code == "UNAVAILABLE"


async def test_tokens_are_kept_and_renewed_in_time(peers: Peers) -> None:
    peers.script.replies["CompleteBatch"] = lambda _: []
    for _ in range(3):
        await outcomes_of(peers, planned(0))
    peers.clock.advance(601)
    peers.script.replies["IssueDelegatedToken"] = lambda _: issued("token-2", peers.clock.now_us() // 1_000_000 + 900)
    await outcomes_of(peers, planned(0))

    assert len(peers.script.requests("IssueDelegatedToken")) == 2
    assert peers.script.asked[-1][2] == "Bearer token-2"


async def test_models_are_read_to_the_last_page_and_calls_cancelled(peers: Peers) -> None:
    pages = {
        "": gateway_pb2.ListModelsResponse(
            models=[gateway_pb2.Model(name="mock/a", configured=True)], next_page_token="2"
        ),
        "2": gateway_pb2.ListModelsResponse(models=[gateway_pb2.Model(name="x/b", missing_setting="LLMLAB_X")]),
    }
    peers.script.replies["ListModels"] = lambda request: pages[request.page_token]
    peers.script.replies["CancelCalls"] = lambda _: gateway_pb2.CancelCallsResponse()

    known = await peers.gateway.list_models("mine")
    await peers.gateway.cancel_calls(CREDENTIAL, [f"call-{number}" for number in range(1_500)])

    assert (known.names, known.not_configured) == (frozenset({"mock/a", "x/b"}), {"x/b": "LLMLAB_X"})
    assert peers.script.asked[0][2] == "Bearer mine"
    assert [len(request.call_ids) for request in peers.script.requests("CancelCalls")] == [1_024, 476]


async def test_attempts_are_resolved_and_settled(peers: Peers) -> None:
    peers.script.replies["ResolveAttempts"] = lambda request: hold_pb2.ResolveAttemptsResponse(
        attempts=[
            hold_pb2.ResolvedAttempt(attempt_id=request.attempt_ids[0], state=hold_pb2.ATTEMPT_STATE_TOMBSTONED),
            hold_pb2.ResolvedAttempt(
                attempt_id=request.attempt_ids[1],
                state=hold_pb2.ATTEMPT_STATE_SETTLED,
                cost=usage_pb2.Cost(cost_nano_usd=7),
                usage=usage_pb2.TokenUsage(output_tokens=2),
            ),
            hold_pb2.ResolvedAttempt(attempt_id=request.attempt_ids[2], state=99),  # type: ignore[arg-type]
        ]
    )
    refused = hold_pb2.SettleOutcome(
        error=error_pb2.CallError(reason=error_pb2.ERROR_REASON_HOLD_RESOLVED, grpc_code=9)
    )
    settled = hold_pb2.SettleOutcome(cost=usage_pb2.Cost(cost_nano_usd=3))
    peers.script.replies["SettleBatch"] = lambda _: hold_pb2.SettleBatchResponse(outcomes=[settled, refused])

    attempts = await peers.bills.resolve_attempts("prj_1", ["a/1", "b/1", "c/1"])
    costs = await peers.bills.settle(
        "prj_1",
        [
            Settlement("a/1", Usage(1), "small-1", 1_000_001, succeeded=True),
            Settlement("b/1", Usage(), "", 5, succeeded=False),
        ],
    )

    assert [(each.state, each.cost) for each in attempts] == [
        (AttemptState.TOMBSTONED, None),
        (AttemptState.SETTLED, Money(7)),
        (AttemptState.EXPIRED, None),
    ]
    paid, refusal = costs
    assert paid == Money(3)
    assert isinstance(refusal, DomainError)
    assert (refusal.reason, refusal.code) == ("HOLD_RESOLVED", "FAILED_PRECONDITION")
    item = peers.script.requests("SettleBatch")[0].items[0]
    assert (item.usage.input_tokens, item.provider_model, item.occurred_at.seconds, item.succeeded) == (
        1,
        "small-1",
        1,
        True,
    )


async def test_scores_of_several_groups_are_joined(peers: Peers) -> None:
    def reply(request: metrics_pb2.ScoreBatchRequest) -> metrics_pb2.ScoreBatchResponse:
        response = metrics_pb2.ScoreBatchResponse()
        for sample in request.samples:
            scored = response.samples.add(sample_id=sample.sample_id)
            for scorer in request.scorers:
                scored.scores.add(name=scorer.label or scorer.name, value=len(sample.references))
        return response

    peers.script.replies["ScoreBatch"] = reply
    targets = (
        ScorerTarget("exact_match", reference="{{a}}"),
        ScorerTarget("contains", {"ignore_case": True}, "has", "{{b}}"),
        ScorerTarget("length"),
    )
    groups = scorer_groups(targets)
    samples = [Sample(cell, "Q", "A", ("ra", "rb"), "STOP") for cell in range(2)]

    joined = await peers.metrics.score_batch(RUN, groups, samples)
    plain = await peers.metrics.score_batch(RUN, scorer_groups(()), [Sample(0, "Q", "A", ("",), "")])

    assert [[(score.name, score.value) for score in scores_of(scored.packed)] for scored in joined] == [
        [("exact_match", 1), ("length", 1), ("has", 1)]
    ] * 2
    assert scores_of(plain[0].packed) == []
    second = peers.script.requests("ScoreBatch")[1]
    assert list(second.samples[0].references) == ["rb"]
    assert second.scorers[0].parameters["ignore_case"] == value_pb2.Value(bool_value=True)
    assert not peers.script.requests("ScoreBatch")[2].samples[0].references


async def test_scores_by_models_are_asked_for_by_the_run_itself_while_it_may_pay(peers: Peers) -> None:
    def reply(request: metrics_pb2.ScoreRunBatchRequest) -> Any:
        if len(peers.script.requests("ScoreRunBatch")) > 1:
            return PermissionDenied("PERMISSION_DENIED", "the key is gone")
        scored = metrics_pb2.SampleScores()
        for scorer in request.scorers:
            scored.scores.add(name=scorer.name, value=1).cost.cost_nano_usd = 5
        return metrics_pb2.ScoreBatchResponse(samples=[scored])

    peers.script.replies["ScoreRunBatch"] = peers.script.replies["ScoreBatch"] = reply
    groups = scorer_groups((ScorerTarget("judge", needs_model=True), ScorerTarget("length")))
    sample = Sample(3, "Q", "A", ("", ""), "STOP")
    (scored,) = await peers.metrics.score_batch(RUN, groups, [sample])
    (refused,) = await peers.metrics.score_batch(RUN, groups, [sample])

    assert [(score.name, score.value, score.cost.nano_usd) for score in scores_of(scored.packed)] == [
        ("length", 1, 5),
        ("judge", 1, 5),
    ]
    free, paid, *_ = [(request, token) for rpc, request, token in peers.script.asked if rpc.startswith("Score")]
    assert not free[0].HasField("run")
    assert (paid[0].run.run_id, paid[0].run.calls_at_once_max, paid[0].samples[0].sample_id) == ("run_1", 4, "3")
    assert paid[1] == "Bearer token-1" != free[1]
    assert [(score.name, score.value, score.absent_reason) for score in scores_of(refused.packed)] == [
        ("length", 1, ""),
        ("judge", None, "the key is gone"),
    ]
    only_paid = scorer_groups((ScorerTarget("judge", needs_model=True),))
    assert [group.needs_model for group in only_paid] == [True]


HIGHER, LOWER = metrics_pb2.DIRECTION_HIGHER_IS_BETTER, metrics_pb2.DIRECTION_LOWER_IS_BETTER
NEUTRAL = metrics_pb2.DIRECTION_NEUTRAL


@pytest.mark.parametrize(
    ("scores", "merit"),
    [
        ([("length", NEUTRAL, 9), ("ter", LOWER, 0.5), ("quality", HIGHER, 0.75)], 0.75),
        ([("length", NEUTRAL, 9), ("ter", LOWER, 0.5), ("bleu", HIGHER, 0.75)], -0.5),
        ([("ter", LOWER, None), ("bleu", HIGHER, 0.75)], None),
        ([("real", HIGHER, math.inf)], None),
        ([("length", NEUTRAL, 9)], None),
        ([], None),
    ],
)
def test_results_are_put_in_order_by_their_quality_or_the_first_score_with_a_better_side(
    scores: list[tuple[str, metrics_pb2.Direction.ValueType, float | None]], merit: float | None
) -> None:
    scored = metrics_pb2.SampleScores(
        scores=[metrics_pb2.Score(name=name, direction=direction, value=value) for name, direction, value in scores]
    )
    assert merit_of(scored) == merit
    scored.error.message = "one of the scorers failed"
    assert merit_of(scored) is None


async def test_scorers_are_read_and_series_summed_up_in_bounded_requests(peers: Peers) -> None:
    scorer = metrics_pb2.Scorer(name="regex", needs_reference=True)
    scorer.parameters.add(name="pattern")
    scorer.parameters.add(name="flags", default_value=value_pb2.Value(string_value=""))
    peers.script.replies["ListScorers"] = lambda _: metrics_pb2.ListScorersResponse(scorers=[scorer])
    peers.script.replies["Summarize"] = lambda request: statistics_pb2.SummarizeResponse(
        summaries=[
            statistics_pb2.SeriesSummary(estimates=[statistics_pb2.Estimate(count=len(series.values))])
            for series in request.series
        ]
    )

    (declared,) = await peers.metrics.list_scorers("mine")
    figures = await peers.metrics.summarize(
        "mine",
        [Series("mean", [1.0] * 90_000, clusters=[1] * 90_000), Series("rate", [1.0] * 30_000), Series("rate", [])],
    )

    assert (declared.name, declared.needs_reference) == ("regex", True)
    assert sorted(declared.parameters) == ["flags", "pattern"]
    assert sorted(declared.required_parameters) == ["pattern"]
    assert [statistics_pb2.Estimate.FromString(each[0].encoded).count for each in figures] == [90_000, 30_000, 0]
    assert [len(request.series) for request in peers.script.requests("Summarize")] == [1, 2]


async def test_points_are_compared_with_the_best(peers: Peers) -> None:
    peers.script.replies["Compare"] = lambda request: statistics_pb2.CompareResponse(
        baseline="0", comparisons=[statistics_pb2.Comparison(first="1", second="0", wins=len(request.groups))]
    )
    groups = [ComparedGroup("0", [1.0], [5], []), ComparedGroup("1", [], [], [5])]
    (compared,) = await peers.metrics.compare("mine", Question("mean", groups, lower_is_better=True, minimum=0.0))

    (request,) = peers.script.requests("Compare")
    assert (request.against, request.lower_is_better) == (statistics_pb2.COMPARE_AGAINST_BEST, True)
    assert (request.minimum, request.HasField("maximum")) == (0.0, False)
    assert [(each.key, list(each.units), list(each.missing_units)) for each in request.groups] == [
        ("0", [5], []),
        ("1", [], [5]),
    ]
    assert (compared.first, statistics_pb2.Comparison.FromString(compared.encoded).wins) == ("1", 2)


async def test_delegations_are_made_with_the_callers_token_and_ended_with_our_own(peers: Peers) -> None:
    peers.script.replies["CreateDelegation"] = lambda request: identity_pb2.CreateDelegationResponse(
        delegation_id=f"dlg_{request.purpose}"
    )
    peers.script.replies["RevokeDelegation"] = lambda _: identity_pb2.RevokeDelegationResponse()

    assert await peers.identity.create_delegation("mine", "run_1") == "dlg_run_1"
    await peers.identity.revoke_delegation("prj_1", "dlg_1")

    assert [token.startswith("Bearer mine") for _, _, token in peers.script.asked] == [True, False]


async def test_a_peer_that_is_away_is_a_domain_error() -> None:
    settings = OrchestratorSettings(port=0, auth_service_key="ab" * 32, retry_attempts=1)
    minter = ServiceTokenMinter.from_settings(settings)
    async with serving(Script()) as address:
        gone = address
    async with open_channel(gone, settings) as channel:
        tokens = DelegatedTokens(channel, minter, ManualClock())
        calls = (
            GrpcBills(channel, minter).resolve_attempts("prj_1", ["a"]),
            GrpcBills(channel, minter).settle("prj_1", []),
            GrpcMetrics(channel, minter, tokens, timeout_s=5).list_scorers("x"),
            GrpcMetrics(channel, minter, tokens, timeout_s=5).score_batch(RUN, scorer_groups(()), []),
            GrpcMetrics(channel, minter, tokens, timeout_s=5).summarize("x", [Series("rate", [])]),
            GrpcIdentity(channel, minter).create_delegation("x", "run_1"),
            GrpcIdentity(channel, minter).revoke_delegation("prj_1", "dlg_1"),
            GrpcGateway(channel, DelegatedTokens(channel, minter, ManualClock())).list_models("x"),
        )
        errors = await asyncio.gather(*calls, return_exceptions=True)

    assert all(isinstance(error, DomainError) and error.code == "UNAVAILABLE" for error in errors), errors
