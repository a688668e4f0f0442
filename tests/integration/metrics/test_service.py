"""Metrics over the wire: what a client sees."""

from __future__ import annotations

import math
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from llmlab.api.common.v1.error_pb2 import ErrorClass, ErrorReason
from llmlab.api.common.v1.value_pb2 import Value, ValueList
from llmlab.api.metrics.v1 import metrics_pb2 as pb
from services.metrics.scorers.quality import QualityParameters
from services.metrics.settings import MetricsSettings
from services.runtime.auth import ServiceTokenMinter
from services.runtime.channel import call_metadata
from services.runtime.errors import DomainError
from services.runtime.status import error_from_rpc
from tests.support.hostile_texts import HOSTILE_TEXTS

if TYPE_CHECKING:
    from llmlab.api.metrics.v1.metrics_pb2_grpc import MetricsServiceAsyncStub

Metadata = tuple[tuple[str, str], ...]

PROMPT = "Why do volcanoes erupt?"
ANSWER = "Volcanoes erupt because gas in the magma expands. The magma is pushed out through cracks in the rock."


async def refusal(call: Awaitable[Any]) -> DomainError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value)


def text_list(*texts: str) -> Value:
    return Value(list_value=ValueList(values=[Value(string_value=text) for text in texts]))


def by_name(scores: Any) -> dict[str, pb.Score]:
    return {score.name: score for score in scores}


async def test_default_set(metrics: MetricsServiceAsyncStub, reader: Metadata) -> None:
    sample = pb.Sample(prompt=PROMPT, answer=ANSWER, finish_reason="STOP")
    answer = await metrics.Score(pb.ScoreRequest(sample=sample), metadata=reader)
    scores = by_name(answer.scores)
    assert scores["length.words"].value == 18
    assert (scores["length.words"].scale, scores["length.words"].direction) == (pb.SCALE_COUNT, pb.DIRECTION_NEUTRAL)
    assert 0.0 < scores["relevance"].value < 1.0
    assert (scores["relevance"].scale, scores["relevance"].direction) == (pb.SCALE_UNIT, pb.DIRECTION_HIGHER_IS_BETTER)
    assert scores["repetition.rep_4"].direction == pb.DIRECTION_LOWER_IS_BETTER
    assert scores["repetition.rep_4"].HasField("value")  # 0 is a value
    assert not scores["lexical_diversity.mtld"].HasField("value")
    assert scores["lexical_diversity.mtld"].absent_reason == "MTLD needs at least 50 words"
    assert 0.0 < scores["quality"].value <= 1.0
    assert all(score.HasField("value") != bool(score.absent_reason) for score in answer.scores)


async def test_same_request_same_bytes(metrics: MetricsServiceAsyncStub, reader: Metadata) -> None:
    request = pb.ScoreRequest(sample=pb.Sample(prompt=PROMPT, answer=ANSWER))
    first, second = [await metrics.Score(request, metadata=reader) for _ in range(2)]
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


async def test_batch_in_order_with_parameters_and_labels(metrics: MetricsServiceAsyncStub, reader: Metadata) -> None:
    samples = [
        pb.Sample(sample_id=f"s{number}", answer=f"It is {number}.", references=[f"it is {number}"])
        for number in range(10)
    ]
    scorers = [
        pb.ScorerSpec(name="exact_match"),
        pb.ScorerSpec(name="contains", parameters={"texts": text_list("IS 3", "is 4")}, label="three_or_four"),
        pb.ScorerSpec(name="regex", parameters={"pattern": Value(string_value=r"[5-9]\.$")}),
        pb.ScorerSpec(
            name="quality",
            parameters={
                "relevance": Value(int_value=0),
                **{
                    name: Value(double_value=0.0)
                    for name in QualityParameters.model_fields
                    if name not in {"correctness", "relevance"}
                },
            },
        ),
    ]
    answer = await metrics.ScoreBatch(pb.ScoreBatchRequest(samples=samples, scorers=scorers), metadata=reader)
    assert [sample.sample_id for sample in answer.samples] == [f"s{number}" for number in range(10)]
    for number, sample in enumerate(answer.samples):
        assert [(score.name, score.value) for score in sample.scores] == [
            ("exact_match", 1.0),
            ("three_or_four", float(number in {3, 4})),
            ("regex", float(number >= 5)),
            ("quality", 1.0),
            ("quality.coverage", 1.0),
        ]


async def test_bleu_carries_its_signature(metrics: MetricsServiceAsyncStub, reader: Metadata) -> None:
    request = pb.ScoreRequest(
        sample=pb.Sample(answer=ANSWER, references=[ANSWER]), scorers=[pb.ScorerSpec(name="bleu")]
    )
    (score,) = (await metrics.Score(request, metadata=reader)).scores
    assert score.value == pytest.approx(100.0)
    assert score.signature.startswith("nrefs:var|case:mixed|eff:yes|tok:13a|smooth:exp|version:")


async def test_a_bad_sample_spoils_no_other(
    metrics: MetricsServiceAsyncStub, reader: Metadata, settings: MetricsSettings
) -> None:
    samples = [
        pb.Sample(sample_id="good", answer=ANSWER),
        pb.Sample(sample_id="long", answer="x" * (settings.max_text_characters + 1)),
        pb.Sample(sample_id="empty"),
    ]
    answer = await metrics.ScoreBatch(pb.ScoreBatchRequest(samples=samples), metadata=reader)
    good, long, empty = answer.samples
    assert good.scores
    assert not good.HasField("error")
    assert by_name(empty.scores)["length.words"].value == 0.0
    assert not by_name(empty.scores)["quality"].HasField("value")
    assert (long.sample_id, len(long.scores)) == ("long", 0)
    assert long.error.reason == ErrorReason.ERROR_REASON_SCORER_LIMIT
    assert long.error.error_class == ErrorClass.ERROR_CLASS_INVALID_REQUEST
    assert long.error.grpc_code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert str(settings.max_text_characters) in long.error.message


async def test_one_text_above_the_limit_is_refused(
    metrics: MetricsServiceAsyncStub, reader: Metadata, settings: MetricsSettings
) -> None:
    sample = pb.Sample(answer="x" * (settings.max_text_characters + 1))
    error = await refusal(metrics.Score(pb.ScoreRequest(sample=sample), metadata=reader))
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "SCORER_LIMIT")


@pytest.mark.parametrize(
    ("spec", "field", "reason", "code"),
    [
        (pb.ScorerSpec(name="nope"), "scorers[0].name", "SCORER_NOT_FOUND", "NOT_FOUND"),
        (pb.ScorerSpec(name="regex"), "scorers[0].parameters.pattern", "SCORER_PARAMETERS", "INVALID_ARGUMENT"),
        (
            pb.ScorerSpec(name="regex", parameters={"pattern": Value(string_value="(")}),
            "scorers[0].parameters.pattern",
            "SCORER_PARAMETERS",
            "INVALID_ARGUMENT",
        ),
        (
            pb.ScorerSpec(name="contains", parameters={"case_sensitive": Value()}),
            "scorers[0].parameters.case_sensitive",
            "SCORER_PARAMETERS",
            "INVALID_ARGUMENT",
        ),
        (
            pb.ScorerSpec(
                name="contains",
                parameters={"texts": Value(list_value=ValueList(values=[Value(list_value=ValueList())]))},
            ),
            "scorers[0].parameters.texts",
            "SCORER_PARAMETERS",
            "INVALID_ARGUMENT",
        ),
    ],
)
async def test_wrong_scorers_name_the_field(
    metrics: MetricsServiceAsyncStub, reader: Metadata, spec: pb.ScorerSpec, field: str, reason: str, code: str
) -> None:
    request = pb.ScoreBatchRequest(samples=[pb.Sample(answer="x")], scorers=[spec])
    error = await refusal(metrics.ScoreBatch(request, metadata=reader))
    assert (error.code, error.reason, error.field) == (code, reason, field)


@pytest.mark.parametrize("count", [0, 257])
async def test_size_of_a_batch_is_limited(metrics: MetricsServiceAsyncStub, reader: Metadata, count: int) -> None:
    request = pb.ScoreBatchRequest(samples=[pb.Sample(answer="x")] * count)
    error = await refusal(metrics.ScoreBatch(request, metadata=reader))
    assert (error.code, error.field) == ("INVALID_ARGUMENT", "samples")


async def test_hostile_texts(metrics: MetricsServiceAsyncStub, reader: Metadata) -> None:
    samples = [pb.Sample(prompt=text, answer=text, references=[text]) for text in HOSTILE_TEXTS]
    scorers = [
        *(pb.ScorerSpec(name=name) for name in ("exact_match", "token_f1", "contains", "structure", "relevance")),
        pb.ScorerSpec(name="regex", parameters={"pattern": Value(string_value="(x+x+)+y")}),
    ]
    answer = await metrics.ScoreBatch(pb.ScoreBatchRequest(samples=samples, scorers=scorers), metadata=reader)
    for sample in answer.samples:
        assert not sample.HasField("error")
        assert all(math.isfinite(score.value) for score in sample.scores)


async def test_scorers_are_listed_page_by_page(metrics: MetricsServiceAsyncStub, reader: Metadata) -> None:
    listed: list[pb.Scorer] = []
    token = ""
    while True:
        page = await metrics.ListScorers(pb.ListScorersRequest(page_size=5, page_token=token), metadata=reader)
        assert 1 <= len(page.scorers) <= 5
        listed.extend(page.scorers)
        token = page.next_page_token
        if not token:
            break
    everything = await metrics.ListScorers(pb.ListScorersRequest(), metadata=reader)
    assert listed == list(everything.scorers)
    scorers = {scorer.name: scorer for scorer in listed}
    assert list(scorers) == sorted(scorers)
    assert {name for name in ("bleu", "exact_match", "length", "regex") if scorers[name].needs_reference} == {
        "bleu",
        "exact_match",
    }
    (pattern, mode, case_sensitive) = scorers["regex"].parameters
    assert (pattern.name, pattern.type, pattern.HasField("default_value")) == ("pattern", "string", False)
    assert (mode.type, mode.default_value.string_value) == ("string", "search")
    assert (case_sensitive.type, case_sensitive.default_value.bool_value) == ("bool", True)
    (texts, *_) = scorers["contains"].parameters
    assert (texts.type, texts.default_value.WhichOneof("kind")) == ("list of string", "list_value")
    assert scorers["relevance"].needs_prompt
    (relevance,) = scorers["relevance"].scores
    assert (relevance.name, relevance.minimum, relevance.maximum) == ("relevance", 0.0, 1.0)
    words = next(score for score in scorers["length"].scores if score.name == "length.words")
    assert not words.HasField("maximum")


async def test_a_foreign_page_token_is_refused(metrics: MetricsServiceAsyncStub, reader: Metadata) -> None:
    error = await refusal(metrics.ListScorers(pb.ListScorersRequest(page_token="foreign"), metadata=reader))
    assert error.reason == "INVALID_PAGE_TOKEN"


async def test_callers_need_a_credential_that_may_read(
    metrics: MetricsServiceAsyncStub, settings: MetricsSettings
) -> None:
    anonymous = await refusal(metrics.ListScorers(pb.ListScorersRequest()))
    assert anonymous.code == "UNAUTHENTICATED"
    other = call_metadata(ServiceTokenMinter.from_settings(settings).token("prj_1", permissions=["CALL"]))
    denied = await refusal(metrics.ListScorers(pb.ListScorersRequest(), metadata=other))
    assert denied.code == "PERMISSION_DENIED"


async def test_a_stream_is_scored_as_it_comes(metrics: MetricsServiceAsyncStub, reader: Metadata) -> None:
    """Whoever waits for an answer before the next message gets it; ten thousand samples pass."""
    call = metrics.ScoreStream(metadata=reader)
    scorers = [pb.ScorerSpec(name="exact_match")]
    for number in range(40):
        samples = [pb.Sample(sample_id=f"{number}.{each}", answer="a", references=["a"]) for each in range(250)]
        await call.write(pb.ScoreStreamRequest(samples=samples, scorers=() if number else scorers))
        answer = await call.read()
        assert isinstance(answer, pb.ScoreStreamResponse)
        assert [scored.sample_id for scored in answer.samples] == [sample.sample_id for sample in samples]
        assert all(scored.scores[0].value == 1.0 for scored in answer.samples)
    await call.done_writing()
    assert await call.read() == grpc.aio.EOF


@pytest.mark.parametrize(
    ("second", "field"),
    [
        (pb.ScoreStreamRequest(), "samples"),
        (pb.ScoreStreamRequest(samples=[pb.Sample()], scorers=[pb.ScorerSpec(name="length")]), "scorers"),
    ],
)
async def test_a_wrong_message_ends_the_stream(
    metrics: MetricsServiceAsyncStub, reader: Metadata, second: pb.ScoreStreamRequest, field: str
) -> None:
    call = metrics.ScoreStream(metadata=reader)
    await call.write(pb.ScoreStreamRequest(samples=[pb.Sample(answer="x")]))
    assert await call.read() != grpc.aio.EOF
    await call.write(second)
    error = await refusal(call.read())
    assert (error.code, error.field) == ("INVALID_ARGUMENT", field)
