"""Scores by embeddings over the wire: a metrics server, and a gateway on loopback whose vectors are scripted."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from llmlab.api.common.v1.value_pb2 import Value
from llmlab.api.gateway.v1 import gateway_pb2
from llmlab.api.gateway.v1.gateway_pb2_grpc import GatewayServiceServicer, add_GatewayServiceServicer_to_server
from llmlab.api.metrics.v1 import metrics_pb2 as pb
from llmlab.api.metrics.v1.metrics_pb2_grpc import MetricsServiceStub
from services.metrics.settings import MetricsSettings
from services.metrics.wiring import build
from services.runtime.auth import ServiceTokenMinter
from services.runtime.channel import Metadata, call_metadata, open_channel
from services.runtime.errors import DomainError, ResourceExhausted, WrongState
from services.runtime.status import code_of, error_from_rpc, status_of, trailing_metadata
from tests.support.gateway_rpc import TRACED
from tests.support.hostile_texts import HOSTILE_TEXTS
from tests.support.spans import spans_of, way

CALLS_AT_ONCE = 2


def letters(text: str) -> list[float]:
    """A vector that counts some letters."""
    return [float(text.lower().count(letter)) for letter in "abc"]


async def nothing() -> None:
    """What happens at the gateway while it answers."""


@dataclass
class LetterGateway(GatewayServiceServicer):
    """Gives vectors of letters at a price of a nano-dollar a character; refuses as its script says."""

    refuse: Callable[[gateway_pb2.EmbedRequest], DomainError | None] = lambda _: None
    vector: Callable[[str], list[float]] = letters
    requests: list[gateway_pb2.EmbedRequest] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    meanwhile: Callable[[], Awaitable[None]] = nothing

    async def Embed(self, request: Any, context: Any) -> gateway_pb2.EmbedResponse:  # noqa: N802
        self.requests.append(request)
        await self.meanwhile()
        self.tokens.append(str(dict(context.invocation_metadata()).get("authorization", "")))
        refusal = self.refuse(request)
        if refusal is not None:
            await context.abort(code_of(refusal), refusal.message, trailing_metadata(status_of(refusal)))
        answer = gateway_pb2.EmbedResponse(
            embeddings=[gateway_pb2.Embedding(values=self.vector(text)) for text in request.texts]
        )
        answer.cost.cost_nano_usd = sum(map(len, request.texts))
        return answer


@dataclass
class Laboratory:
    gateway: LetterGateway
    metrics: Any
    token: str

    async def score(self, name: str, *samples: pb.Sample, metadata: Metadata = ()) -> list[pb.Score]:
        request = pb.ScoreRunBatchRequest(samples=samples, scorers=[spec(name)])
        request.run.run_id = "run_1"
        for cell, sample in enumerate(request.samples):
            sample.sample_id = str(cell)
        answer = await self.metrics.ScoreRunBatch(request, metadata=(*call_metadata(self.token), *metadata))
        return [score for sample in answer.samples for score in sample.scores]


def spec(name: str) -> pb.ScorerSpec:
    return pb.ScorerSpec(name=name, parameters={"model": Value(string_value="mock/instant")})


@asynccontextmanager
async def opened(settings: MetricsSettings) -> AsyncIterator[Laboratory]:
    gateway = LetterGateway()  # type: ignore[abstract]
    server = grpc.aio.server()
    add_GatewayServiceServicer_to_server(gateway, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    changes = {"gateway_target": f"127.0.0.1:{port}", "embedding_calls_at_once": CALLS_AT_ONCE}
    own = settings.model_copy(update=changes)
    token = ServiceTokenMinter.from_settings(own).token("prj_1", permissions=["READ", "CALL"])
    try:
        async with build(own) as metrics, open_channel(metrics.address, own) as channel:
            yield Laboratory(gateway, MetricsServiceStub(channel), token)
    finally:
        await server.stop(None)


@pytest.fixture
async def laboratory(settings: MetricsSettings) -> AsyncIterator[Laboratory]:
    async with opened(settings) as laboratory:
        yield laboratory


@pytest.mark.parametrize(
    ("name", "sample", "value"),
    [
        ("relevance_embedding", pb.Sample(prompt="aa", answer="ab"), math.sqrt(0.5)),
        ("relevance_embedding", pb.Sample(prompt="a", answer="b"), 0.0),
        ("embedding_similarity", pb.Sample(answer="ab", references=["c", "a", " "]), math.sqrt(0.5)),
        ("coherence_embedding", pb.Sample(answer="aa aa. aa. bbb."), 0.5),
    ],
)
async def test_scores_are_cosines_of_vectors(
    laboratory: Laboratory, name: str, sample: pb.Sample, value: float
) -> None:
    (score,) = await laboratory.score(name, sample)
    assert score.value == round(value, 9)
    assert (score.signature, score.scale) == ("embedding:mock/instant", pb.SCALE_REAL)
    assert laboratory.gateway.tokens == [f"Bearer {laboratory.token}"]


@pytest.mark.parametrize(
    ("name", "sample", "reason"),
    [
        ("relevance_embedding", pb.Sample(answer="a"), "the sample has no prompt"),
        ("relevance_embedding", pb.Sample(prompt="a", answer=" "), "the answer is empty"),
        ("relevance_embedding", pb.Sample(prompt="a", answer="a" * 65_537), "a text is longer than the 65536 bytes"),
        ("embedding_similarity", pb.Sample(answer="a"), "the sample has no reference"),
        ("coherence_embedding", pb.Sample(answer="One a."), "the answer has fewer than two sentences"),
    ],
)
async def test_nothing_is_paid_where_there_is_nothing_to_compare(
    laboratory: Laboratory, name: str, sample: pb.Sample, reason: str
) -> None:
    (score,) = await laboratory.score(name, sample)
    assert not score.HasField("value")
    assert score.absent_reason.startswith(reason)
    assert laboratory.gateway.requests == []


@pytest.mark.parametrize("vector", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0], []])
async def test_a_vector_without_a_direction_is_absent(laboratory: Laboratory, vector: list[float]) -> None:
    laboratory.gateway.vector = lambda _: vector
    (score,) = await laboratory.score("relevance_embedding", pb.Sample(prompt="a", answer="b"))
    assert (score.HasField("value"), score.absent_reason) == (False, "the model gave a vector without a direction")


async def test_a_text_is_paid_once_and_the_costs_sum_to_the_bill(laboratory: Laboratory) -> None:
    samples = [pb.Sample(prompt="a", answer="a" * (1 + number)) for number in range(150)]
    scores = await laboratory.score("relevance_embedding", *samples)
    assert sorted(len(request.texts) for request in laboratory.gateway.requests) == [22, 128]
    assert sum(score.cost.cost_nano_usd for score in scores) == sum(range(1, 151))
    assert (scores[0].cost.cost_nano_usd, scores[1].cost.cost_nano_usd) == (1, 2)
    assert {score.value for score in scores} == {1.0}


async def test_a_spent_budget_is_a_reason_and_not_a_score(laboratory: Laboratory) -> None:
    laboratory.gateway.refuse = lambda _: ResourceExhausted("BUDGET_EXCEEDED", "nothing is left")
    (score,) = await laboratory.score("relevance_embedding", pb.Sample(prompt="a", answer="b"))
    assert (score.HasField("value"), score.absent_reason) == (False, "BUDGET_EXCEEDED: nothing is left")
    assert (score.cost.cost_nano_usd, score.cost.unpriced_calls) == (0, 0)


async def test_a_request_of_a_run_that_is_sent_again_uses_few_ids(laboratory: Laboratory) -> None:
    used: set[str] = set()

    def once(request: gateway_pb2.EmbedRequest) -> DomainError | None:
        if request.call_id in used:
            return WrongState("CALL_ALREADY_DISPATCHED", "made before")
        used.add(request.call_id)
        return None

    laboratory.gateway.refuse = once
    sample = pb.Sample(prompt="a", answer="a")
    scores = [(await laboratory.score("relevance_embedding", sample))[0] for _ in range(4)]
    assert [score.HasField("value") for score in scores] == [True, True, True, False]
    assert {request.run_id for request in laboratory.gateway.requests} == {"run_1"}
    assert sorted(call_id.rpartition(".")[2] for call_id in used) == ["1", "2", "3"]
    assert all(call_id.startswith("run_1/0/") for call_id in used)


@pytest.mark.parametrize("name", ["relevance_embedding", "judge"])
async def test_without_a_run_no_model_is_called(laboratory: Laboratory, name: str) -> None:
    sample, scorer, metadata = pb.Sample(prompt="a", answer="b"), spec(name), call_metadata(laboratory.token)
    if name == "judge":
        scorer.parameters["rubric"].string_value = "R"
    run = pb.ScoringRun(run_id="run_1")
    for call in (
        laboratory.metrics.Score(pb.ScoreRequest(sample=sample, scorers=[scorer]), metadata=metadata),
        laboratory.metrics.ScoreBatch(pb.ScoreBatchRequest(samples=[sample], scorers=[scorer]), metadata=metadata),
        laboratory.metrics.ScoreBatch(pb.ScoreBatchRequest(samples=[sample], run=run), metadata=metadata),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        error = error_from_rpc(caught.value)
        assert ([each.field for each in error.violations], "ScoreRunBatch" in error.message) == (["run"], True)
    assert laboratory.gateway.requests == []


async def test_no_more_calls_are_under_way_than_allowed(laboratory: Laboratory) -> None:
    under_way = most = 0
    all_allowed = asyncio.Event()

    async def meanwhile() -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == CALLS_AT_ONCE:
            all_allowed.set()
        await all_allowed.wait()
        under_way -= 1

    laboratory.gateway.meanwhile = meanwhile
    samples = [pb.Sample(prompt=f"a{number}", answer=f"b{number}") for number in range(256)]
    await laboratory.score("relevance_embedding", *samples)
    assert (len(laboratory.gateway.requests), most) == (4, CALLS_AT_ONCE)


async def test_hostile_texts_have_a_score_or_a_reason(laboratory: Laboratory) -> None:
    samples = [pb.Sample(prompt=text, answer=text, references=[text]) for text in HOSTILE_TEXTS]
    for name in ("relevance_embedding", "embedding_similarity", "coherence_embedding"):
        scores = await laboratory.score(name, *samples)
        assert len(scores) == len(samples)
        assert all(score.HasField("value") != bool(score.absent_reason) for score in scores)
        assert all(math.isfinite(score.value) for score in scores)


async def test_a_call_for_vectors_is_in_the_trace_of_an_answer_or_of_the_request(
    settings: MetricsSettings, tmp_path: Path
) -> None:
    file = tmp_path / "spans"
    async with opened(settings.model_copy(update={"trace_file": file, "trace_ratio": 0.0})) as laboratory:
        untraced, traced = pb.Sample(prompt="a", answer="b"), pb.Sample(prompt="a", answer="c", traceparent=TRACED)
        await laboratory.score("relevance_embedding", untraced)
        await laboratory.score("relevance_embedding", untraced, traced)
        await laboratory.score("relevance_embedding", untraced, metadata=(("traceparent", TRACED),))
    embed, request = "llmlab.api.gateway.v1.GatewayService/Embed", "llmlab.api.metrics.v1.MetricsService/ScoreRunBatch"
    assert way(spans_of(file)) == [("score", ""), (embed, "score"), (request, ""), (embed, request)]
