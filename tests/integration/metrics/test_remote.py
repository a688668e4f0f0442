"""Remote scorers over the wire: a metrics server, and scorer servers on loopback that people might have written."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from llmlab.api.common.v1.value_pb2 import Value
from llmlab.api.metrics.v1 import metrics_pb2 as pb
from llmlab.api.metrics.v1 import scorer_pb2
from llmlab.api.metrics.v1.metrics_pb2_grpc import MetricsServiceStub
from llmlab.api.metrics.v1.scorer_pb2_grpc import ScorerServiceServicer, add_ScorerServiceServicer_to_server
from services.metrics.peers.remote_scorers import GrpcRemoteServers
from services.metrics.remote import RemoteFailure
from services.metrics.settings import MetricsSettings
from services.metrics.wiring import build
from services.runtime.auth import ServiceTokenMinter
from services.runtime.channel import call_metadata, open_channel
from services.runtime.settings import SettingsError, load_settings
from services.runtime.status import error_from_rpc
from tests.support.hostile_texts import HOSTILE_TEXTS

Script = Callable[[scorer_pb2.ScoreAnswersRequest, Any], Awaitable[scorer_pb2.ScoreAnswersResponse]]


async def word_count(request: scorer_pb2.ScoreAnswersRequest, _: Any) -> scorer_pb2.ScoreAnswersResponse:
    response = scorer_pb2.ScoreAnswersResponse()
    for sample in reversed(request.answers):
        response.scores.add(sample_id=sample.sample_id, value=len(sample.answer.split()))
    return response


@dataclass
class ScriptedScorer(ScorerServiceServicer):
    script: Script = word_count
    requests: list[scorer_pb2.ScoreAnswersRequest] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)

    async def ScoreAnswers(self, request: Any, context: Any) -> scorer_pb2.ScoreAnswersResponse:  # noqa: N802
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        return await self.script(request, context)


@dataclass
class Laboratory:
    server: ScriptedScorer
    target: str
    metrics: Any
    metadata: tuple[tuple[str, str], ...]

    async def score(self, *answers: str, specs: list[pb.ScorerSpec] | None = None) -> list[pb.SampleScores]:
        samples = [pb.Sample(sample_id="same", prompt="Q", answer=answer, references=["R"]) for answer in answers]
        request = pb.ScoreBatchRequest(samples=samples, scorers=specs or [remote()])
        return list((await self.metrics.ScoreBatch(request, metadata=self.metadata)).samples)


def remote(name: str = "words", label: str = "") -> pb.ScorerSpec:
    return pb.ScorerSpec(name="remote", parameters={"scorer": Value(string_value=name)}, label=label)


@pytest.fixture
async def laboratory(settings: MetricsSettings) -> AsyncIterator[Laboratory]:
    scorer = ScriptedScorer()
    server = grpc.aio.server()
    add_ScorerServiceServicer_to_server(scorer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    changes = {
        # Nothing listens at port 1.
        "remote_scorers": f"words=127.0.0.1:{port}, gone=127.0.0.1:1",
        "remote_batch_max": 3,
        "remote_max_in_flight": 2,
        "retry_attempts": 1,
    }
    own = settings.model_copy(update=changes)
    token = ServiceTokenMinter.from_settings(own).token("prj_1", permissions=["READ"])
    try:
        async with build(own) as metrics, open_channel(metrics.address, own) as channel:
            yield Laboratory(scorer, f"127.0.0.1:{port}", MetricsServiceStub(channel), call_metadata(token))
    finally:
        await server.stop(None)


def only(scored: list[pb.SampleScores]) -> list[pb.Score]:
    return [score for sample in scored for score in sample.scores]


async def test_scores_stand_among_the_others_in_the_order_asked_for(laboratory: Laboratory) -> None:
    specs = [pb.ScorerSpec(name="exact_match"), remote(), pb.ScorerSpec(name="length"), remote(label="again")]
    scored = await laboratory.score("R", "two words", "", *["x"] * 4, specs=specs)

    assert [sample.scores[1].value for sample in scored] == [1, 2, 0, 1, 1, 1, 1]
    assert [score.name for score in scored[1].scores][:3] == ["exact_match", "remote", "length.characters"]
    assert (scored[0].scores[0].value, scored[1].scores[0].value) == (1, 0)
    assert (scored[1].scores[-1].name, scored[1].scores[-1].value) == ("again", 2)
    assert (scored[1].scores[1].signature, scored[1].scores[1].scale) == ("remote:words", pb.SCALE_REAL)
    assert sorted(len(request.answers) for request in laboratory.server.requests) == [1, 1, 3, 3, 3, 3]
    first = laboratory.server.requests[0]
    assert (first.scorer, first.answers[0].prompt, list(first.answers[0].references)) == ("words", "Q", ["R"])
    assert len({sample.sample_id for sample in first.answers}) == len(first.answers)
    assert not any("authorization" in metadata for metadata in laboratory.server.metadata)


async def test_no_more_batches_are_under_way_than_allowed(laboratory: Laboratory) -> None:
    under_way = most = 0
    both = asyncio.Event()

    async def count(request: scorer_pb2.ScoreAnswersRequest, context: Any) -> scorer_pb2.ScoreAnswersResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == 2:
            both.set()
        await both.wait()
        under_way -= 1
        return await word_count(request, context)

    laboratory.server.script = count
    assert [score.value for score in only(await laboratory.score(*["x"] * 18))] == [1] * 18
    assert most == 2


async def test_hostile_texts_come_to_the_server_as_they_are(laboratory: Laboratory) -> None:
    scores = only(await laboratory.score(*HOSTILE_TEXTS))
    assert [score.value for score in scores] == [len(text.split()) for text in HOSTILE_TEXTS]


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ([{"value": math.nan}], "the remote scorer's value is no number between -1e+100 and 1e+100"),
        ([{"value": math.inf}], "the remote scorer's value is no number between -1e+100 and 1e+100"),
        ([{"value": -1e101}], "the remote scorer's value is no number between -1e+100 and 1e+100"),
        ([{}], "the remote scorer gave neither a value nor a reason"),
        ([{"absent_reason": "no verb" + "!" * 999}], "no verb" + "!" * 293),
        ([], "the remote scorer left this answer out"),
        ([{"value": 1.0}, {"value": 1.0}], "remote scorer 'words': it scored the same answer twice"),
        ([{"sample_id": "7"}], "remote scorer 'words': it scored an answer that it was not asked about"),
    ],
)
async def test_what_is_no_score_is_absent_with_its_reason(
    laboratory: Laboratory, scores: list[dict[str, Any]], reason: str
) -> None:
    async def answer(*_: Any) -> scorer_pb2.ScoreAnswersResponse:
        return scorer_pb2.ScoreAnswersResponse(
            scores=[scorer_pb2.AnswerScore(**({"sample_id": "0"} | score)) for score in scores]
        )

    laboratory.server.script = answer
    (score,) = only(await laboratory.score("x"))
    assert (score.HasField("value"), score.absent_reason) == (False, reason)


async def test_a_server_that_breaks_or_is_gone_spoils_no_other_score(laboratory: Laboratory) -> None:
    async def broken(*_: Any) -> scorer_pb2.ScoreAnswersResponse:
        raise ValueError("no model")

    laboratory.server.script = broken
    specs = [remote(), pb.ScorerSpec(name="exact_match"), remote("gone", label="gone")]
    first, match, gone = only(await laboratory.score("R", specs=specs))
    assert (first.HasField("value"), match.value, gone.HasField("value")) == (False, 1.0, False)
    assert first.absent_reason.startswith("remote scorer 'words': UNKNOWN: ")
    assert "no model" in first.absent_reason
    # No address: where the operator's servers are is not for callers.
    assert gone.absent_reason == "remote scorer 'gone': UNAVAILABLE"


async def test_a_server_that_takes_too_long_is_left(settings: MetricsSettings, laboratory: Laboratory) -> None:
    left = asyncio.Event()

    async def endless(*_: Any) -> scorer_pb2.ScoreAnswersResponse:
        try:
            return await asyncio.Future()
        finally:
            left.set()

    laboratory.server.script = endless
    request = pb.ScoreBatchRequest(samples=[pb.Sample(answer="x")], scorers=[remote()])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await laboratory.metrics.ScoreBatch(request, metadata=laboratory.metadata, timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await left.wait()

    own = settings.model_copy(update={"remote_scorers": f"words={laboratory.target}", "remote_timeout_ms": 50})
    async with GrpcRemoteServers.open(own) as servers:
        with pytest.raises(RemoteFailure, match=r"^DEADLINE_EXCEEDED$"):
            await servers.ask("words", [("x", "", (), "")])


@pytest.mark.parametrize("validate_only", [True, False])
async def test_where_no_server_is_named_none_can_be_asked(
    metrics: Any, reader: tuple[tuple[str, str], ...], validate_only: bool
) -> None:
    request = pb.ScoreBatchRequest(samples=[pb.Sample(answer="x")], scorers=[remote()], validate_only=validate_only)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await metrics.ScoreBatch(request, metadata=reader)
    assert error_from_rpc(caught.value).reason == "SCORER_PARAMETERS"


@pytest.mark.parametrize("name", ["nope", "127.0.0.1:80", ""])
async def test_only_named_servers_can_be_asked(laboratory: Laboratory, name: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await laboratory.score("x", specs=[remote(name)])
    error = error_from_rpc(caught.value)
    assert (error.reason, error.field) == ("SCORER_PARAMETERS", "scorers[0].parameters.scorer")
    assert error.message == "must be one of gone, words"


async def test_the_servers_are_listed(laboratory: Laboratory) -> None:
    listed = await laboratory.metrics.ListScorers(pb.ListScorersRequest(), metadata=laboratory.metadata)
    assert [scorer.name for scorer in listed.scorers] == sorted(scorer.name for scorer in listed.scorers)
    (scorer,) = (scorer for scorer in listed.scorers if scorer.name == "remote")
    (parameter,) = scorer.parameters
    assert (parameter.name, parameter.type, list(parameter.choices)) == ("scorer", "string", ["gone", "words"])


@pytest.mark.parametrize("text", ["words", "words=", "=h:1", "words=host", "Words=h:1", "a=h:1,a=h:2", "a=h:1;b=h:2"])
def test_a_malformed_setting_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMLAB_METRICS_REMOTE_SCORERS", text)
    with pytest.raises(SettingsError, match="LLMLAB_METRICS_REMOTE_SCORERS"):
        load_settings(MetricsSettings)
