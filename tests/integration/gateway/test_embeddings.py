"""Embeddings: the order, length and usage of batches in each format, and the RPC with its bill."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import pytest

from llmlab.api.cost.v1 import hold_pb2
from llmlab.api.gateway.v1 import gateway_pb2
from services.gateway.calls import Call, Message, Parameters, TextPart
from services.gateway.chunks import Finished, FinishReason, UsageSoFar, Vectors
from services.gateway.providers.embeddings import EmbeddingProvider
from services.gateway.providers.port import Embedder
from tests.support.gateway import call, collected, raises_call_failed, request
from tests.support.gateway_rpc import Caller, refusal_of, token_of
from tests.support.provider_kinds import provider_of
from tests.support.provider_streams import JSON
from tests.support.replay import Asked, Reply, replay_server

TEXTS = ("one", "two", "three")
PATHS = {"openai": "/embeddings", "gemini": "/v1beta/models/model:batchEmbedContents"}


def asked(dimensions: int = 0) -> Call:
    message = Message("user", tuple(TextPart(text) for text in TEXTS))
    return call(messages=(message,), dimensions=dimensions, parameters=Parameters(max_output_tokens=0))


def answer_of(kind: str, vectors: list[Any]) -> dict[str, Any]:
    """An answer; OpenAI's in another order than was asked for, which its indexes allow."""
    if kind == "gemini":
        return {"embeddings": [{"values": vector} for vector in vectors]}
    items = [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return {"model": "embedding-x", "data": items[::-1], "usage": {"prompt_tokens": 7, "total_tokens": 7}}


async def embedded(kind: str, body: Any, dimensions: int = 0) -> tuple[list[Any], Any, Asked]:
    reply = Reply(headers=JSON, pieces=(json.dumps(body).encode(),))
    async with replay_server(lambda _: reply) as server:
        provider = provider_of(kind, server.base_url)
        assert isinstance(provider, Embedder)
        events, failed = await collected(provider.embed(request(asked(dimensions)), 0))
        await provider.close()
    return list(events), failed, server.asked[0]


@pytest.mark.parametrize("kind", PATHS)
async def test_the_order_of_a_batch_is_kept(kind: str) -> None:
    vectors = [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
    events, failed, sent = await embedded(kind, answer_of(kind, vectors), dimensions=2)
    assert failed is None
    assert Vectors(((1.0, 0.0), (0.0, 1.0), (0.5, 0.5))) in events
    assert Finished(FinishReason.STOP) in events
    usage = [event.usage.input_tokens for event in events if isinstance(event, UsageSoFar)]
    assert usage == ([7] if kind == "openai" else [])
    assert (sent.path, sent.headers["idempotency-key"]) == (PATHS[kind], "run_1/7/1/1")
    if kind == "openai":
        assert sent.json == {"model": "model", "input": list(TEXTS), "encoding_format": "float", "dimensions": 2}
    else:
        first = {"model": "models/model", "content": {"parts": [{"text": "one"}]}, "outputDimensionality": 2}
        assert (sent.json["requests"][0], len(sent.json["requests"])) == (first, 3)


async def test_vectors_in_base64_and_a_total_alone_are_read() -> None:
    pairs = ((1.0, 0.0), (0.0, 1.0), (0.5, 2.0))
    vectors = [base64.b64encode(struct.pack("<2f", *pair)).decode() for pair in pairs]
    body = {"data": [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]}
    events, failed, _ = await embedded("openai", body | {"usage": {"total_tokens": 9}})
    assert failed is None
    assert Vectors(pairs) in events
    assert [event.usage.input_tokens for event in events if isinstance(event, UsageSoFar)] == [9]


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize(
    "vectors",
    [
        [[1.0], [2.0]],
        [[1.0], [2.0], [3.0], [4.0]],
        [[1.0], [2.0], [3.0, 4.0]],
        [[], [], []],
        [[1.0], [2.0], ["x"]],
        [[1.0], [2.0], [1e999]],
        [[1.0], [2.0], None],
        ["AACAPw==", "AACAPw==", "AACA"],
        [[1.0, 2.0, 3.0]] * 3,
    ],
)
async def test_an_answer_that_is_not_what_was_asked_for_is_no_success(kind: str, vectors: list[Any]) -> None:
    _, failed, _ = await embedded(kind, answer_of(kind, vectors), dimensions=1)
    assert failed is not None
    assert (failed.failure.reason, failed.failure.dispatched) == ("PROVIDER_ERROR", True)


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("body", [{}, [], {"data": 7, "embeddings": 7}, {"error": {"message": "no"}}])
async def test_other_bodies_are_no_success(kind: str, body: Any) -> None:
    _, failed, _ = await embedded(kind, body)
    assert failed is not None
    assert failed.failure.reason == "PROVIDER_ERROR"


async def test_doubled_indexes_are_no_success() -> None:
    body = answer_of("openai", [[1.0], [2.0], [3.0]])
    body["data"][0]["index"] = 0
    _, failed, _ = await embedded("openai", body)
    assert failed is not None
    assert "indexes" in failed.failure.message


def test_a_provider_without_embeddings_says_so() -> None:
    provider = EmbeddingProvider(provider_of("anthropic", "http://127.0.0.1:9"))
    failed = raises_call_failed(lambda: provider.stream(request(asked()), 0))
    assert (failed.failure.reason, failed.failure.dispatched) == ("INVALID_FIELD", False)


async def embed(caller: Caller, **fields: Any) -> gateway_pb2.EmbedResponse:
    wanted = gateway_pb2.EmbedRequest(**{"call_id": "e", "model": "mock/instant", "texts": TEXTS, **fields})
    return await caller.stub.Embed(wanted, metadata=token_of())


async def test_a_batch_is_answered_and_paid(caller: Caller) -> None:
    answer = await embed(caller, texts=["same", "other", "same"], dimensions=16)
    first, second, third = (tuple(vector.values) for vector in answer.embeddings)
    assert first == third != second
    assert math.isclose(math.hypot(*first), 1.0, rel_tol=1e-5)
    assert {len(vector.values) for vector in answer.embeddings} == {16}
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (4, 0)
    assert answer.cost.cost_nano_usd == 4 * 100
    assert answer.timing.latency_us > 0
    (attempt,) = answer.attempts
    resolved = await caller.attempt_state(attempt.attempt_id)
    assert (attempt.attempt_id, resolved.state) == ("e/1", hold_pb2.ATTEMPT_STATE_SETTLED)


async def test_a_budget_holds_for_embeddings(caller: Caller) -> None:
    await caller.limit_spending(1)
    refused, error = await refusal_of(embed(caller, texts=["word " * 1_000]))
    assert (refused.reason, error.dispatched) == ("BUDGET_EXCEEDED", False)


@pytest.mark.parametrize(
    "fields",
    [
        {"texts": []},
        {"texts": ["x"] * 129},
        {"texts": [""]},
        {"texts": ["x" * 65_537]},
        {"dimensions": 8_193},
        {"dimensions": -1},
    ],
)
async def test_limits_of_a_batch(caller: Caller, fields: dict[str, Any]) -> None:
    refused, _ = await refusal_of(embed(caller, **fields))
    assert refused.code == "INVALID_ARGUMENT"


async def test_an_unknown_model_is_told(caller: Caller) -> None:
    refused, _ = await refusal_of(embed(caller, model="mock/none"))
    assert refused.reason == "MODEL_NOT_FOUND"
